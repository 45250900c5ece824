"""How long an experiment's readout takes as its users grow, cold and from cache, what the digest behind it takes to make, and the walk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from benchmarks.history import CACHE_GIGABYTES, EXPERIMENT
from benchmarks.stack import peak_bytes, running
from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1 import experiment_pb2_grpc
from rankloop.worker.v1.worker_pb2 import RankingParameters
from runtime.mongo import Mongo
from runtime.settings import MongoSettings
from server.experiments.running import RunningExperiments
from server.experiments.store import ExperimentStore

WALK_EVENTS = 100_000
"""More are not walked through: it would take minutes."""
CACHED_CALLS = 100
ASSIGNED_USERS = 50_000
NO_PARAMETERS = RankingParameters()
POLL_SECONDS = 1.0
LIMIT_SECONDS = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadoutTimes:
    """Of one history."""

    events: int
    users: int
    """Who were shown slates of the experiment."""
    build_seconds: float
    """Of the digest, by a full pass of an idle server."""
    cold_milliseconds: float
    """The first readout of a server that has just started, with a database that has."""
    cached_milliseconds: float
    """The median of the next ones."""
    walk_milliseconds: float | None
    """The same readout by a walk through the ledger; None: too many events."""
    assignment_microseconds: float
    """What finding out a user's variant adds to a `Rank`, with one experiment running; of the processor."""
    idle_bytes: int
    """Most memory the server held before its first readout."""
    peak_bytes: int
    """And after it."""


async def measure(directory: Path, events: int) -> ReadoutTimes:
    """On the history that `directory` keeps; its digest is made anew."""
    build_seconds = await _build(directory)
    async with _server(directory) as (stack, stub, mongo):
        idle = peak_bytes(stack.pid)
        cold, found = await _timed(stub, pb.GetExperimentResultsRequest(experiment_id=EXPERIMENT.experiment_id))
        peak = peak_bytes(stack.pid)
        cached = [
            (await _timed(stub, pb.GetExperimentResultsRequest(experiment_id=EXPERIMENT.experiment_id)))[0] for _ in range(CACHED_CALLS)
        ]
        walk = None
        if events <= WALK_EVENTS:
            then = pb.GetExperimentResultsRequest(experiment_id=EXPERIMENT.experiment_id, as_of_time=found.as_of_time)
            walk, walked = await _timed(stub, then)
            if [one.user_count for one in walked.variants] != [one.user_count for one in found.variants]:
                raise RuntimeError("digest and walk disagree")
        assignment = await _assignment(mongo)
    return ReadoutTimes(
        events=events,
        users=sum(one.user_count for one in found.variants),
        build_seconds=build_seconds,
        cold_milliseconds=1000 * cold,
        cached_milliseconds=1000 * float(np.median(cached)),
        walk_milliseconds=None if walk is None else 1000 * walk,
        assignment_microseconds=1e6 * assignment,
        idle_bytes=idle,
        peak_bytes=peak,
    )


async def _build(directory: Path) -> float:
    """Has a server make the digest; seconds."""
    async with running(directory, server=False, cache_gigabytes=CACHE_GIGABYTES) as stack:
        mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
        try:
            for name in ("digests", "digest_parts"):
                await mongo.collection(name).delete_many({})
        finally:
            await mongo.close()
    begin = time.perf_counter()
    async with _server(directory) as (_, _, mongo):
        await digest_made(mongo)
        return time.perf_counter() - begin


async def digest_made(mongo: Mongo) -> None:
    """Returns when a server has made the digest of the experiment, and no longer works at it."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while await mongo.collection("digests").find_one({"state": "whole"}) is None:
            await asyncio.sleep(POLL_SECONDS)


async def _assignment(mongo: Mongo) -> float:
    """Seconds per user, as `Rank` asks for the variant and what it changes."""
    experiments = RunningExperiments(ExperimentStore(mongo), poll_seconds=60)
    await experiments.refresh()
    users = [f"user-{number}" for number in range(ASSIGNED_USERS)]
    begin = time.process_time()
    for user_id in users:
        experiments.treatment(EXPERIMENT.surface, user_id).over(NO_PARAMETERS)
    return (time.process_time() - begin) / len(users)


@asynccontextmanager
async def _server(directory: Path) -> AsyncIterator[tuple[Any, Any, Mongo]]:
    async with (
        running(directory, server=True, cache_gigabytes=CACHE_GIGABYTES) as stack,
        grpc.aio.insecure_channel(stack.address) as channel,
    ):
        mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
        try:
            yield stack, experiment_pb2_grpc.ExperimentServiceStub(channel), mongo
        finally:
            await mongo.close()


async def _timed(stub: Any, request: pb.GetExperimentResultsRequest) -> tuple[float, pb.GetExperimentResultsResponse]:
    begin = time.perf_counter()
    found = await stub.GetExperimentResults(request, timeout=LIMIT_SECONDS)
    return time.perf_counter() - begin, found
