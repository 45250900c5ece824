"""A trainer that follows: why it trains, what it remembers, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ranker.models.registry import ModelRegistry
from ranker.models.runs import Mode, TrainingRuns
from ranker.training.follower import TrainingFollower
from ranker.training.report import TrainingReport
from ranker.training.settings import TrainerSettings
from runtime.errors import RankloopError
from runtime.mongo import Long, Mongo
from runtime.settings import MongoSettings
from tests.integration.learnable import NOW, History, Silent
from tests.integration.test_train_command import MODULE, ROOT, environment

QUICK = TrainerSettings(
    num_boost_round=20, num_leaves=8, num_threads=1, bootstrap_samples=100, learning_rate=0.1, follow_poll_seconds=0.02, min_interactions=10
)


@contextlib.contextmanager
def silent() -> Iterator[Silent]:
    yield Silent()


class Watch:
    """A clock that is set by hand."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Trained(list[TrainingReport | RankloopError]):
    """What trainings came to; it says stop after the first."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def __call__(self, outcome: TrainingReport | RankloopError) -> None:
        self.append(outcome)
        self._stop.set()


def follower(
    mongo: Mongo, watch: Watch, settings: TrainerSettings = QUICK, *, mode: Mode = "full", told: Trained | None = None
) -> TrainingFollower:
    ids = iter(range(1000))
    return TrainingFollower(
        mongo,
        settings,
        mode=mode,
        new_id=lambda: f"run-{next(ids)}",
        clock=watch,
        progress=silent,
        told=(lambda _: None) if told is None else told,
    )


async def folded(mongo: Mongo, count: int, day: datetime = NOW) -> None:
    """As the fold counts interactions of a day."""
    start = day.replace(hour=0, minute=0)
    await mongo.collection("tallies").update_one(
        {"_id": {"scope": "all", "start": start, "key": ""}},
        {"$inc": {"day.interactions": count}, "$set": {"revision": Long(1)}},
        upsert=True,
    )


async def test_so_many_new_interactions_are_a_reason_however_late_they_occurred(mongo: Mongo) -> None:
    watch, runs = Watch(NOW), TrainingRuns(mongo)
    following = follower(mongo, watch)
    assert await following.due() is None
    await folded(mongo, 49)
    assert await following.due() is None
    await folded(mongo, 1, NOW - timedelta(days=300))
    assert await following.due() == "threshold"
    # Taken in by a run, they are not new any more, to another follower either.
    await runs.fail(await runs.begin("run-1", NOW, interaction_count=50), NOW, error="too few")
    await folded(mongo, 49)
    assert await follower(mongo, watch).due() is None
    await folded(mongo, 1)
    assert await follower(mongo, watch).due() == "threshold"
    # An evaluation takes nothing in.
    await runs.begin("run-2", NOW, mode="evaluate-only", interaction_count=100)
    assert await follower(mongo, watch).due() == "threshold"
    assert await follower(mongo, watch, QUICK.model_copy(update={"follow_interactions": 0})).due() is None


async def test_fewer_than_a_training_needs_at_all_are_no_reason(mongo: Mongo) -> None:
    await folded(mongo, 60)
    assert await follower(mongo, Watch(NOW), QUICK.model_copy(update={"min_interactions": 100})).due() is None


async def test_after_an_erasure_it_counts_on_from_what_is_left(mongo: Mongo) -> None:
    runs = TrainingRuns(mongo)
    await runs.fail(await runs.begin("run-1", NOW, interaction_count=1000), NOW, error="no labels")
    await folded(mongo, 500)
    following = follower(mongo, Watch(NOW))
    assert await following.due() is None
    await folded(mongo, 49)
    assert await following.due() is None
    await folded(mongo, 1)
    assert await following.due() == "threshold"


async def test_it_rests_as_long_as_the_last_training_took_but_not_from_a_request(mongo: Mongo) -> None:
    watch, runs = Watch(NOW + timedelta(seconds=100)), TrainingRuns(mongo)
    await runs.succeed(await runs.begin("run-1", NOW, interaction_count=0), watch.now, result="")
    await folded(mongo, 1000)
    watch.now += timedelta(seconds=99)
    assert await follower(mongo, watch).due() is None
    await runs.request("asked", watch.now)
    assert await follower(mongo, watch).due() == "request"
    await mongo.collection("training_runs").delete_one({"_id": "asked"})
    watch.now += timedelta(seconds=1)
    assert await follower(mongo, watch).due() == "threshold"


async def test_a_cron_line_is_a_reason_until_a_training_followed(mongo: Mongo) -> None:
    watch, stop = Watch(NOW), asyncio.Event()
    told = Trained(stop)
    following = follower(mongo, watch, QUICK.model_copy(update={"follow_schedule": "0 4 * * *"}), told=told)
    assert await following.due() is None
    watch.now += timedelta(days=1)
    assert await following.due() == "schedule"
    assert await following.due() == "schedule"
    await following.follow(stop)
    # There was nothing to learn from, which is said, and is in the history.
    assert isinstance(told[0], RankloopError)
    (run,) = await TrainingRuns(mongo).list()
    assert (run.status, run.trigger) == ("failed", "schedule")
    assert run.error == told[0].message
    assert await following.due() is None


async def test_it_goes_on_from_the_champion_where_it_can(mongo: Mongo) -> None:
    await History(slates=200).write(mongo)
    watch, runs = Watch(NOW), TrainingRuns(mongo)
    for number, (days, mode) in enumerate([(0, "full"), (4, "warm-start")]):
        if days:
            watch.now += timedelta(days=days)
            await History(slates=200, seed=5, first=1000, days=3, now=watch.now).write(mongo)
        asked = await runs.request(f"asked-{number}", watch.now)
        stop = asyncio.Event()
        told = Trained(stop)
        await follower(mongo, watch, mode="warm-start", told=told).follow(stop)
        assert isinstance(told[0], TrainingReport), told
        assert (told[0].run_id, told[0].trigger, told[0].mode) == (asked.run_id, "request", mode)


async def test_the_process_trains_on_request_and_stops_on_sigterm(mongo: Mongo, mongo_settings: MongoSettings, tmp_path: Path) -> None:
    await History(slates=200, now=datetime.now(UTC)).write(mongo)
    ready, told = tmp_path / "ready.json", tmp_path / "report.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *MODULE,
        *("--follow", "--num-boost-round", "20", "--ready-file", str(ready), "--json", str(told)),
        env=environment(mongo_settings) | {"PYTHONPATH": str(ROOT), "RANKLOOP_TRAINER_FOLLOW_POLL_SECONDS": "0.05"},
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        runs = TrainingRuns(mongo)
        async with asyncio.timeout(60):
            while not ready.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
            await runs.request("asked", datetime.now(UTC), reason="new season")
            while (run := await runs.get("asked")).status in ("requested", "running"):
                assert process.returncode is None
                await asyncio.sleep(0.02)
        assert run.status == "succeeded", run.result
        assert run.model_version == await ModelRegistry(mongo).champion()
        while not told.exists():
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert json.loads(told.read_text())["trigger"] == "request"
        assert "Traceback" not in err.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
