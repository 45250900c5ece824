"""How long people took: means come from tallies, medians and the like from the values themselves.

Values are read from an index, one day of impressions after the other, and kept in memory under the revision of that day's tallies: a day
that nothing was folded into since is not read again, and one that was is. Bounded by the number of values kept.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from runtime.mongo import Mongo
from server.statistics.period import DAY, Period

Values = NDArray[np.int64]
Quantiles = Mapping[str, Mapping[str, tuple[float, ...]]]
"""By name (`action`, `completion`), then by item type."""
MOST_ANSWERS = 64
MOST_VALUES = 4_000_000
"""Values kept at most, 32 MB; the days asked for longest ago go first."""
COLUMNS = {"_id": 0, "timed.type": 1, "timed.action": 1, "timed.completion": 1}
NAMES = ("action", "completion")


@dataclass(frozen=True, slots=True)
class DayTimes:
    """Times of the impressions shown on one day, in milliseconds, by item type; (n,) int64 each."""

    revision: int
    values: Mapping[str, Mapping[str, Values]]
    """By name (`action`, `completion`), then by item type."""

    @property
    def size(self) -> int:
        """How many values; at least 1, since a day without any takes up room, too."""
        return 1 + sum(len(one) for by_type in self.values.values() for one in by_type.values())


@dataclass(slots=True)
class Times:
    """Times to action and to completion over periods, exact."""

    mongo: Mongo
    _days: OrderedDict[datetime, DayTimes] = field(default_factory=OrderedDict)
    _size: int = 0
    _answers: OrderedDict[Hashable, Quantiles] = field(default_factory=OrderedDict)

    async def quantiles(self, period: Period, revisions: Mapping[datetime, int], shares: tuple[float, ...]) -> Quantiles:
        """By name and item type, these quantiles of a period's times, in milliseconds.

        `revisions` are those of the days' tallies, read before: while they stand, so do the quantiles. Days without one have no values.
        """
        key = (period, shares, tuple(sorted(revisions.items())))
        if (kept := self._answers.pop(key, None)) is None:
            values = await self._over(period, revisions)
            kept = {name: {item_type: quantiles(some, shares) for item_type, some in values[name].items()} for name in NAMES}
        self._answers[key] = kept
        while len(self._answers) > MOST_ANSWERS:
            self._answers.popitem(last=False)
        return kept

    async def _over(self, period: Period, revisions: Mapping[datetime, int]) -> dict[str, dict[str, Values]]:
        parts: dict[str, dict[str, list[Values]]] = {name: defaultdict(list) for name in NAMES}
        for day, revision in sorted(revisions.items()):
            whole = Period(day, day + DAY)
            asked = Period(max(day, period.start), min(day + DAY, period.end))
            if asked.start >= asked.end:
                continue
            found = await self._of_day(day, revision) if asked == whole else await self._read(asked)
            for name in NAMES:
                for item_type, values in found[name].items():
                    parts[name][item_type].append(values)
        return {name: {item_type: np.concatenate(some) for item_type, some in parts[name].items()} for name in NAMES}

    async def _of_day(self, day: datetime, revision: int) -> Mapping[str, Mapping[str, Values]]:
        kept = self._days.pop(day, None)
        if kept is not None:
            self._size -= kept.size
        if kept is None or kept.revision != revision:
            kept = DayTimes(revision, await self._read(Period(day, day + DAY)))
            if (other := self._days.pop(day, None)) is not None:  # somebody else read it meanwhile
                self._size -= other.size
        self._days[day] = kept
        self._size += kept.size
        while self._size > MOST_VALUES and len(self._days) > 1:
            self._size -= self._days.popitem(last=False)[1].size
        return kept.values

    async def _read(self, period: Period) -> dict[str, dict[str, Values]]:
        found: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in NAMES}
        query = {"timed.shown": {"$gte": period.start, "$lt": period.end}}
        async for batch in self.mongo.collection("attributions").batches(query, COLUMNS, hint="timed", batch_size=10_000):
            for one in batch:
                timed = one["timed"]
                for name in NAMES:
                    if (value := timed.get(name)) is not None:
                        found[name][timed["type"]].append(value)
        return {name: {item_type: np.array(some, dtype=np.int64) for item_type, some in found[name].items()} for name in NAMES}


def quantiles(values: Values, shares: Sequence[float]) -> tuple[float, ...]:
    """Quantiles, linear between neighbours (Hyndman and Fan 1996, type 7): the usual median, for one. Empty of nothing."""
    if not len(values):
        return ()
    places = [share * (len(values) - 1) for share in shares]
    neighbours = sorted({int(one) for place in places for one in (math.floor(place), math.ceil(place))})
    parted = np.partition(values, neighbours)
    return tuple(
        float(parted[math.floor(place)] + (parted[math.ceil(place)] - parted[math.floor(place)]) * (place - math.floor(place)))
        for place in places
    )
