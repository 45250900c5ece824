"""Group commit: concurrent calls share a write.

While a write is under way, what arrives gathers for the next one; so a lone call is written at once, and under load the writes grow. Where
much has gathered, another write begins beside it. A call is answered when its entries are on a majority of nodes, journaled. There is no
other buffer: what was not answered may be lost, and its sender tries again with the same ids.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from runtime.errors import Overloaded, Unavailable
from runtime.mongo import Document

Write = Callable[[Sequence[Document]], Awaitable[frozenset[int]]]
"""Stores documents and returns the indexes of those whose id was there; raises Unavailable when nothing is known."""

RETRY_SECONDS = 0.05
RETRY_AFTER_SECONDS = 0.25
WORTH_ENTRIES = 250
"""Entries that are worth a write of their own beside one that is under way; fewer gather until it is done."""

WAITING = Gauge("rankloop_commit_waiting_entries", "Entries that wait to be written.", ["kind"])
GROUP_SIZE = Histogram(
    "rankloop_commit_group_entries", "Entries per write.", ["kind"], buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
)
RETRIES = Counter("rankloop_commit_retries", "Writes that were tried again because the database did not answer.", ["kind"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitLimits:
    """How much may wait, and how it is written."""

    capacity_entries: int
    capacity_bytes: int
    write_entries: int
    writes_at_once: int


@dataclass(slots=True)
class _Waiting:
    documents: Sequence[Document]
    byte_count: int
    done: asyncio.Future[frozenset[int]]


class GroupCommit:
    """Shares the writes of one kind of entry among its callers. Belongs to one event loop."""

    def __init__(self, kind: str, write: Write, limits: CommitLimits) -> None:
        self._write = write
        self._limits = limits
        self._waiting: deque[_Waiting] = deque()
        self._entry_count = 0
        self._byte_count = 0
        self._queued = 0
        """Entries of `_waiting`: those of `_entry_count` that no write carries yet."""
        self._writers: set[asyncio.Task[None]] = set()
        self._gauge, self._sizes, self._retries = WAITING.labels(kind), GROUP_SIZE.labels(kind), RETRIES.labels(kind)

    async def append(self, documents: Sequence[Document], byte_count: int) -> frozenset[int]:
        """Stores documents durably; returns the indexes of those whose id was there already.

        Raises:
            Overloaded: too much waits.
            Unavailable: the database does not answer; nothing is known of the documents.
        """
        if not documents:
            return frozenset()
        limits = self._limits
        if self._entry_count + len(documents) > limits.capacity_entries or self._byte_count + byte_count > limits.capacity_bytes:
            raise Overloaded("too many entries wait to be written; try again shortly", retry_after_seconds=RETRY_AFTER_SECONDS)
        waiting = _Waiting(documents, byte_count, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._queued += len(documents)
        self._count(len(documents), byte_count)
        if not self._writers or (len(self._writers) < limits.writes_at_once and self._queued >= WORTH_ENTRIES):
            writer = asyncio.create_task(self._write_what_waits())
            self._writers.add(writer)
        return await waiting.done

    async def wait_idle(self) -> None:
        """Returns when nothing waits and nothing is being written."""
        while self._writers:
            await asyncio.gather(*self._writers, return_exceptions=True)

    async def _write_what_waits(self) -> None:
        try:
            while group := self._take():
                await self._write_group(group)
        finally:
            # At once, not when the loop comes round to it: an entry that arrives in between would wait for a writer that has gone.
            task = asyncio.current_task()
            assert task is not None
            self._writers.discard(task)

    async def _write_group(self, group: list[_Waiting]) -> None:
        documents = [document for waiting in group for document in waiting.documents]
        self._sizes.observe(len(documents))
        try:
            existed = await self._write(documents)
        except Unavailable as error:
            await self._put_back(group, error)
        except Exception as error:  # noqa: BLE001 - every caller of the group hears of it
            for waiting in group:
                self._finish(waiting, error)
        else:
            start = 0
            for waiting in group:
                end = start + len(waiting.documents)
                self._finish(waiting, frozenset(index - start for index in existed if start <= index < end))
                start = end

    def _take(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        count = 0
        while self._waiting and (not group or count + len(self._waiting[0].documents) <= self._limits.write_entries):
            waiting = self._waiting.popleft()
            self._queued -= len(waiting.documents)
            if waiting.done.done():  # its caller has gone
                self._count(-len(waiting.documents), -waiting.byte_count)
                continue
            group.append(waiting)
            count += len(waiting.documents)
        return group

    async def _put_back(self, group: list[_Waiting], error: Unavailable) -> None:
        """Tries again for as long as a caller waits; the ids make a second write of what was stored after all harmless."""
        for waiting in reversed(group):
            if waiting.done.done():
                self._count(-len(waiting.documents), -waiting.byte_count)
            else:
                self._waiting.appendleft(waiting)
                self._queued += len(waiting.documents)
        self._retries.inc()
        await asyncio.sleep(RETRY_SECONDS)

    def _finish(self, waiting: _Waiting, result: frozenset[int] | Exception) -> None:
        self._count(-len(waiting.documents), -waiting.byte_count)
        if waiting.done.done():
            return
        if isinstance(result, Exception):
            waiting.done.set_exception(result)
        else:
            waiting.done.set_result(result)

    def _count(self, entries: int, byte_count: int) -> None:
        self._entry_count += entries
        self._byte_count += byte_count
        self._gauge.set(self._entry_count)
