"""What rules mean for the candidates of one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Floats
from ranker.rules.rule import Rules, Target

RuleKind = Literal["pin", "boost", "exclusion", "cap"]

FREE: Final = -1


class Offered(Protocol):
    """Candidates, as far as rules look at them."""

    @property
    def item_ids(self) -> Sequence[str]:
        """The candidates."""

    @property
    def type_codes(self) -> NDArray[np.int64]:
        """(n,) int64, equal where types are equal; −1: unknown."""

    def of_type(self, item_type: str) -> NDArray[np.bool_]:
        """(n,) bool."""

    def with_tag(self, tag: str) -> NDArray[np.bool_]:
        """(n,) bool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a rule did to an item."""

    rule_id: str
    kind: RuleKind
    candidate: int
    """Its place among the candidates."""
    position_before: int
    """Where it would stand without rules and chance; 0: not in the slate."""
    position: int
    """Where it stands; 0: not in the slate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What rules mean for the n candidates of a request."""

    pinned: Mapping[int, tuple[int, str]]
    """Position asked for and rule, by candidate."""

    boosted: Floats | None
    """(2, n) float64: factor and addend of each candidate; None: all have 1 and 0."""

    excluded: NDArray[np.bool_]
    """(n,) bool."""

    room: Mapping[int, int]
    """The most items by type code; types without an entry are free."""

    named: Sequence[tuple[RuleKind, str, NDArray[np.int64]]]
    """Every rule but pins: kind, name, and the candidates it is about, (m,) int64 each."""

    def effects(self, before: Sequence[int], after: Sequence[int]) -> list[Effect]:
        """What the rules did, from the slate without and the one with them, both as candidates in order.

        A pin is told of whenever it holds; other rules of items that stand elsewhere than before.
        """
        stood = {candidate: position for position, candidate in enumerate(before, start=1)}
        stands = {candidate: position for position, candidate in enumerate(after, start=1)}
        found = [
            Effect(rule_id=rule_id, kind="pin", candidate=one, position_before=stood.get(one, 0), position=stands[one])
            for one, (_, rule_id) in self.pinned.items()
            if one in stands
        ]
        moved = {one for one in stood.keys() | stands.keys() if stood.get(one, 0) != stands.get(one, 0)}
        for kind, rule_id, candidates in self.named:
            for one in moved.intersection(candidates.tolist()):
                gone = one not in stands
                if one in self.pinned or (kind == "cap" and (not gone or self.excluded[one])) or (kind == "boost" and self.excluded[one]):
                    continue
                found.append(
                    Effect(rule_id=rule_id, kind=kind, candidate=one, position_before=stood.get(one, 0), position=stands.get(one, 0))
                )
        return sorted(found, key=lambda effect: (effect.position or len(stood) + effect.position_before, effect.rule_id))


def ruling(rules: Rules, offered: Offered, *, count: int) -> Ruling:
    """Applies rules to candidates; `count` is how long the slate may get, 0: as long as it likes.

    Exclusions win over pins. Of two pins with one item or one position the first wins; pins beyond `count`, and pins of what is not
    offered, do nothing. Boosts of one candidate follow upon each other.
    """
    size = len(offered.item_ids)
    named: list[tuple[RuleKind, str, NDArray[np.int64]]] = []
    excluded = np.zeros(size, dtype=np.bool_)
    for exclusion in rules.exclusions:
        hit = _hit(exclusion.target, offered)
        excluded |= hit
        named.append(("exclusion", exclusion.rule_id, np.flatnonzero(hit)))
    boosted: Floats | None = None
    for boost in rules.boosts:
        hit = _hit(boost.target, offered)
        if boosted is None:
            boosted = np.vstack((np.ones(size), np.zeros(size)))
        boosted[:, hit] *= boost.factor
        boosted[1, hit] += boost.addend
        named.append(("boost", boost.rule_id, np.flatnonzero(hit)))
    room: dict[int, int] = {}
    own = {cap.item_type for cap in rules.caps}
    for cap in rules.caps:
        codes = offered.type_codes
        covered = offered.of_type(cap.item_type) if cap.item_type else _without_own(offered, own)
        for code in np.unique(codes[covered]).tolist():
            room[code] = min(cap.max_count, room.get(code, cap.max_count))
        named.append(("cap", cap.rule_id, np.flatnonzero(covered)))
    return Ruling(pinned=_pinned(rules, offered, excluded, count), boosted=boosted, excluded=excluded, room=room, named=named)


def _pinned(rules: Rules, offered: Offered, excluded: NDArray[np.bool_], count: int) -> dict[int, tuple[int, str]]:
    pinned: dict[int, tuple[int, str]] = {}
    if not rules.pins:
        return pinned
    place_of = {item_id: place for place, item_id in enumerate(offered.item_ids)}
    taken: set[int] = set()
    for pin in rules.pins:
        place = place_of.get(pin.item_id, FREE)
        if place == FREE or excluded[place] or place in pinned or pin.position in taken or (count and pin.position > count):
            continue
        taken.add(pin.position)
        pinned[place] = (pin.position, pin.rule_id)
    return pinned


def _hit(target: Target, offered: Offered) -> NDArray[np.bool_]:
    if target.kind == "item_type":
        return offered.of_type(target.value)
    if target.kind == "tag":
        return offered.with_tag(target.value)
    return np.array([item_id == target.value for item_id in offered.item_ids], dtype=np.bool_)


def _without_own(offered: Offered, own: set[str]) -> NDArray[np.bool_]:
    covered: NDArray[np.bool_] = offered.type_codes != FREE
    for item_type in own - {""}:
        covered = covered & ~offered.of_type(item_type)
    return covered
