"""Only one trains at a time, and whoever trains says that it lives.

A trainer holds the lease `trainer` while it trains and renews it every few seconds. One that comes while another trains is told so. One
that comes after another was killed waits until that one's time is over, and trains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar

from ranker.models.runs import TrainingRun, TrainingRuns
from runtime.errors import Aborted, FailedPrecondition, StorageError
from runtime.lease import Lease
from runtime.logs import get_logger
from runtime.mongo import Mongo

log = get_logger("trainer")

NAME = "trainer"
LEASE_SECONDS = 30.0
BEAT_SECONDS = 5.0
LOOK_SECONDS = 0.25

Result = TypeVar("Result")


class AlreadyTraining(FailedPrecondition):
    """Another trainer is at work."""

    reason = "ALREADY_TRAINING"


async def take_turn(mongo: Mongo, holder: str, clock: Callable[[], datetime]) -> Lease:
    """The lease to train; whoever takes it renews it with `claim` and gives it back with `release`.

    Raises:
        AlreadyTraining: another holds it and lives.
    """
    lease = Lease(mongo, NAME, holder, LEASE_SECONDS, clock)
    first = await _held_until(mongo)
    for _ in range(round(2 * LEASE_SECONDS / LOOK_SECONDS)):
        if await lease.claim():
            return lease
        if await _held_until(mongo) != first:
            break  # renewed: its holder lives
        await asyncio.sleep(LOOK_SECONDS)
    if await lease.claim():
        return lease  # it was given back at this very moment
    raise AlreadyTraining(
        f"another training is under way{_told(await _running(mongo))}: only one trains at a time; wait until it is done, "
        "`rankloop models runs` says when"
    )


async def kept_alive(work: Coroutine[Any, Any, Result], beat: Callable[[], Awaitable[None]]) -> Result:
    """Does `work`, and calls `beat` every few seconds meanwhile; when `beat` raises, the work is cancelled and the failure is raised."""
    working, beating = asyncio.create_task(work), asyncio.create_task(_keep_beating(beat))
    try:
        await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
        if beating.done():
            working.cancel()
            await asyncio.wait({working})
            beating.result()
        return working.result()
    finally:
        for task in (working, beating):
            task.cancel()
        # Work that is cancelled from outside ends before this does: nothing of it goes on behind the caller's back.
        await asyncio.gather(working, beating, return_exceptions=True)


def life_sign(lease: Lease | None, runs: TrainingRuns, run: TrainingRun, clock: Callable[[], datetime]) -> Callable[[], Awaitable[None]]:
    """Says that a run lives, and renews its lease; Aborted when another has taken that."""

    async def beat() -> None:
        try:
            if lease is not None and not await lease.claim():
                raise Aborted(
                    "another trainer has taken over: this one was away for too long; the champion is untouched", reason="LEASE_LOST"
                )
            await runs.beat(run, clock())
        except StorageError as error:
            # The database is away for a moment; the training goes on, and so does the lease unless another takes it.
            log.warning("the trainer could not say that it lives", error=error.message)

    return beat


async def _keep_beating(beat: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        await beat()


async def _held_until(mongo: Mongo) -> datetime | None:
    found = await mongo.collection("leases").find_one({"_id": NAME}, {"until": 1})
    return None if found is None else found["until"]


async def _running(mongo: Mongo) -> TrainingRun | None:
    query = {"status": "running", "mode": {"$ne": "evaluate-only"}}
    found = await mongo.collection("training_runs").find_one(query, sort=[("create_time", -1)])
    return None if found is None else TrainingRun.from_document(found)


def _told(run: TrainingRun | None) -> str:
    if run is None:
        return ""
    return f" (run {run.run_id}, {run.mode}, since {run.begin_time or run.create_time:%Y-%m-%d %H:%M:%S} UTC)"
