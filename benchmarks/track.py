"""How fast interactions are taken in, durably: beside the database's own inserts, and beside an empty call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.stack import Running, collector_beside, resident_bytes, running
from benchmarks.traffic import PER_SLATE, interaction, slate
from collector.entries import interaction_document
from collector.receipts import KINDS
from collector.settings import LabelSettings
from rankloop.v1 import tracking_pb2 as pb
from rankloop.v1 import tracking_pb2_grpc
from runtime.mongo import Document, Mongo
from runtime.schema import create_beside
from runtime.settings import MongoSettings

BATCH = 500
BATCH_CALLERS = 4
SINGLE_CALLERS = 64
ROUNDS = 4
"""Turns that ours and what it is held against take: whatever else the machine does meets both."""
LOOKS = 20
"""How often memory is looked at during a soak."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How much went through, and how long single calls took."""

    name: str
    per_second: float
    p50_milliseconds: float
    p99_milliseconds: float


@dataclass(frozen=True, slots=True)
class Both:
    """Ingest and fold at once."""

    ingested_per_second: float
    """Entries: interactions and slates."""
    folded_per_second: float
    """While they were taken in."""
    backlog: int
    """Entries yet to be folded when the last one was taken in."""
    drained_per_second: float
    """Of the backlog, afterwards."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The server's resident memory while events went in."""

    events: int
    bytes_at: list[tuple[int, int]]
    """(events so far, bytes)."""

    @property
    def growth_per_million(self) -> float:
        """Bytes per million events over the second half: the first one fills caches and pools."""
        half = self.bytes_at[len(self.bytes_at) // 2 :]
        (first, begin), (last, end) = half[0], half[-1]
        return (end - begin) / max(1, last - first) * 1e6


class Call(NamedTuple):
    """A request to make."""

    method: Any
    request: Any
    entries: int


class _Timed:
    """What calls took, over several turns."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.times: list[float] = []
        self.seconds = 0.0
        self.entries = 0

    async def run(self, calls: Iterable[Call], callers: int) -> None:
        """Every call once, by so many callers at a time."""
        waiting = iter(calls)

        async def caller() -> None:
            for call in waiting:
                begin = time.perf_counter()
                await call.method(call.request, timeout=60)
                self.times.append(time.perf_counter() - begin)
                self.entries += call.entries

        begin = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        self.seconds += time.perf_counter() - begin

    @property
    def rate(self) -> Rate:
        ordered = sorted(self.times)
        p50, p99 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
        return Rate(self.name, self.entries / self.seconds, p50, p99)


@dataclass(frozen=True, slots=True)
class Tracked:
    """Everything measured."""

    rates: dict[str, Rate]
    both: Both | None
    memory: Memory | None


async def bench(directory: Path, *, events: int, single_calls: int, with_fold: bool, soak: int) -> Tracked:
    """Ours and the limit in turns on the same processes: batches beside `insert_many`, then single events beside an empty call."""
    now = datetime.now(UTC).replace(microsecond=0)
    async with running(directory, server=True) as stack, grpc.aio.insecure_channel(stack.address) as channel:
        tracking: Any = tracking_pb2_grpc.TrackingServiceStub(channel)
        await tracking.TrackInteractions(pb.TrackInteractionsRequest(interactions=[interaction(0, now, prefix="warm")]))
        rates = await _batches(stack, tracking, events, now) | await _singles(channel, tracking, single_calls, now)
        both = await _with_fold(stack, tracking, directory, events, now) if with_fold else None
        memory = await _soak(stack, tracking, soak, now) if soak else None
    return Tracked(rates, both, memory)


async def _batches(stack: Running, tracking: Any, events: int, now: datetime) -> dict[str, Rate]:
    """Against the same documents, made beforehand, straight into a collection with the same indexes and validator."""
    rules = LabelSettings().policy().rules
    ours, peer = _Timed("TrackInteractions, batches of 500"), _Timed("insert_many of the same documents")
    mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri, driver="pymongo"))
    try:
        await create_beside(mongo, "interactions", "_peer")
        collection = mongo.collection("interactions_peer")

        async def inserted(documents: Sequence[Document], timeout: float) -> None:
            await collection.insert_many(documents)

        starts = range(0, events, BATCH)
        for turn in range(ROUNDS):
            entries = [[interaction(n, now, prefix="b") for n in range(start, start + BATCH)] for start in starts[turn::ROUNDS]]
            requests = [Call(tracking.TrackInteractions, pb.TrackInteractionsRequest(interactions=batch), BATCH) for batch in entries]
            documents = [Call(inserted, [interaction_document(one, rules[one.type], now) for one in batch], BATCH) for batch in entries]
            await ours.run(requests, BATCH_CALLERS)
            await peer.run(documents, BATCH_CALLERS)
    finally:
        await mongo.close()
    return {"batched": ours.rate, "insert_many": peer.rate}


async def _singles(channel: Any, tracking: Any, calls: int, now: datetime) -> dict[str, Rate]:
    ours, limit = _Timed("TrackInteractions, single events, 64 callers"), _Timed("an empty call, 64 callers")
    health: Any = health_pb2_grpc.HealthStub(channel)
    for turn in range(ROUNDS):
        entries = [interaction(number, now, prefix="s") for number in range(turn, calls, ROUNDS)]
        singles = [Call(tracking.TrackInteractions, pb.TrackInteractionsRequest(interactions=[one]), 1) for one in entries]
        await ours.run(singles, SINGLE_CALLERS)
        await limit.run([Call(health.Check, health_pb2.HealthCheckRequest(), 1)] * len(singles), SINGLE_CALLERS)
    return {"single": ours.rate, "empty": limit.rate}


async def _with_fold(stack: Running, tracking: Any, directory: Path, events: int, now: datetime) -> Both:
    """Interactions and their slates, as fast as they are taken in, while a collector folds."""
    mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
    try:
        async with collector_beside(stack, directory):
            while await _backlog(mongo):
                await asyncio.sleep(0.05)
            calls: list[Call] = []
            for start in range(0, events, BATCH):
                shown = range(start // PER_SLATE, (start + BATCH) // PER_SLATE)
                slates = pb.RecordSlatesRequest(slates=[slate(number, now, prefix="f") for number in shown])
                happened = pb.TrackInteractionsRequest(interactions=[interaction(n, now, prefix="f") for n in range(start, start + BATCH)])
                calls += [Call(tracking.RecordSlates, slates, len(shown)), Call(tracking.TrackInteractions, happened, BATCH)]
            ingest = _Timed("both")
            await ingest.run(calls, BATCH_CALLERS)
            backlog = await _backlog(mongo)
            begin = time.perf_counter()
            while await _backlog(mongo):
                await asyncio.sleep(0.05)
            drained = time.perf_counter() - begin
        return Both(
            ingested_per_second=ingest.entries / ingest.seconds,
            folded_per_second=(ingest.entries - backlog) / ingest.seconds,
            backlog=backlog,
            drained_per_second=backlog / drained,
        )
    finally:
        await mongo.close()


async def _backlog(mongo: Mongo) -> int:
    return sum([await mongo.collection(kind).count({"pending": {"$exists": True}}, limit=100_000_000) for kind in KINDS])


async def _soak(stack: Running, tracking: Any, events: int, now: datetime) -> Memory:
    """The server's memory while events go in, in batches made as they are sent."""
    looks = [(0, resident_bytes(stack.pid))]
    step = max(BATCH, events // LOOKS // BATCH * BATCH)
    for start in range(0, events, step):
        end = min(start + step, events)
        entries = ([interaction(n, now, prefix="m") for n in range(first, min(first + BATCH, end))] for first in range(start, end, BATCH))
        calls = (Call(tracking.TrackInteractions, pb.TrackInteractionsRequest(interactions=batch), len(batch)) for batch in entries)
        await _Timed("soak").run(calls, BATCH_CALLERS)
        looks.append((end, resident_bytes(stack.pid)))
    return Memory(events, looks)
