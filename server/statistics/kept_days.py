"""What was worked out for a day, kept while the day's counters say that it stands: in memory, and packed in one document of the day.

An hour is worked out again when its counters changed, the rest of its day is not. Bounded: days asked for longest ago leave memory first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Generic, Protocol, Self, TypeVar

from runtime.errors import RankloopError
from runtime.mongo import Document, Mongo

MOST_PACKED_BYTES = 15_000_000
"""A document has 16 MiB at most."""
HOURS_WORTH_PACKING = 6
Marks = Mapping[int, Any]
"""By hour of a day, what changes whenever something of that hour does."""


class Day(Protocol):
    """What was worked out for a day."""

    @classmethod
    def empty(cls) -> Self:
        """Of a day that nothing is known of."""
        ...

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """The reverse of `to_document`."""
        ...

    @property
    def byte_count(self) -> int:
        """What it takes, packed or in memory, roughly."""
        ...

    def to_document(self) -> Document:
        """As the database keeps it, without its id."""
        ...

    def stale(self, marks: Marks) -> list[int]:
        """Hours that have to be worked out again."""
        ...

    def replaced(self, hours: Collection[int], fresh: Self) -> Self:
        """With these hours worked out again."""
        ...


Kept = TypeVar("Kept", bound=Day)


class KeptDays(Generic[Kept]):
    """Days of one kind. Belongs to one event loop."""

    def __init__(
        self,
        mongo: Mongo,
        collection: str,
        kind: type[Kept],
        read: Callable[[datetime, Collection[int], Marks], Awaitable[Kept]],
        *,
        most_bytes: int,
    ) -> None:
        """`read` works some hours of a day out; `most_bytes` stay in memory."""
        self._packs = mongo.collection(collection)
        self._kind = kind
        self._read = read
        self._most_bytes = most_bytes
        self._days: OrderedDict[datetime, Kept] = OrderedDict()
        self._byte_count = 0
        self._working = asyncio.Lock()
        """Two that ask for the same day shall not both work it out."""

    def in_memory(self, day: datetime) -> Kept | None:
        """The day as it was worked out last; None: it is not here."""
        found = self._days.get(day)
        if found is not None:
            self._days.move_to_end(day)
        return found

    async def of(self, day: datetime, marks: Marks, *, packed: bool) -> Kept:
        """A day as its marks say it is. `packed`: whether it may be packed; a day that loses entries to retention may not."""
        async with self._working:
            found = self.in_memory(day) or (await self._unpacked(day) if packed else self._kind.empty())
            if stale := found.stale(marks):
                fresh = await self._read(day, stale, marks)
                worth_it = len(stale) >= HOURS_WORTH_PACKING or not found.byte_count
                found = await asyncio.to_thread(found.replaced, stale, fresh)
                if packed and worth_it and found.byte_count <= MOST_PACKED_BYTES:
                    with contextlib.suppress(RankloopError):  # the answer does not need it
                        await self._packs.replace_one({"_id": day}, {"_id": day, **found.to_document()}, upsert=True)
            self._keep(day, found)
            return found

    async def _unpacked(self, day: datetime) -> Kept:
        document = await self._packs.find_one({"_id": day})
        return self._kind.from_document(document) if document else self._kind.empty()

    def _keep(self, day: datetime, found: Kept) -> None:
        if (other := self._days.pop(day, None)) is not None:
            self._byte_count -= other.byte_count
        self._days[day] = found
        self._byte_count += found.byte_count
        while self._byte_count > self._most_bytes and len(self._days) > 1:
            self._byte_count -= self._days.popitem(last=False)[1].byte_count


def stretches(hours: Collection[int]) -> list[tuple[int, int]]:
    """First hours of stretches without a gap, and the hours behind their last."""
    found: list[tuple[int, int]] = []
    for hour in sorted(hours):
        if found and found[-1][1] == hour:
            found[-1] = found[-1][0], hour + 1
        else:
            found.append((hour, hour + 1))
    return found
