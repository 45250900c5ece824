"""How long each statistics call takes as the ledger grows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio
import numpy as np

from benchmarks.history import CACHE_GIGABYTES, History, newest_hour
from benchmarks.readout import ReadoutTimes
from benchmarks.readout import measure as readout
from benchmarks.stack import running
from rankloop.v1 import stats_pb2 as pb
from rankloop.v1 import stats_pb2_grpc
from runtime.mongo import Mongo
from runtime.schema import migrate
from runtime.settings import MongoSettings

WARM_CALLS = 150
READ_THROUGH = {"tallies": "_id_", "attributions": None, "slates": None, "interactions": None}
"""What is read of the database before it is asked, by which index; None: in the order of its documents."""
LIMIT_SECONDS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTimes:
    """What one kind of call took over one history."""

    call: str
    events: int
    first_milliseconds: float
    """Until the very first call was answered: nothing is cached."""
    p50_milliseconds: float
    p99_milliseconds: float


class Progress(Protocol):
    """Whom to tell how far the work is."""

    def step(self, description: str, total: int | None = None) -> None:
        """A new step begins; `total` is its size where that is known."""

    def advance(self, count: int) -> None:
        """So much more of the step is done."""


async def bench(directory: Path, sizes: list[int], calls: int, progress: Progress) -> tuple[list[CallTimes], list[ReadoutTimes]]:
    """Every call over 30 days, and the readout of the experiment, on a history of each size.

    A history that `directory` has already is used as it is.
    """
    times, readouts = list[CallTimes](), list[ReadoutTimes]()
    for events in sizes:
        history = await _kept(directory / str(events), events, progress)
        progress.step(f"reading an experiment of {events:,} events out")
        # First, so that no digest is made beside what is measured then.
        readouts.append(await readout(directory / str(events), events))
        times += await _measure(directory / str(events), history, calls, progress)
    return times, readouts


async def _kept(directory: Path, events: int, progress: Progress) -> History:
    kept = directory / "end.txt"
    if not kept.exists():
        end = newest_hour(datetime.now(UTC))
        async with running(directory, server=False, cache_gigabytes=CACHE_GIGABYTES) as stack:
            mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
            try:
                await mongo.drop_database()
                await migrate(mongo)
                progress.step(f"writing {events:,} events", events)
                await History(events=events, end=end).write(mongo, progress.advance)
            finally:
                await mongo.close()
        kept.write_text(end.isoformat())
    return History(events=events, end=datetime.fromisoformat(kept.read_text()))


async def _warm(mongo: Mongo) -> None:
    """Has the database read what it keeps, once through, as one has that was not started a moment ago."""
    for name, index in READ_THROUGH.items():
        async for _ in mongo.collection(name).batches({"no such field": True}, hint=index):
            pass


async def _measure(directory: Path, history: History, calls: int, progress: Progress) -> list[CallTimes]:
    events = history.events
    async with (
        running(directory, server=True, cache_gigabytes=CACHE_GIGABYTES) as stack,
        grpc.aio.insecure_channel(stack.address) as channel,
    ):
        progress.step(f"having MongoDB read {events:,} events")
        mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
        try:
            await _warm(mongo)
        finally:
            await mongo.close()
        stub = stats_pb2_grpc.StatsServiceStub(channel)
        asked = questions(stub, history)
        progress.step(f"asking about {events:,} events", calls * len(asked))
        found = []
        for name, (method, question) in asked.items():
            random_ = random.Random(name)
            first = await _answered(method, question(random_))
            for _ in range(WARM_CALLS):
                await method(question(random_), timeout=LIMIT_SECONDS)
            taken = np.empty(calls)
            for number in range(calls):
                request = question(random_)
                begin = time.perf_counter()
                await method(request, timeout=LIMIT_SECONDS)
                taken[number] = time.perf_counter() - begin
                progress.advance(1)
            p50, p99 = np.percentile(taken * 1000, [50, 99]).tolist()
            found.append(CallTimes(call=name, events=events, first_milliseconds=first * 1000, p50_milliseconds=p50, p99_milliseconds=p99))
        return found


async def _answered(method: Any, request: Any) -> float:
    """Seconds until the answer is there. A server goes on working one out when it has run out of the call's time, so it is asked again."""
    begin = time.perf_counter()
    while True:
        try:
            await method(request, timeout=LIMIT_SECONDS)
            return time.perf_counter() - begin
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.perf_counter() - begin > LIMIT_SECONDS:
                raise


Question = Callable[[random.Random], Any]


def questions(stub: Any, history: History) -> dict[str, tuple[Any, Question]]:
    """What is asked: about items and users by chance, and about the whole."""

    def over(message: Any) -> Any:
        message.start_time.FromDatetime(history.begin)
        message.end_time.FromDatetime(history.end)
        return message

    def item(random_: random.Random) -> str:
        return f"item-{int(history.item_count * random_.random() ** 3)}"

    def user(random_: random.Random) -> str:
        return f"user-{random_.randrange(history.user_count)}"

    algorithm, surface = pb.DIMENSION_ALGORITHM, pb.DIMENSION_SURFACE
    return {
        "GetItemStats": (stub.GetItemStats, lambda r: over(pb.GetItemStatsRequest(item_id=item(r)))),
        "GetTypeMetrics": (stub.GetTypeMetrics, lambda r: over(pb.GetTypeMetricsRequest())),
        "GetPerformance": (stub.GetPerformance, lambda r: over(pb.GetPerformanceRequest(group_by=[algorithm]))),
        "GetPerformance, crossed": (stub.GetPerformance, lambda r: over(pb.GetPerformanceRequest(group_by=[algorithm, surface]))),
        "GetOverview": (stub.GetOverview, lambda r: over(pb.GetOverviewRequest())),
        "ListTopItems": (stub.ListTopItems, lambda r: over(pb.ListTopItemsRequest())),
        "GetOutcomeMetrics": (stub.GetOutcomeMetrics, lambda r: over(pb.GetOutcomeMetricsRequest())),
        "GetEngagement": (stub.GetEngagement, lambda r: over(pb.GetEngagementRequest())),
        "GetSlateQuality": (stub.GetSlateQuality, lambda r: over(pb.GetSlateQualityRequest())),
        "ListActiveUsers": (stub.ListActiveUsers, lambda r: over(pb.ListActiveUsersRequest())),
        "GetUserStats": (stub.GetUserStats, lambda r: over(pb.GetUserStatsRequest(user_id=user(r)))),
        "ListUserInteractions": (stub.ListUserInteractions, lambda r: over(pb.ListUserInteractionsRequest(user_id=user(r)))),
    }
