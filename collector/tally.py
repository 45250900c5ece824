"""Counters by day and hour: what adds up, kept so that no question has to walk the ledger.

A tally is named by its scope, its key and the day (UTC) it counts for; within it counters stand for the whole day and for each hour.
Interactions count when they occurred; impressions, and all that became of them, when they were shown. Counters are integers (labels in
billionths, outcome values in whole units and billionths), so sums are exact in any order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from typing import NamedTuple

from collector.attribution import NANOS, Attribution
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

    by_tally: dict[TallyId, dict[tuple[int, str], int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    """For each tally, by (hour, counter)."""
    _cells: dict[tuple[Cell, datetime], dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    _slates: dict[tuple[SlateCell, frozenset[tuple[str, str]], datetime], int] = field(default_factory=lambda: defaultdict(int))
    _slate_values: dict[tuple[SlateCell, datetime], dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))

    def add(self, scope: str, key: Key, moment: datetime, counters: Counters) -> None:
        """Adds counters to one tally."""
        tally = self.by_tally[TallyId(scope, day_of(moment), key)]
        for counter, count in counters.items():
            tally[moment.hour, counter] += count

    def add_impression(self, cell: Cell, show_time: datetime, counters: Counters) -> None:
        """Adds counters to every grouping that the cell belongs to."""
        known = self._cells[cell, hour_of(show_time)]
        for counter, count in counters.items():
            known[counter] += count

    def add_slate(self, cells: Iterable[Cell], show_time: datetime) -> None:
        """Counts a slate once in each group that it has impressions in."""
        places = frozenset((cell.position, cell.tier) for cell in cells)
        first = next(iter(cells))
        self._slates[first[:4], places, hour_of(show_time)] += 1

    def add_slate_value(self, cell: SlateCell, show_time: datetime, counters: Counters) -> None:
        """Adds counters to the groupings that do not look inside the slate."""
        known = self._slate_values[cell, hour_of(show_time)]
        for counter, count in counters.items():
            known[counter] += count

    def settle(self) -> dict[TallyId, dict[tuple[int, str], int]]:
        """Everything, spread over the groupings, without what adds nothing."""
        for (cell, hour), counters in self._cells.items():
            for grouping in GROUPINGS:
                self.add(scope_of(grouping), tuple(getattr(cell, dimension) for dimension in grouping), hour, counters)
        for (slate_cell, hour), counters in self._slate_values.items():
            for grouping in GROUPINGS:
                if not set(grouping) & set(IMPRESSION_DIMENSIONS):
                    self.add(scope_of(grouping), _slate_key(slate_cell, grouping), hour, counters)
        for (slate_cell, places, hour), count in self._slates.items():
            for grouping in GROUPINGS:
                keys = {tuple(getattr(Cell(*slate_cell, *place), dimension) for dimension in grouping) for place in places}
                for key in keys:
                    self.add(scope_of(grouping), key, hour, {"slates": count})
        self._cells.clear()
        self._slate_values.clear()
        self._slates.clear()
        settled = {tally: {at: count for at, count in counters.items() if count} for tally, counters in self.by_tally.items()}
        return {tally: counters for tally, counters in settled.items() if counters}


def interaction_counters(interaction_type: str, label: float) -> Counters:
    """What one interaction adds to its item, its type and the whole."""
    return {"interactions": 1, f"type_{interaction_type}": 1, "label_nanos": round(label * NANOS)}


def outcome_counters(value: float | None) -> Counters:
    """What one outcome adds. `value` is finite, at most 10¹² in size."""
    if value is None:
        return {"outcomes": 1}
    units = int(value // 1)
    return {"outcomes": 1, "outcome_units": units, "outcome_nanos": round((value - units) * NANOS)}


def impression_counters(attribution: Attribution | None, show_time: datetime, rule: Combination) -> dict[str, int]:
    """What one impression is worth in performance, given what became of it (None: nothing)."""
    if attribution is None:
        return {"impressions": 1, "untouched": 1}
    counts = attribution.counts
    counters = {"impressions": 1, "touched": 1, "label_nanos": round(attribution.label(rule) * NANOS)}
    for counter, interaction_type in (
        ("clicked", "click"),
        ("viewed", "view"),
        ("rated", "rate"),
        ("favorites", "favorite"),
        ("watchlists", "watchlist"),
        ("saves", "save"),
        ("implements", "implement"),
        ("dismissals", "dismiss"),
        ("completed", "complete"),
        ("purchases", "purchase"),
        ("applications", "apply"),
    ):
        if counts.get(interaction_type):
            counters[counter] = 1
    if attribution.last_rating is not None:
        counters["stars_nanos"] = round(attribution.last_rating.stars * NANOS)
    if attribution.first_act_time is None:
        counters["ignored"] = 1
    else:
        counters["acted"] = 1
        counters["action_milliseconds"] = _milliseconds(attribution.first_act_time, show_time)
    if attribution.first_complete_time is not None:
        counters["completion_milliseconds"] = _milliseconds(attribution.first_complete_time, show_time)
    return counters


def difference(after: Counters, before: Counters) -> dict[str, int]:
    """What to add to get from one to the other."""
    return {name: change for name in after.keys() | before.keys() if (change := after.get(name, 0) - before.get(name, 0))}


def item_share(counters: Counters, position: int) -> dict[str, int]:
    """Of an impression's counters (or their change), those that its item and its type keep."""
    kept = {name: counters[name] for name in ("impressions", "clicked", "acted", "dismissals", "implements") if counters.get(name)}
    if "impressions" in kept:
        kept["positions"] = position * kept["impressions"]
    return kept


def day_of(moment: datetime) -> datetime:
    """Its day's first moment."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def hour_of(moment: datetime) -> datetime:
    """Its hour's first moment."""
    return moment.replace(minute=0, second=0, microsecond=0)


def _slate_key(cell: SlateCell, grouping: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(cell[SLATE_DIMENSIONS.index(dimension)] for dimension in grouping)


def _milliseconds(moment: datetime, show_time: datetime) -> int:
    """From shown to then; an act that a caller's clock puts before the slate counts as at once."""
    return max(0, round((moment - show_time).total_seconds() * 1000))
