"""The folded interactions of a period, one day after the other, as columns.

A day is read from the ledger once, and hours to which something came again; otherwise it is taken from memory or from the day's document.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import datetime, timedelta

from collector.retention import cut_of
from collector.tally import day_of
from runtime.mongo import Document, Mongo
from server.statistics.day_columns import DAY_HOURS, HOUR_MILLISECONDS, DayColumns
from server.statistics.kept_days import KeptDays, Marks, stretches
from server.statistics.period import DAY, HOUR, Period

MOST_BYTES = 48_000_000
"""Of days that stay in memory."""
COLUMNS = {"_id": 0, "user_id": 1, "session_id": 1, "type": 1, "label": 1, "occur_time": 1, "context": 1}
MILLISECOND = timedelta(milliseconds=1)


class InteractionDays:
    """Reads the ledger by its index of times. Belongs to one event loop."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._days: KeptDays[DayColumns] = KeptDays(mongo, "interaction_days", DayColumns, self._read, most_bytes=MOST_BYTES)

    async def over(self, period: Period) -> AsyncIterator[tuple[datetime, DayColumns]]:
        """Every day that has interactions, oldest first, with those that lie in the period."""
        cut = await cut_of(self._mongo)
        for day, counts in (await self._counts(period)).items():
            columns = await self._days.of(day, counts, packed=cut is None or day >= cut)
            start = 0 if period.start <= day else (period.start - day) // MILLISECOND
            end = DAY_HOURS * HOUR_MILLISECONDS if period.end - day >= DAY else (period.end - day) // MILLISECOND
            yield day, columns.within(start, end)

    async def _counts(self, period: Period) -> dict[datetime, dict[int, int]]:
        """By day and hour, how many interactions the fold counted."""
        query = {"_id": {"$gte": {"scope": "all", "start": day_of(period.start)}, "$lt": {"scope": "all", "start": period.end}}}
        columns = {f"hours.{hour}.interactions": 1 for hour in range(DAY_HOURS)}
        found: dict[datetime, dict[int, int]] = {}
        async for batch in self._mongo.collection("tallies").batches(query, columns, sort=[("_id", 1)]):
            for tally in batch:
                hours = tally.get("hours", {})
                found[tally["_id"]["start"]] = {int(hour): of["interactions"] for hour, of in hours.items() if of.get("interactions")}
        return found

    async def _read(self, day: datetime, hours: Collection[int], marks: Marks) -> DayColumns:
        entries: list[Document] = []
        for first, last in stretches([hour for hour in hours if hour in marks]):
            # Without the hours' last moment plus one: there may be no day behind it.
            query = {"occur_time": {"$gte": day + first * HOUR, "$lte": day + last * HOUR - MILLISECOND}, "pending": {"$exists": False}}
            async for batch in self._mongo.collection("interactions").batches(query, COLUMNS, batch_size=5_000):
                entries += batch
        return await asyncio.to_thread(DayColumns.of, entries)
