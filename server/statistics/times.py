"""How long people took: means come from tallies, medians and the like from the values themselves.

Values are kept by the day on which their impressions were shown (`kept_days`), and an hour is read again only when its tallies say that
it changed.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from datetime import datetime

import numpy as np

from collector.retention import cut_of
from collector.tally import day_of
from runtime.mongo import Document, Mongo
from server.statistics.day_times import DAY_HOURS, NAMES, DayTimes, Values, marks_of
from server.statistics.kept_days import KeptDays, Marks, stretches
from server.statistics.period import DAY, HOUR, Period

Quantiles = Mapping[str, Mapping[str, tuple[float, ...]]]
"""By name (`action`, `completion`), then by item type."""
MOST_ANSWERS = 64
MOST_BYTES = 128_000_000
"""Of days that stay in memory; 16 bytes for an impression that was acted upon."""
COLUMNS = {"_id": 0, "timed.shown": 1, "timed.type": 1, "timed.action": 1, "timed.completion": 1}


class Times:
    """Times to action and to completion over periods, exact."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._days: KeptDays[DayTimes] = KeptDays(mongo, "times", DayTimes, self._read_hours, most_bytes=MOST_BYTES)
        self._revisions: dict[datetime, int] = {}
        """Of the tallies of the days in memory, when they were looked at last."""
        self._answers: OrderedDict[Hashable, Quantiles] = OrderedDict()

    async def quantiles(self, period: Period, revisions: Mapping[datetime, int], shares: tuple[float, ...]) -> Quantiles:
        """By name and item type, these quantiles of a period's times, in milliseconds.

        `revisions` are those of the days' tallies, read before: while they stand, so do the quantiles. Days without one have no values.
        """
        key = (period, shares, tuple(sorted(revisions.items())))
        if (kept := self._answers.pop(key, None)) is None:
            parts = await self._parts(period, revisions)
            # In a thread: a month may have millions, and others are waiting.
            kept = await asyncio.to_thread(_quantiles_of, parts, shares)
        self._answers[key] = kept
        while len(self._answers) > MOST_ANSWERS:
            self._answers.popitem(last=False)
        return kept

    async def _parts(self, period: Period, revisions: Mapping[datetime, int]) -> list[tuple[DayTimes, range]]:
        """Days with the hours of them that count."""
        cut = await cut_of(self._mongo)
        parts = []
        for day, revision in sorted(revisions.items()):
            if hours := period.hours_of(day):
                parts.append((await self._of_day(day, revision, packed=cut is None or day >= cut), hours))
        edges = [edge for edge in period.edges() if day_of(edge.start) in revisions]
        return parts + [(DayTimes.of({}, await self._read(edge)), DAY_HOURS) for edge in edges]

    async def _of_day(self, day: datetime, revision: int, *, packed: bool) -> DayTimes:
        if self._revisions.get(day) == revision and (kept := self._days.in_memory(day)) is not None:
            return kept
        # Marks first: what changes while values are read has another mark the next time.
        found = await self._days.of(day, await self._marks(day), packed=packed)
        self._revisions[day] = revision
        return found

    async def _marks(self, day: datetime) -> dict[int, bytes]:
        query = {"_id": {"$gte": {"scope": "type", "start": day}, "$lt": {"scope": "type", "start": day + DAY}}}
        tallies: list[Document] = []
        async for batch in self._mongo.collection("tallies").batches(query, {"hours": 1}):
            tallies += batch
        return marks_of(tallies)

    async def _read_hours(self, day: datetime, hours: Collection[int], marks: Marks) -> DayTimes:
        timed: list[Document] = []
        for first, last in stretches([hour for hour in hours if hour in marks]):
            timed += await self._read(Period(day + first * HOUR, day + last * HOUR))
        return await asyncio.to_thread(DayTimes.of, {hour: marks[hour] for hour in hours if hour in marks}, timed)

    async def _read(self, period: Period) -> list[Document]:
        query = {"timed.shown": {"$gte": period.start, "$lt": period.end}}
        found: list[Document] = []
        async for batch in self._mongo.collection("attributions").batches(query, COLUMNS, hint="timed", batch_size=10_000):
            found += [one["timed"] for one in batch]
        return found


def _quantiles_of(parts: Sequence[tuple[DayTimes, range]], shares: Sequence[float]) -> Quantiles:
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for name in NAMES:
        by_type: dict[str, list[Values]] = defaultdict(list)
        for times, hours in parts:
            for item_type, values in times.values(name, hours).items():
                by_type[item_type].append(values)
        found[name] = {item_type: quantiles(np.concatenate(some), shares) for item_type, some in by_type.items()}
    return found


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
