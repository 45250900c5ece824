"""Counters by day and hour: what adds up, kept so that no question has to walk the ledger.

A tally is named by its scope, its key and the day (UTC) it counts for; within it counters stand for the whole day and for each hour.
Interactions count when they occurred; impressions, and all that became of them, when they were shown. Counters are integers (labels in
billionths, outcome values in whole units and billionths), so sums are exact in any order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from collector.attribution import NANOS, Attribution, milliseconds_between
from collector.labels import Combination

Key = str | tuple[str, ...]
Counters = Mapping[str, int]

SLATE_DIMENSIONS = ("algorithm", "model_version", "variant", "surface")
IMPRESSION_DIMENSIONS = ("position", "tier")
DIMENSIONS = (*SLATE_DIMENSIONS, *IMPRESSION_DIMENSIONS)
GROUPINGS: tuple[tuple[str, ...], ...] = ((), *((one,) for one in DIMENSIONS), *combinations(DIMENSIONS, 2))
"""What performance is grouped by: nothing, one dimension, two of them, in the order of DIMENSIONS."""


def scope_of(grouping: Iterable[str]) -> str:
    """The name of a grouping's scope."""
    return "performance:" + "+".join(grouping)


_SCOPES = tuple((scope_of(grouping), tuple(DIMENSIONS.index(dimension) for dimension in grouping)) for grouping in GROUPINGS)
"""Scope and the places of its dimensions in a cell, of every grouping."""


class TallyId(NamedTuple):
    """Which tally."""

    scope: str
    day: datetime
    """Its first moment, UTC."""
    key: Key


class Cell(NamedTuple):
    """Where an impression stands among all dimensions of performance."""

    algorithm: str
    model_version: str
    variant: str
    surface: str
    position: str
    tier: str


SlateCell = tuple[str, str, str, str]
"""A cell without position and tier."""


@dataclass(slots=True)
class TallyDeltas:
    """What a batch of ledger entries adds to the tallies."""

    _by_tally: dict[tuple[str, int, Key], dict[tuple[int, str], int]] = field(default_factory=lambda: defaultdict(dict))
    """By (scope, the day's ordinal, key), then by (hour, counter)."""
    _types: dict[tuple[str, int, int], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """By (item type, the day's ordinal, hour): what counts for the whole as well."""
    _cells: dict[tuple[Cell, int, int], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """By (cell, the day's ordinal, hour): impressions stand in few cells, so they are spread over groupings once per cell."""
    _slates: dict[tuple[SlateCell, frozenset[tuple[str, str]], int, int], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    _slate_values: dict[tuple[SlateCell, int, int], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, scope: str, key: Key, moment: datetime, counters: Counters) -> None:
        """Adds counters to one tally."""
        self._add(scope, moment.toordinal(), moment.hour, key, counters)

    def add_to_whole(self, item_type: str, moment: datetime, counters: Counters) -> None:
        """Adds counters to the whole, and to a type if one is named."""
        _sum(self._types[item_type, moment.toordinal(), moment.hour], counters)

    def add_impression(self, cell: Cell, show_time: datetime, counters: Counters) -> None:
        """Adds counters to every grouping that the cell belongs to."""
        _sum(self._cells[cell, show_time.toordinal(), show_time.hour], counters)

    def add_slate(self, cells: Iterable[Cell], show_time: datetime, counters: Counters) -> None:
        """Adds a slate's counters once to each group that it has impressions in."""
        places = frozenset((cell.position, cell.tier) for cell in cells)
        first = next(iter(cells))
        _sum(self._slates[first[:4], places, show_time.toordinal(), show_time.hour], counters)

    def add_slate_value(self, cell: SlateCell, show_time: datetime, counters: Counters) -> None:
        """Adds counters to the groupings that do not look inside the slate."""
        _sum(self._slate_values[cell, show_time.toordinal(), show_time.hour], counters)

    def settle(self) -> dict[TallyId, dict[tuple[int, str], int]]:
        """Everything, spread over the groupings, without what adds nothing."""
        for (item_type, day, hour), counters in self._types.items():
            self._add("all", day, hour, "", counters)
            if item_type:
                self._add("type", day, hour, item_type, counters)
        for (cell, day, hour), counters in self._cells.items():
            for scope, indexes in _SCOPES:
                self._add(scope, day, hour, tuple([cell[index] for index in indexes]), counters)
        for (slate_cell, day, hour), counters in self._slate_values.items():
            for scope, indexes in _SCOPES:
                if all(index < len(SLATE_DIMENSIONS) for index in indexes):
                    self._add(scope, day, hour, tuple([slate_cell[index] for index in indexes]), counters)
        for (slate_cell, places, day, hour), counters in self._slates.items():
            for scope, indexes in _SCOPES:
                for key in {tuple([(*slate_cell, *place)[index] for index in indexes]) for place in places}:
                    self._add(scope, day, hour, key, counters)
        for spread in (self._types, self._cells, self._slate_values, self._slates):
            spread.clear()
        settled = {
            TallyId(scope, _day(ordinal), key): {at: count for at, count in counters.items() if count}
            for (scope, ordinal, key), counters in self._by_tally.items()
        }
        return {tally: counters for tally, counters in settled.items() if counters}

    def _add(self, scope: str, ordinal: int, hour: int, key: Key, counters: Counters) -> None:
        tally = self._by_tally[scope, ordinal, key]
        for counter, count in counters.items():
            at = (hour, counter)
            tally[at] = tally.get(at, 0) + count


def _sum(total: dict[str, int], more: Counters) -> None:
    for counter, count in more.items():
        total[counter] = total.get(counter, 0) + count


def slate_counters(diversity: float | None) -> Counters:
    """What one slate adds; `diversity` is None where it is not defined."""
    if diversity is None:
        return {"slates": 1}
    return {"slates": 1, "varied": 1, "diversity_nanos": round(diversity * NANOS)}


def interaction_counters(interaction_type: str, label: float) -> Counters:
    """What one interaction adds to its item, its type and the whole."""
    return {"interactions": 1, f"type_{interaction_type}": 1, "label_nanos": round(label * NANOS)}


def outcome_counters(value: float | None) -> Counters:
    """What one outcome adds. `value` is finite, at most 10¹² in size."""
    if value is None:
        return {"outcomes": 1}
    units = int(value // 1)
    return {"outcomes": 1, "outcome_units": units, "outcome_nanos": round((value - units) * NANOS)}


UNTOUCHED: Counters = {"impressions": 1, "untouched": 1}

_COUNTED_TYPES = {
    "click": "clicked",
    "view": "viewed",
    "rate": "rated",
    "favorite": "favorites",
    "watchlist": "watchlists",
    "save": "saves",
    "implement": "implements",
    "dismiss": "dismissals",
    "complete": "completed",
    "purchase": "purchases",
    "apply": "applications",
}


def impression_counters(attribution: Attribution | None, show_time: datetime, rule: Combination) -> Counters:
    """What one impression is worth in performance, given what became of it (None: nothing)."""
    if attribution is None:
        return UNTOUCHED
    counters = {"impressions": 1, "touched": 1, "label_nanos": round(attribution.label(rule) * NANOS)}
    for interaction_type in attribution.counts:
        if (counter := _COUNTED_TYPES.get(interaction_type)) is not None:
            counters[counter] = 1
    if attribution.last_rating is not None:
        counters["stars_nanos"] = round(attribution.last_rating.stars * NANOS)
    if attribution.first_act_time is None:
        counters["ignored"] = 1
    else:
        counters["acted"] = 1
        counters["action_milliseconds"] = milliseconds_between(show_time, attribution.first_act_time)
    if attribution.last_abandon is not None or attribution.first_complete_time is not None:
        counters["finished"] = 1
    if attribution.first_complete_time is not None:
        counters["completion_milliseconds"] = milliseconds_between(show_time, attribution.first_complete_time)
    return counters


def difference(after: Counters, before: Counters) -> dict[str, int]:
    """What to add to get from one to the other."""
    return {name: change for name in after.keys() | before.keys() if (change := after.get(name, 0) - before.get(name, 0))}


_OF_ITEM = ("impressions", "clicked", "acted", "dismissals", "implements")
_OF_TYPE = (*_OF_ITEM, "viewed", "ignored", "untouched", "completed", "finished", "action_milliseconds", "completion_milliseconds")


def item_share(counters: Counters, position: int) -> dict[str, int]:
    """Of an impression's counters (or their change), those that its item keeps."""
    kept = {name: counters[name] for name in _OF_ITEM if name in counters}
    if "impressions" in kept:
        kept["positions"] = position * kept["impressions"]
    return kept


def type_share(counters: Counters, position: int) -> dict[str, int]:
    """Of an impression's counters (or their change), those that its type keeps: its item's, and its lifecycle."""
    kept = {name: counters[name] for name in _OF_TYPE if name in counters}
    if "impressions" in kept:
        kept["positions"] = position * kept["impressions"]
    return kept


def dropoff_of(attribution: Attribution | None) -> str:
    """The point that the impression's last `abandon` names; empty: there is none."""
    return attribution.last_abandon.point if attribution is not None and attribution.last_abandon is not None else ""


def day_of(moment: datetime) -> datetime:
    """Its day's first moment."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


@lru_cache(maxsize=4096)
def _day(ordinal: int) -> datetime:
    return datetime.fromordinal(ordinal).replace(tzinfo=UTC)
