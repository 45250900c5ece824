"""Only one trains, and a training whose process is gone does not run for ever."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from ranker.models.runs import ALIVE, LOST, TrainingRuns
from ranker.training import turn
from ranker.training.turn import AlreadyTraining, kept_alive, life_sign, take_turn
from runtime.errors import Aborted
from runtime.lease import Lease
from runtime.mongo import Mongo
from tests.integration.learnable import NOW


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same life in a shorter time."""
    monkeypatch.setattr(turn, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(turn, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(turn, "LOOK_SECONDS", 0.05)


async def test_a_second_trainer_is_told_who_trains(mongo: Mongo) -> None:
    runs = TrainingRuns(mongo)
    lease = await take_turn(mongo, "first", now)
    run = await runs.begin("run-1", now())
    ended = asyncio.Event()
    training = asyncio.create_task(kept_alive(ended.wait(), life_sign(lease, runs, run, now)))
    with pytest.raises(AlreadyTraining, match=r"another training is under way \(run run-1, full, since"):
        await take_turn(mongo, "second", now)
    ended.set()
    assert await training
    await lease.release()
    await (await take_turn(mongo, "second", now)).release()


async def test_after_a_killed_trainer_the_next_one_waits_its_time_out_and_trains(mongo: Mongo) -> None:
    killed = await take_turn(mongo, "killed", now)
    lease = await take_turn(mongo, "next", now)
    assert lease.epoch == killed.epoch + 1
    await lease.release()


async def test_a_trainer_that_was_away_for_too_long_stops(mongo: Mongo) -> None:
    runs = TrainingRuns(mongo)
    lease = await take_turn(mongo, "first", now)
    run = await runs.begin("run-1", now())
    later = Lease(mongo, turn.NAME, "second", 60.0, lambda: now() + timedelta(seconds=5))
    assert await later.claim()
    stopped = asyncio.Event()

    async def train() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with pytest.raises(Aborted, match="another trainer has taken over"):
        await kept_alive(train(), life_sign(lease, runs, run, now))
    assert stopped.is_set()


async def test_what_the_work_raises_is_raised_and_cancelling_it_stops_it(mongo: Mongo) -> None:
    runs = TrainingRuns(mongo)
    run = await runs.begin("run-1", now())
    beat = life_sign(None, runs, run, now)

    async def fails() -> None:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        await kept_alive(fails(), beat)
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    training = asyncio.create_task(kept_alive(endless(), beat))
    await begun.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert stopped.is_set()


async def test_a_run_whose_process_is_gone_ends_as_failed(mongo: Mongo) -> None:
    runs = TrainingRuns(mongo)
    killed = await runs.begin("killed", NOW)
    lives = await runs.begin("lives", NOW)
    await runs.beat(killed, NOW + timedelta(seconds=30))
    last_word, looked = NOW + timedelta(seconds=30), NOW + timedelta(seconds=30) + ALIVE + timedelta(seconds=1)
    await runs.beat(lives, looked)
    assert await runs.sweep(last_word) == 0
    assert await runs.sweep(looked) == 1
    lost = await runs.get("killed")
    assert (lost.status, lost.result, lost.error, lost.end_time, lost.seconds) == ("failed", LOST, LOST, looked, 30.0)
    assert (await runs.get("lives")).status == "running"
    # A beat that comes late, or the end of what was only slow, is not held up by that.
    await runs.beat(killed, looked)
    assert (await runs.get("killed")).status == "failed"
    assert (await runs.succeed(killed, looked, result="late")).status == "succeeded"


async def test_a_run_of_a_release_without_signs_of_life_is_lost_after_a_day(mongo: Mongo) -> None:
    runs = TrainingRuns(mongo)
    await runs.begin("old", NOW)
    await mongo.collection("training_runs").update_one({"_id": "old"}, {"$unset": {"alive_until": ""}})
    assert await runs.sweep(NOW + timedelta(hours=23)) == 0
    assert await runs.sweep(NOW + timedelta(hours=25)) == 1
