"""How slates of a surface are made where a request does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field, model_validator

from ranker.diversity.diversifiers import Diversifier
from ranker.exploration.exploration import DEFAULT_EPSILON, DEFAULT_SPREAD
from ranker.validation import MAX_ADDEND, MAX_CANDIDATES, MAX_FACTOR, MAX_ID_BYTES, MAX_RULES, MAX_SPREAD
from rankloop.v1 import ranking_pb2
from rankloop.worker.v1.worker_pb2 import RankingParameters
from runtime.configuration import Section

ANY: Final = "*"
"""The name for every surface that has no settings of its own."""

_POLICIES: Final = {
    "none": ranking_pb2.EXPLORATION_POLICY_NONE,
    "epsilon_greedy": ranking_pb2.EXPLORATION_POLICY_EPSILON_GREEDY,
    "thompson": ranking_pb2.EXPLORATION_POLICY_THOMPSON,
}


class ExplorationSettings(Section):
    """How chance has a say."""

    policy: Literal["none", "epsilon_greedy", "thompson"] = "none"
    """`none`; `epsilon_greedy`: any candidate now and then; `thompson`: by draws, wide where little is known."""

    epsilon: float = Field(DEFAULT_EPSILON, ge=0, le=1)
    """For `epsilon_greedy`: the probability, at each position, to take any candidate left."""

    spread: float = Field(DEFAULT_SPREAD, gt=0, le=MAX_SPREAD)
    """For `thompson`: the standard deviation of the relevance of an item that was never shown."""


class RuleSettings(Section):
    """What every rule has."""

    rule_id: str = Field("", max_length=MAX_ID_BYTES // 4)
    """What the rule is called in the slate's effects; empty: by its place."""


class TargetSettings(RuleSettings):
    """A rule about some candidates: exactly one of the three."""

    item_id: str | None = Field(None, min_length=1, max_length=MAX_ID_BYTES)
    """This item."""

    item_type: str | None = Field(None, min_length=1, max_length=MAX_ID_BYTES)
    """Items of this type."""

    tag: str | None = Field(None, min_length=1, max_length=MAX_ID_BYTES)
    """Items with this tag."""

    @model_validator(mode="after")
    def _one(self) -> TargetSettings:
        if sum(one is not None for one in (self.item_id, self.item_type, self.tag)) != 1:
            raise ValueError("a rule names exactly one of item_id, item_type and tag")
        return self

    def target(self) -> ranking_pb2.Target:
        """As the contract says it."""
        if self.item_id is not None:
            return ranking_pb2.Target(item_id=self.item_id)
        if self.item_type is not None:
            return ranking_pb2.Target(item_type=self.item_type)
        return ranking_pb2.Target(tag=self.tag or "")


class PinSettings(RuleSettings):
    """An item at a fixed position, wherever it is among the candidates."""

    item_id: str = Field(min_length=1, max_length=MAX_ID_BYTES)
    """The item."""

    position: int = Field(ge=1, le=MAX_CANDIDATES)
    """Where, 1 is the top."""


class BoostSettings(TargetSettings):
    """A change of relevance: × factor + addend."""

    factor: float = Field(1.0, ge=0, le=MAX_FACTOR)
    """What relevance is multiplied by."""

    addend: float = Field(0.0, ge=-MAX_ADDEND, le=MAX_ADDEND)
    """What is added to it; relevance lies from 0 to 1."""


class ExclusionSettings(TargetSettings):
    """Candidates that are not shown."""


class CapSettings(RuleSettings):
    """The most items of a type."""

    item_type: str = Field("", max_length=MAX_ID_BYTES)
    """The type; empty: every type without a cap of its own."""

    max_count: int = Field(ge=0)
    """How many."""


class SurfaceSettings(Section):
    """How slates of a surface are made where the request, and the user's variant, do not say."""

    mmr_lambda: float | None = Field(None, ge=0, le=1)
    """Relevance against diversity; absent: `ranker.mmr_lambda`."""

    diversifier: Diversifier | None = None
    """`mmr` or `dpp`; absent: `ranker.diversifier`."""

    exploration: ExplorationSettings = ExplorationSettings()
    """How chance has a say."""

    pins: tuple[PinSettings, ...] = Field((), max_length=MAX_RULES)
    """Items at fixed positions: `{item_id, position}`."""

    boosts: tuple[BoostSettings, ...] = Field((), max_length=MAX_RULES)
    """Changes of relevance: `{item_type, factor, addend}`, or by `item_id` or `tag`."""

    exclusions: tuple[ExclusionSettings, ...] = Field((), max_length=MAX_RULES)
    """What is not shown: `{tag}`, or by `item_id` or `item_type`."""

    caps: tuple[CapSettings, ...] = Field((), max_length=MAX_RULES)
    """The most items of a type: `{item_type, max_count}`."""

    def parameters(self, name: str) -> RankingParameters:
        """As a ranking worker is told; `name` is the surface's."""
        explored = self.exploration

        def called(rule: RuleSettings, kind: str, place: int) -> str:
            return rule.rule_id or f"surfaces.{name}.{kind}[{place}]"

        parameters = RankingParameters(mmr_lambda=self.mmr_lambda, diversifier=self.diversifier or "")
        if explored.policy != "none":
            parameters.exploration.policy = _POLICIES[explored.policy]
            parameters.exploration.epsilon = explored.epsilon
            parameters.exploration.spread = explored.spread
        rules = ranking_pb2.Rules(
            pins=[
                ranking_pb2.Pin(rule_id=called(one, "pins", place), item_id=one.item_id, position=one.position)
                for place, one in enumerate(self.pins)
            ],
            boosts=[
                ranking_pb2.Boost(rule_id=called(one, "boosts", place), target=one.target(), factor=one.factor, addend=one.addend)
                for place, one in enumerate(self.boosts)
            ],
            exclusions=[
                ranking_pb2.Exclusion(rule_id=called(one, "exclusions", place), target=one.target())
                for place, one in enumerate(self.exclusions)
            ],
            caps=[
                ranking_pb2.Cap(rule_id=called(one, "caps", place), item_type=one.item_type, max_count=one.max_count)
                for place, one in enumerate(self.caps)
            ],
        )
        if rules.ByteSize():
            parameters.rules.CopyFrom(rules)
        return parameters


class Surfaces:
    """What is set for each surface."""

    def __init__(self, settings: Mapping[str, SurfaceSettings]) -> None:
        self._parameters = {name: surface.parameters(name) for name, surface in settings.items()}
        self._any = self._parameters.get(ANY, RankingParameters())

    def parameters(self, surface: str) -> RankingParameters:
        """Of a surface; shared, not to be changed. A variant's own are merged into a copy: what it says wins, its rules are added."""
        return self._parameters.get(surface, self._any)
