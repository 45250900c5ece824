"""The fold worker: follows the ledger and keeps attributions and tallies exact.

An entry is inserted with a pending mark under a partial index. One transaction takes a batch of pending entries, changes attributions and
tallies, and writes down what it took; the marks go afterwards, while the next batch is folded (`receipts`). Whatever is killed at whatever
line, each entry is in them exactly once. There is no watermark, so there is no clock to trust. One worker is active, held by a lease; a
worker that lost it cannot commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from collector.batch import Batch, fold
from collector.derived import INTERACTION_COLUMNS, SLATE_COLUMNS, Derived, DerivedWrites
from collector.labels import Combination
from collector.receipts import KINDS, Receipt, Receipts, taken
from collector.touched import write_touched
from runtime.errors import Aborted, Unavailable
from runtime.lease import Lease
from runtime.logs import get_logger
from runtime.metrics import LATENCY_BUCKETS
from runtime.mongo import Document, Mongo

log = get_logger("fold")

COLUMNS = {"interactions": INTERACTION_COLUMNS, "slates": SLATE_COLUMNS, "outcomes": None}
"""What the fold reads of an entry."""
SHARE = {"interactions": 1, "slates": 4, "outcomes": 8}
"""By what the entries of a transaction are divided to get how many of a kind it takes at most."""
MARKED = {"pending": {"$exists": True}}
LAG_COUNT = 100_000
FIRST_ENTRIES = 2_000
"""Entries of a transaction at first; it grows while there is more to do and it stays short."""
LONG_SECONDS = 2.0
"""A transaction that takes longer is made smaller the next time."""
REST_SHARE = 10
"""Rest after a transaction that took all there was, in its own durations: the fold that keeps up leaves the machine to others."""
REST_SECONDS = 1.0
"""The longest rest."""
IMPRESSIONS_PER_ENTRY = 5
"""Impressions that the slates of one transaction have at most, per entry that it takes; one slate is always taken."""

ACTIVE = Gauge("rankloop_fold_active", "1 while this process holds the fold's lease.")
FOLDED = Counter("rankloop_fold_entries", "Ledger entries folded.", ["kind"])
SECONDS = Histogram("rankloop_fold_batch_seconds", "Time of one transaction of the fold.", buckets=LATENCY_BUCKETS)
LAG_ENTRIES = Gauge("rankloop_fold_lag_entries", f"Ledger entries yet to be folded, at most {LAG_COUNT} counted per kind.")
LAG_SECONDS = Gauge("rankloop_fold_lag_seconds", "Age of the oldest entry yet to be folded.")


class FoldWorker:
    """Folds while it holds the lease, stands by while another does."""

    def __init__(self, mongo: Mongo, lease: Lease, rule: Combination, *, batch_entries: int, poll_seconds: float) -> None:
        self._mongo = mongo
        self._lease = lease
        self._rule = rule
        self._derived = Derived(mongo, rule)
        self._receipts = Receipts(mongo)
        self._settling: asyncio.Task[None] | None = None
        """Takes away the marks of the batch before."""
        self._most_entries = batch_entries
        self._batch_entries = min(FIRST_ENTRIES, batch_entries)
        self._poll_seconds = poll_seconds
        self._rest_seconds = 0.0
        self._full = False
        """Whether the last transaction took all that it may, so that more is likely to wait."""

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then lets go of the lease."""
        try:
            while not stop.is_set():
                try:
                    busy = await self.step()
                except (Unavailable, Aborted) as error:
                    log.warning("fold interrupted", cause=error.message)
                    # Perhaps it took longer than the lease lasts, and another broke it off: what is halved again and again fits at last.
                    self._batch_entries = max(1, self._batch_entries // 2)
                    busy = False
                if (rest := self._rest_seconds if busy else self._poll_seconds) > 0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), rest)
        finally:
            ACTIVE.set(0)
            with contextlib.suppress(Unavailable):
                await self._settled()
            with contextlib.suppress(Unavailable):
                await self._lease.release()

    async def step(self) -> bool:
        """One round; says whether there was something to do."""
        held = self._lease.epoch != 0
        if not await self._lease.claim():
            ACTIVE.set(0)
            return False
        if not held:
            log.info("fold active", epoch=self._lease.epoch)
            ACTIVE.set(1)
        begin = time.perf_counter()
        count = await self.fold_once()
        if count:
            seconds = time.perf_counter() - begin
            SECONDS.observe(seconds)
            self._rest_seconds = rest_after(seconds, full=self._full, poll_seconds=self._poll_seconds)
            self._adapt(seconds)
        return count > 0

    def _adapt(self, seconds: float) -> None:
        """Larger transactions change each tally once for more entries; they stay short beside the lease."""
        if seconds > LONG_SECONDS:
            self._batch_entries = max(min(FIRST_ENTRIES, self._most_entries), self._batch_entries // 2)
        elif self._full and seconds < LONG_SECONDS / 2:
            self._batch_entries = min(self._most_entries, self._batch_entries * 2)

    async def fold_once(self) -> int:
        """Folds one batch of what is pending; returns the number of entries. When it returns 0, no mark of what was folded is left."""
        if self._settling is None:
            # What a worker left that was killed, or this one when the database was away.
            await self._receipts.settle_all()
        if not await self._anything_pending():
            await self._settled()
            return 0
        receipt: Receipt | None = None

        async def work(session: Any) -> None:
            nonlocal receipt
            receipt = None
            # The lease first: a worker that lost it learns so before it reads, and two can never interleave.
            revision = await self._lease.next_revision(session)
            before = await self._receipts.outstanding(session)
            pending = await self._pending(before, session)
            if not any(pending.values()):
                return
            batch = await self._derived.gather(pending, before, session)
            # In a thread: meanwhile this process answers calls, and the database takes away the marks of the batch before.
            await self._derived.write(await asyncio.to_thread(self._writes, batch, revision), session)
            receipt = Receipt(revision, {kind: [entry["_id"] for entry in entries] for kind, entries in pending.items()})
            await self._receipts.write(receipt, session)
            if self._lease.followed:
                await write_touched(self._mongo, revision, batch, session)

        await self._mongo.transact(work, session=self._lease.session)
        if receipt is not None:
            for kind, ids in receipt.taken.items():
                FOLDED.labels(kind).inc(len(ids))
        await self._settled()
        if receipt is None:
            return 0
        self._settling = asyncio.create_task(self._receipts.settle(receipt))
        return sum(map(len, receipt.taken.values()))

    async def _anything_pending(self) -> bool:
        """Looked up outside a transaction, so that a fold at rest writes nothing."""
        for kind in KINDS:
            if await self._mongo.collection(kind).find(MARKED, {"_id": 1}, limit=1, hint="pending"):
                return True
        return False

    async def _pending(self, before: Sequence[Receipt], session: Any) -> dict[str, list[Document]]:
        """Entries with a mark that stand on no receipt, in the transaction's snapshot."""
        pending: dict[str, list[Document]] = {}
        for kind in KINDS:
            query = {**MARKED, "_id": {"$nin": counted}} if (counted := taken(before, kind)) else MARKED
            limit = max(1, self._batch_entries // SHARE[kind])
            pending[kind] = await self._mongo.collection(kind).find(
                query, COLUMNS[kind], sort=[("pending", 1)], limit=limit, hint="pending", session=session
            )
        whole = len(pending["slates"])
        pending["slates"] = _within(pending["slates"], self._batch_entries * IMPRESSIONS_PER_ENTRY)
        self._full = len(pending["slates"]) < whole or any(
            len(entries) >= max(1, self._batch_entries // SHARE[kind]) for kind, entries in pending.items()
        )
        return pending

    def _writes(self, batch: Batch, revision: int) -> DerivedWrites:
        return self._derived.writes(fold(batch, self._rule), revision)

    async def _settled(self) -> None:
        """Waits until the marks of the batch before are gone."""
        settling, self._settling = self._settling, None
        if settling is not None:
            await settling


def rest_after(seconds: float, *, full: bool, poll_seconds: float) -> float:
    """Seconds to let entries gather after a transaction that took `seconds`: what comes together changes each tally once.

    None where it was full, since more is likely to wait then.
    """
    if full:
        return 0.0
    return min(max(poll_seconds, REST_SHARE * seconds), max(poll_seconds, REST_SECONDS))


def _within(slates: list[Document], most: int) -> list[Document]:
    """The first slates that have `most` impressions together; at least one."""
    counts = itertools.accumulate(len(slate["items"]) for slate in slates)
    return [slate for place, (slate, count) in enumerate(zip(slates, counts, strict=True)) if place == 0 or count <= most]


async def watch_lag(mongo: Mongo, stop: asyncio.Event, clock: Any, *, every_seconds: float = 2.0) -> None:
    """Keeps the lag's metrics up to date."""
    while not stop.is_set():
        with contextlib.suppress(Unavailable):
            counts = [await mongo.collection(kind).count(MARKED, limit=LAG_COUNT) for kind in KINDS]
            oldest = await oldest_pending(mongo)
            LAG_ENTRIES.set(sum(counts))
            LAG_SECONDS.set(max(0.0, (clock() - oldest).total_seconds()) if oldest else 0.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_seconds)


async def oldest_pending(mongo: Mongo) -> datetime | None:
    """When the oldest entry yet to be folded was received; None: all are folded."""
    moments: list[datetime] = []
    for kind in KINDS:
        found = await mongo.collection(kind).find(MARKED, {"pending": 1}, sort=[("pending", 1)], limit=1, hint="pending")
        moments += [entry["pending"] for entry in found]
    return min(moments, default=None)
