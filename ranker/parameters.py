"""How a slate shall be made: what the request says, else what the user's variant or the surface says, else the deployment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from ranker.diversity.diversifiers import Diversifier
from ranker.exploration.exploration import DEFAULT_EPSILON, DEFAULT_SPREAD, Exploration
from ranker.rules.rule import NO_RULES, Boost, Cap, Exclusion, Pin, Rules, Target
from rankloop.v1 import ranking_pb2 as pb
from rankloop.worker.v1 import worker_pb2

NO_PARAMETERS: Final = worker_pb2.RankingParameters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How a slate shall be made."""

    balance: float
    """λ: relevance against diversity, 0 to 1."""

    diversifier: Diversifier
    """What makes it varied."""

    exploration: Exploration | None
    """None: nothing is left to chance."""

    rules: Rules
    """Those of the request, then those of variant and surface."""


def resolve(
    request: pb.RankRequest, given: worker_pb2.RankingParameters, *, balance: float = 1.0, diversifier: Diversifier = "mmr"
) -> Parameters:
    """The parameters of a request that `ranker.validation.check` has passed; `balance` and `diversifier` are the deployment's."""
    if request.HasField("mmr_lambda"):
        balance = request.mmr_lambda
    elif given.HasField("mmr_lambda"):
        balance = given.mmr_lambda
    return Parameters(
        balance=balance,
        diversifier=cast("Diversifier", given.diversifier) if given.diversifier else diversifier,
        exploration=_exploration(request.exploration) if request.exploration.policy else _exploration(given.exploration),
        rules=_rules(request.rules, given.rules) if request.HasField("rules") or given.HasField("rules") else NO_RULES,
    )


def _exploration(asked: pb.Exploration) -> Exploration | None:
    if asked.policy == pb.EXPLORATION_POLICY_EPSILON_GREEDY:
        return Exploration(policy="epsilon_greedy", epsilon=asked.epsilon if asked.HasField("epsilon") else DEFAULT_EPSILON)
    if asked.policy == pb.EXPLORATION_POLICY_THOMPSON:
        return Exploration(policy="thompson", spread=asked.spread if asked.HasField("spread") else DEFAULT_SPREAD)
    return None


def _rules(*sources: pb.Rules) -> Rules:
    return Rules(
        pins=tuple(
            Pin(rule_id=one.rule_id or f"rules.pins[{place}]", item_id=one.item_id, position=one.position)
            for source in sources
            for place, one in enumerate(source.pins)
        ),
        boosts=tuple(
            Boost(
                rule_id=one.rule_id or f"rules.boosts[{place}]",
                target=_target(one.target),
                factor=one.factor if one.HasField("factor") else 1.0,
                addend=one.addend,
            )
            for source in sources
            for place, one in enumerate(source.boosts)
        ),
        exclusions=tuple(
            Exclusion(rule_id=one.rule_id or f"rules.exclusions[{place}]", target=_target(one.target))
            for source in sources
            for place, one in enumerate(source.exclusions)
        ),
        caps=tuple(
            Cap(rule_id=one.rule_id or f"rules.caps[{place}]", item_type=one.item_type, max_count=one.max_count)
            for source in sources
            for place, one in enumerate(source.caps)
        ),
    )


def _target(target: pb.Target) -> Target:
    kind = target.WhichOneof("by")
    if kind is None:
        raise ValueError("a target names an item, a type or a tag")
    return Target(kind, getattr(target, kind))
