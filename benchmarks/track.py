"""How fast interactions are taken in, durably: beside the database's own inserts, and beside an empty call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.stack import running
from benchmarks.traffic import interaction
from collector.entries import interaction_document
from collector.settings import LabelSettings
from rankloop.v1 import tracking_pb2 as pb
from rankloop.v1 import tracking_pb2_grpc
from runtime.mongo import Document, Mongo
from runtime.schema import create_beside
from runtime.settings import MongoSettings

BATCH = 500
BATCH_CALLERS = 4
SINGLE_CALLERS = 64


@dataclass(frozen=True, slots=True)
class Rate:
    """How much went through, and how long single calls took."""

    name: str
    per_second: float
    p50_milliseconds: float
    p99_milliseconds: float


async def bench(directory: Path, *, events: int, single_calls: int) -> dict[str, Rate]:
    """Four rates, each in turn on the same processes: ours first by batches, then the peer, then ours by single events, then the limit."""
    now = datetime.now(UTC).replace(microsecond=0)
    async with running(directory, server=True) as stack, grpc.aio.insecure_channel(stack.address) as channel:
        tracking = tracking_pb2_grpc.TrackingServiceStub(channel)
        batches = [
            pb.TrackInteractionsRequest(interactions=[interaction(number, now, prefix="b") for number in range(start, start + BATCH)])
            for start in range(0, events, BATCH)
        ]
        await tracking.TrackInteractions(pb.TrackInteractionsRequest(interactions=[interaction(0, now, prefix="warm")]))
        batched = await _measured("TrackInteractions, batches of 500", tracking.TrackInteractions, batches, BATCH_CALLERS, BATCH)
        peer = await _inserted(stack.mongo_uri, events, now)
        singles = [pb.TrackInteractionsRequest(interactions=[interaction(number, now, prefix="s")]) for number in range(single_calls)]
        single = await _measured("TrackInteractions, single events, 64 callers", tracking.TrackInteractions, singles, SINGLE_CALLERS, 1)
        check: Any = health_pb2_grpc.HealthStub(channel)
        empties = [health_pb2.HealthCheckRequest()] * single_calls
        empty = await _measured("an empty call, 64 callers", check.Check, empties, SINGLE_CALLERS, 1)
    return {"batched": batched, "insert_many": peer, "single": single, "empty": empty}


async def _measured(name: str, method: object, requests: Sequence[object], callers: int, events_per_call: int) -> Rate:
    """Every request once, by so many callers at a time."""
    waiting = iter(requests)
    times: list[float] = []

    async def caller() -> None:
        for request in waiting:
            begin = time.perf_counter()
            await method(request, timeout=30)  # type: ignore[operator]
            times.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return _rate(name, len(requests) * events_per_call, time.perf_counter() - begin, times)


async def _inserted(uri: str, events: int, now: datetime) -> Rate:
    """The same documents, made beforehand, straight into a collection with the same indexes and validator."""
    rules = LabelSettings().policy().rules
    mongo = await Mongo.open(MongoSettings(uri=uri, driver="pymongo"))
    try:
        await create_beside(mongo, "interactions", "_peer")
        collection = mongo.collection("interactions_peer")
        entries = (interaction(number, now, prefix="b") for number in range(events))
        documents: list[Document] = [interaction_document(entry, rules[entry.type], now) for entry in entries]
        batches = [documents[start : start + BATCH] for start in range(0, events, BATCH)]
        waiting = iter(batches)
        times: list[float] = []

        async def caller() -> None:
            for batch in waiting:
                begin = time.perf_counter()
                await collection.insert_many(batch)
                times.append(time.perf_counter() - begin)

        begin = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(BATCH_CALLERS)))
        return _rate("insert_many of the same documents", events, time.perf_counter() - begin, times)
    finally:
        await mongo.close()


def _rate(name: str, events: int, seconds: float, times: list[float]) -> Rate:
    ordered = sorted(times)
    return Rate(name, events / seconds, 1000 * ordered[len(ordered) // 2], 1000 * ordered[int(len(ordered) * 0.99)])
