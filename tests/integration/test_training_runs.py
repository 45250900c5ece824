"""The history of the trainer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from ranker.models.passport import Metric
from ranker.models.runs import TrainingRuns
from runtime.errors import NotFound
from runtime.mongo import Mongo

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


async def test_a_run_from_its_begin_to_its_end(mongo_both: Mongo) -> None:
    runs = TrainingRuns(mongo_both)
    begun = await runs.begin("r1", NOW)
    assert (begun.status, begun.trigger, begun.mode, begun.end_time, begun.seconds) == ("running", "command", "full", None, None)
    metrics = (Metric(name="test.model.ndcg_at_10", value=0.5, low=0.4, high=0.6), Metric(name="test.random.ndcg_at_10", value=0.2))
    end = NOW + timedelta(seconds=90)
    ended = await runs.succeed(begun, end, result="passed", row_count=7, model_version="m1", promoted=True, metrics=metrics)
    assert await runs.get("r1") == ended
    assert (ended.status, ended.end_time, ended.seconds) == ("succeeded", end, 90.0)
    assert (ended.result, ended.row_count, ended.model_version, ended.promoted, ended.metrics) == ("passed", 7, "m1", True, metrics)


async def test_a_run_that_fails_says_why(mongo: Mongo) -> None:
    runs = TrainingRuns(mongo)
    failed = await runs.fail(await runs.begin("r1", NOW, mode="warm-start"), NOW, error="one label only")
    assert (failed.status, failed.mode, failed.result, failed.model_version) == ("failed", "warm-start", "one label only", "")


async def test_a_request_that_waits_is_returned_not_doubled(mongo_both: Mongo) -> None:
    runs = TrainingRuns(mongo_both)
    asked = await asyncio.gather(*(runs.request(f"r{number}", NOW, reason="now") for number in range(5)))
    assert len({run.run_id for run in asked}) == 1
    assert {run.status for run in asked} == {"requested"}
    assert len(await runs.list()) == 1


async def test_a_request_is_taken_up_once_with_the_mode_of_the_run(mongo: Mongo) -> None:
    runs = TrainingRuns(mongo)
    asked = await runs.request("asked", NOW)
    later = NOW + timedelta(hours=1)
    first, second = await runs.begin("r1", later, mode="warm-start"), await runs.begin("r2", later)
    assert (first.run_id, first.trigger, first.mode, first.create_time, first.begin_time) == (
        asked.run_id,
        "request",
        "warm-start",
        NOW,
        later,
    )
    assert (second.run_id, second.trigger) == ("r2", "command")
    # How long it waited is not how long it took.
    assert (await runs.fail(first, later + timedelta(seconds=5), error="")).seconds == 5.0
    assert (await runs.request("next", later)).run_id == "next"


async def test_an_unknown_run_is_not_found(mongo: Mongo) -> None:
    with pytest.raises(NotFound, match="no training run r9"):
        await TrainingRuns(mongo).get("r9")


async def test_pages_of_runs_newest_first(mongo: Mongo) -> None:
    runs = TrainingRuns(mongo)
    for run_id, seconds in (("a", 0), ("b", 1), ("c", 1), ("d", 2)):
        await runs.begin(run_id, NOW + timedelta(seconds=seconds))
    seen: list[str] = []
    before: tuple[datetime, str] | None = None
    while page := await runs.list(2, before):
        seen.extend(run.run_id for run in page)
        before = (page[-1].create_time, page[-1].run_id)
    assert seen == ["d", "c", "b", "a"]
