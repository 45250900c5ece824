"""One slate of two rankings of the same request: drafted by two teams, within the rules that hold for both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ranker.parameters import resolve
from ranker.rules.rule import Rules
from rankloop.v1.ranking_pb2 import RULE_KIND_PIN, RankedItem, RankRequest, RankResponse, RuleEffect
from rankloop.worker.v1.worker_pb2 import RankingParameters, ServedItems
from server.experiments.interleaving import ROOM_FOR_ALL, Pick, Room, Team, coin_of, team_draft

INTERLEAVED = "interleaved"
"""The algorithm of a drafted slate."""


class Outcome(StrEnum):
    """What became of a slate that was to be drafted."""

    DRAFTED = "drafted"
    """Both rankings are in it."""
    CONTROL = "control"
    """The treatment's ranking was not to be had: the slate is the control's alone."""
    TREATMENT = "treatment"
    """The other way round."""
    NEITHER = "neither"
    """Neither was to be had: the slate is the fallback of the control."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranking of a request."""

    response: RankResponse
    served: ServedItems | None
    """None: no worker ranked."""
    parameters: RankingParameters
    """What held for it beside the request."""

    @property
    def fell_back(self) -> bool:
        """Whether it is not the ranking that was asked for."""
        return bool(self.response.fallback_reason)


def outcome_of(control: Ranked, treatment: Ranked) -> Outcome:
    """What two rankings allow. A ranking that fell back is none: whoever preferred it would prefer something else."""
    if control.fell_back:
        return Outcome.NEITHER if treatment.fell_back else Outcome.TREATMENT
    return Outcome.CONTROL if treatment.fell_back else Outcome.DRAFTED


def drafted(request: RankRequest, control: Ranked, treatment: Ranked, names: Mapping[Team, str]) -> Ranked:
    """The slate of both rankings.

    Items that the rules of both pin to the same position stand there and are nobody's pick. Caps hold as far as both rankings have them; of
    two bounds for a type the larger one. What only one of them has (a pin, an exclusion, a cap of its variant) is its ranking's own affair.

    Relevance, score, contributions and features of an item are those of the ranking that picked it. Propensities are unknown, diversity is
    not told. Features are kept if they are known of every item, in one schema.

    Args:
        request: what both ranked.
        control: one ranking; neither fell back.
        treatment: the other one.
        names: the variants.
    """
    sides = {Team.CONTROL: control, Team.TREATMENT: treatment}
    rules = {team: resolve(request, side.parameters).rules for team, side in sides.items()}
    pinned = _pinned(sides, rules)
    rankings = [[item.item_id for item in side.response.items if item.item_id not in pinned] for side in sides.values()]
    length = min(request.top_k or len(request.candidates), len(request.candidates))
    coin = coin_of(control.response.ranking_id)
    picks = team_draft(rankings[0], rankings[1], length - len(pinned), coin, _room(request, sides, rules, pinned))
    slate = _with_pins(picks, pinned)
    response = RankResponse(
        ranking_id=control.response.ranking_id,
        items=_items(slate, sides, pinned, names),
        model_version=control.response.model_version if control.response.model_version == treatment.response.model_version else "",
        algorithm=INTERLEAVED,
        ml_ranking_applied=control.response.ml_ranking_applied or treatment.response.ml_ranking_applied,
        rule_effects=_effects(slate, sides),
    )
    return Ranked(response, _served(request, slate, sides), control.parameters)


def _pinned(sides: Mapping[Team, Ranked], rules: Mapping[Team, Rules]) -> dict[str, int]:
    """Position asked for by item, of pins that hold in both rankings."""
    held = [{effect.item_id for effect in side.response.rule_effects if effect.kind == RULE_KIND_PIN} for side in sides.values()]
    asked = {(pin.item_id, pin.position) for pin in rules[Team.TREATMENT].pins}
    pinned: dict[str, int] = {}
    for pin in rules[Team.CONTROL].pins:
        if pin.item_id in held[0] & held[1] and (pin.item_id, pin.position) in asked:
            pinned.setdefault(pin.item_id, pin.position)
    return pinned


def _with_pins(picks: Sequence[Pick], pinned: Mapping[str, int]) -> list[Pick]:
    """The slate, pinned items at their positions; they are written down as the control's. Where it is too short, pins stand at its end."""
    length = len(picks) + len(pinned)
    in_order = sorted(pinned, key=lambda item_id: pinned[item_id])
    at = {min(pinned[item_id], length - (len(pinned) - 1 - rank)) - 1: item_id for rank, item_id in enumerate(in_order)}
    others = iter(picks)
    return [Pick(at[place], Team.CONTROL) if place in at else next(others) for place in range(length)]


def _room(request: RankRequest, sides: Mapping[Team, Ranked], rules: Mapping[Team, Rules], pinned: Mapping[str, int]) -> Room:
    """What the caps of both rankings leave, the pinned items taken in."""
    if not all(one.caps for one in rules.values()):
        return ROOM_FOR_ALL
    types = {item_id: item_type for side in sides.values() for item_id, item_type in _types(request, side).items()}
    bounds = [_bounds(one, set(types.values())) for one in rules.values()]
    room = Room({one: max(bounds[0][one], bounds[1][one]) for one in bounds[0].keys() & bounds[1].keys()}, types)
    for item_id in pinned:
        room.take(item_id)
    return room


def _bounds(rules: Rules, types: set[str]) -> dict[str, int]:
    """The most items by type; an unknown type has no bound."""
    own = {cap.item_type for cap in rules.caps}
    bounds: dict[str, int] = {}
    for cap in rules.caps:
        for one in [cap.item_type] if cap.item_type else types - own - {""}:
            bounds[one] = min(cap.max_count, bounds.get(one, cap.max_count))
    return bounds


def _types(request: RankRequest, ranked: Ranked) -> dict[str, str]:
    """By item of a ranking; catalogue included where a worker ranked."""
    served = _as_served(request, ranked)
    return dict(zip((item.item_id for item in ranked.response.items), served.item_types, strict=True))


def _items(
    slate: Sequence[Pick], sides: Mapping[Team, Ranked], pinned: Mapping[str, int], names: Mapping[Team, str]
) -> Iterator[RankedItem]:
    known = {team: {item.item_id: item for item in side.response.items} for team, side in sides.items()}
    for position, pick in enumerate(slate, start=1):
        item = RankedItem()
        item.CopyFrom(known[pick.team][pick.item_id])
        item.position, item.propensity = position, 0.0
        item.variant_id = "" if pick.item_id in pinned else names[pick.team]
        yield item


def _effects(slate: Sequence[Pick], sides: Mapping[Team, Ranked]) -> list[RuleEffect]:
    """Of items in the slate what rules did in the ranking that picked them; of others that a rule kept out."""
    stands = {pick.item_id: (position, pick.team) for position, pick in enumerate(slate, start=1)}
    found: dict[tuple[str, str], RuleEffect] = {}
    for team, side in sides.items():
        for effect in side.response.rule_effects:
            position, picked_by = stands.get(effect.item_id, (0, team))
            if picked_by is team and bool(position) == bool(effect.position):
                told = RuleEffect()
                told.CopyFrom(effect)
                told.position = position
                found.setdefault((effect.rule_id, effect.item_id), told)
    return sorted(found.values(), key=lambda effect: (not effect.position, effect.position, effect.position_before, effect.rule_id))


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is known of a ranking's items, taken out of the message once: every look into it copies."""

    row: Mapping[str, int]
    """By item."""
    indexes: Sequence[int]
    types: Sequence[str]
    tiers: Sequence[str]
    features: bytes
    schema_hash: str

    @classmethod
    def of(cls, request: RankRequest, ranked: Ranked) -> _Rows:
        """Of a ranking."""
        served = _as_served(request, ranked)
        row = {item.item_id: place for place, item in enumerate(ranked.response.items)}
        return cls(row, list(served.candidate_indexes), list(served.item_types), list(served.tiers), served.features, served.schema_hash)

    def features_of(self, row: int) -> bytes:
        """One item's."""
        size = len(self.features) // len(self.indexes)
        return self.features[size * row : size * (row + 1)]


def _served(request: RankRequest, slate: Sequence[Pick], sides: Mapping[Team, Ranked]) -> ServedItems:
    """What the ledger keeps of the items."""
    known = {team: _Rows.of(request, side) for team, side in sides.items()}
    found = [(known[pick.team], known[pick.team].row[pick.item_id]) for pick in slate]
    hashes = {rows.schema_hash for rows, _ in found}
    schema_hash = hashes.pop() if len(hashes) == 1 else ""
    return ServedItems(
        candidate_indexes=[rows.indexes[row] for rows, row in found],
        item_types=[rows.types[row] for rows, row in found],
        tiers=[rows.tiers[row] for rows, row in found],
        features=b"".join(rows.features_of(row) for rows, row in found) if schema_hash else b"",
        schema_hash=schema_hash,
    )


def _as_served(request: RankRequest, ranked: Ranked) -> ServedItems:
    """What a worker told of a ranking; of one that no worker made, what the request tells, without features."""
    if ranked.served is not None:
        return ranked.served
    place = {candidate.item_id: index for index, candidate in enumerate(request.candidates)}
    indexes = [place[item.item_id] for item in ranked.response.items]
    chosen = [request.candidates[index] for index in indexes]
    return ServedItems(
        candidate_indexes=indexes,
        item_types=[candidate.item_type for candidate in chosen],
        tiers=[candidate.attributes.get("tier", "") for candidate in chosen],
    )
