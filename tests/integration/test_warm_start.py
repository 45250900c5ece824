"""A warm start against a real database: what it goes on from, what it learns, and when it says that it does not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ranker.models.registry import ModelRegistry
from ranker.models.runs import Mode, TrainingRuns
from ranker.training.failures import CannotTrain
from ranker.training.report import TrainingReport
from ranker.training.settings import TrainerSettings
from ranker.training.trainer import TrainingOptions, train
from runtime.errors import FailedPrecondition
from runtime.mongo import Mongo
from tests.integration.learnable import NOW, History, Silent

QUICK = TrainerSettings(num_boost_round=40, early_stopping_rounds=10, num_leaves=8, num_threads=1, bootstrap_samples=200, learning_rate=0.1)
LATER = NOW + timedelta(days=5)


async def run(mongo: Mongo, mode: Mode = "full", *, run_id: str, settings: TrainerSettings = QUICK, late: bool = False) -> TrainingReport:
    options = TrainingOptions(settings=settings, run_id=run_id, clock=lambda: LATER if late else NOW, mode=mode)
    return await train(mongo, options, Silent())


async def test_it_goes_on_from_the_champions_trees_and_learns_what_is_new(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    with pytest.raises(FailedPrecondition, match="no champion to continue"):
        await run(mongo, "warm-start", run_id="run-1")
    first = await run(mongo, run_id="run-2", settings=QUICK.model_copy(update={"num_boost_round": 1}))
    await History(slates=400, seed=9, first=1000, days=4, now=LATER).write(mongo)
    report = await run(mongo, "warm-start", run_id="run-3", late=True)
    registry = ModelRegistry(mongo)
    base, continued = [await registry.fetch(one.model_version) for one in (first, report)]
    assert continued.passport.parent_version == first.model_version, report.decision
    trees = [one.forest.decode().partition("\nTree=0")[2].partition("end of trees")[0].rstrip() for one in (base, continued)]
    assert trees[1].startswith(trees[0])
    assert report.rounds_added is not None
    assert report.rounds_removed is not None
    assert continued.passport.tree_count == base.passport.tree_count + report.rounds_added > base.passport.tree_count
    assert f"{report.rounds_added} rounds added, {report.rounds_removed} removed again" in report.decision
    stored = await TrainingRuns(mongo).get(report.run_id)
    assert (stored.mode, stored.rounds_added, stored.rounds_removed) == ("warm-start", report.rounds_added, report.rounds_removed)
    # Both have learned from the same slates, and are held against the same ones.
    full = await run(mongo, run_id="run-4", late=True)
    assert report.slices[1:] == full.slices[1:]
    assert report.slices[0].start_time >= first.slices[0].end_time
    assert report.slices[0].end_time == full.slices[0].end_time
    assert first.slices[0].slate_count + report.slices[0].slate_count == full.slices[0].slate_count == continued.passport.slate_count
    assert continued.passport.data_start_time == base.passport.data_start_time


async def test_without_new_slates_it_says_how_many_are_missing(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    await run(mongo, run_id="run-1")
    with pytest.raises(CannotTrain, match=r"nothing is new; about \d+ more are needed") as caught:
        await run(mongo, "warm-start", run_id="run-2")
    assert caught.value.reason == "NOTHING_NEW"


async def test_where_no_round_helps_the_champion_stays_as_it_is(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    first = await run(mongo, run_id="run-1")
    await History(slates=100, seed=9, first=1000, days=4, now=LATER).write(mongo)
    # Leaves so large that no split is made.
    report = await run(mongo, "warm-start", run_id="run-2", settings=QUICK.model_copy(update={"min_data_in_leaf": 100_000}), late=True)
    assert (report.model_version, report.promoted, report.rounds_added) == (first.model_version, False, 0)
    assert "nothing changes" in report.decision
    assert report.metric("test.champion.ndcg_at_10") is not None
    assert len(await ModelRegistry(mongo).list()) == 1


async def test_a_champion_of_other_features_or_of_too_many_trees_is_not_continued(mongo: Mongo) -> None:
    await History(slates=200, days=40).write(mongo)
    await run(mongo, run_id="run-1")
    await History(slates=100, names=("item_cost", "item_quality"), schema_hash="schema-two", first=1000, days=4, now=LATER).write(mongo)
    with pytest.raises(FailedPrecondition, match="other features"):
        await run(mongo, "warm-start", run_id="run-2", late=True)
    with pytest.raises(FailedPrecondition, match="warm_start_max_trees") as caught:
        await run(mongo, "warm-start", run_id="run-3", settings=QUICK.model_copy(update={"warm_start_max_trees": 1}), late=True)
    assert caught.value.reason == "FOREST_TOO_LARGE"
