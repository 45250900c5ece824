"""How long people took: means come from tallies, medians and the like from the values themselves.

Values are kept in memory by the day on which their impressions were shown, and each hour is read again only when its tallies say that it
changed. A day that had to be read is packed into one document, so that the next server need not read it. Bounded by the number of values
in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from collector.retention import cut_of
from collector.tally import day_of
from runtime.errors import RankloopError
from runtime.mongo import Document, Mongo
from server.statistics.day_times import DAY_HOURS, NAMES, DayTimes, Values, marks_of, stretches
from server.statistics.period import DAY, Period

Quantiles = Mapping[str, Mapping[str, tuple[float, ...]]]
"""By name (`action`, `completion`), then by item type."""
MOST_ANSWERS = 64
MOST_VALUES = 8_000_000
"""Impressions whose times are kept in memory, 16 bytes each; the days asked for longest ago go first."""
MOST_PACKED = 500_000
"""Impressions of a day that fit into a document."""
HOURS_WORTH_PACKING = 6
COLUMNS = {"_id": 0, "timed.shown": 1, "timed.type": 1, "timed.action": 1, "timed.completion": 1}


@dataclass(slots=True)
class Times:
    """Times to action and to completion over periods, exact."""

    mongo: Mongo
    _days: OrderedDict[datetime, tuple[int, DayTimes]] = field(default_factory=OrderedDict)
    """With the revision of their tallies."""
    _size: int = 0
    _answers: OrderedDict[Hashable, Quantiles] = field(default_factory=OrderedDict)

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
        cut = await cut_of(self.mongo)
        parts = []
        for day, hours in period.days():
            if (revision := revisions.get(day)) is not None:
                parts.append((await self._of_day(day, revision, packed=cut is None or day >= cut), hours))
        edges = [edge for edge in period.edges() if day_of(edge.start) in revisions]
        return parts + [(DayTimes.of({}, await self._read(edge)), DAY_HOURS) for edge in edges]

    async def _of_day(self, day: datetime, revision: int, *, packed: bool) -> DayTimes:
        kept = self._days.get(day)
        if kept is not None and kept[0] == revision:
            self._days.move_to_end(day)
            return kept[1]
        found = kept[1] if kept is not None else await self._packed(day) if packed else DayTimes.empty()
        # Marks first: what changes while values are read has another mark the next time.
        marks = await self._marks(day)
        if stale := found.stale(marks):
            worth_it = not found.marks or len(stale) >= HOURS_WORTH_PACKING
            found = found.replaced(stale, await self._read_hours(day, stale, marks))
            if packed and worth_it and found.size <= MOST_PACKED:
                await self._pack(day, found)
        self._keep(day, revision, found)
        return found

    def _keep(self, day: datetime, revision: int, found: DayTimes) -> None:
        if (other := self._days.pop(day, None)) is not None:
            self._size -= other[1].size
        self._days[day] = revision, found
        self._size += found.size
        while self._size > MOST_VALUES and len(self._days) > 1:
            self._size -= self._days.popitem(last=False)[1][1].size

    async def _packed(self, day: datetime) -> DayTimes:
        document = await self.mongo.collection("times").find_one({"_id": day})
        return DayTimes.from_document(document) if document else DayTimes.empty()

    async def _pack(self, day: datetime, found: DayTimes) -> None:
        with contextlib.suppress(RankloopError):  # the answer does not need it
            await self.mongo.collection("times").replace_one({"_id": day}, {"_id": day, **found.to_document()}, upsert=True)

    async def _marks(self, day: datetime) -> dict[int, bytes]:
        query = {"_id": {"$gte": {"scope": "type", "start": day}, "$lt": {"scope": "type", "start": day + DAY}}}
        tallies: list[Document] = []
        async for batch in self.mongo.collection("tallies").batches(query, {"hours": 1}):
            tallies += batch
        return marks_of(tallies)

    async def _read_hours(self, day: datetime, hours: Collection[int], marks: Mapping[int, bytes]) -> DayTimes:
        timed: list[Document] = []
        for start, end in stretches([hour for hour in hours if hour in marks]):
            timed += await self._read(Period(day + start, day + end))
        return await asyncio.to_thread(DayTimes.of, {hour: marks[hour] for hour in hours if hour in marks}, timed)

    async def _read(self, period: Period) -> list[Document]:
        query = {"timed.shown": {"$gte": period.start, "$lt": period.end}}
        found: list[Document] = []
        async for batch in self.mongo.collection("attributions").batches(query, COLUMNS, hint="timed", batch_size=10_000):
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
