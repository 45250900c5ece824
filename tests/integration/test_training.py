"""The trainer against a real database: from the ledger to the champion, and every reason not to get there."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta

import numpy as np
import pytest

from ranker.models.registry import ModelRegistry
from ranker.models.runs import Mode, TrainingRuns
from ranker.training.failures import CannotTrain
from ranker.training.report import TrainingReport
from ranker.training.settings import TrainerSettings
from ranker.training.trainer import TrainingOptions, train
from runtime.errors import FailedPrecondition
from runtime.mongo import Mongo
from tests.integration.learnable import NAMES, NOW, History, Silent

QUICK = TrainerSettings(num_boost_round=40, early_stopping_rounds=10, num_leaves=8, num_threads=1, bootstrap_samples=200, learning_rate=0.1)


async def run(
    mongo: Mongo,
    *,
    mode: Mode = "full",
    settings: TrainerSettings = QUICK,
    run_id: str = "run-1",
    now: datetime = NOW,
    detailed: bool = False,
) -> TrainingReport:
    return await train(mongo, TrainingOptions(settings=settings, run_id=run_id, clock=lambda: now, mode=mode, detailed=detailed), Silent())


def value(report: TrainingReport, name: str) -> float:
    metric = report.metric(name)
    assert metric is not None, f"{name} is not among {[one.name for one in report.metrics]}"
    return metric.value


async def test_a_model_beats_chance_and_the_prior_and_becomes_champion(mongo: Mongo) -> None:
    await History(slates=600).write(mongo)
    report = await run(mongo)
    assert value(report, "test.model.ndcg_at_10") > value(report, "test.prior_score.ndcg_at_10") > value(report, "test.random.ndcg_at_10")
    # Slates were shown by prior_score, so the two are the same order.
    assert value(report, "test.as_shown.ndcg_at_10") == pytest.approx(value(report, "test.prior_score.ndcg_at_10"))
    assert report.promoted, report.decision
    registry = ModelRegistry(mongo)
    assert await registry.champion() == report.model_version
    bundle = await registry.fetch(report.model_version)
    bundle.verify()
    assert bundle.passport.feature_names == tuple(History().names)
    assert bundle.passport.schema_hash == "schema-one"
    assert report.top_features[0].feature in ("item_quality", "prior_score")
    assert sum(one.gain_share for one in report.top_features) == pytest.approx(1.0)
    assert any("never_sent" in note for note in report.notes)


async def test_slices_follow_each_other_in_time_and_the_reported_one_stops_nothing(mongo: Mongo) -> None:
    await History(slates=400).write(mongo)
    report = await run(mongo)
    train_slice, validation, test = report.slices
    assert [one.name for one in report.slices] == ["train", "validation", "test"]
    assert train_slice.end_time <= validation.start_time
    assert validation.end_time <= test.start_time
    used = report.counts.used_slates
    assert train_slice.slate_count == used - round(0.2 * used)
    assert abs(validation.slate_count - test.slate_count) <= 1
    record = await ModelRegistry(mongo).get(report.model_version)
    assert record.data_end_time is not None
    assert record.data_end_time <= test.start_time


async def test_the_same_data_and_settings_give_the_same_bytes(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    first = await run(mongo)
    packed = (await ModelRegistry(mongo).fetch(first.model_version)).pack()
    again = await run(mongo, run_id="run-2", now=NOW + timedelta(seconds=5))
    assert again.model_version == first.model_version
    assert "nothing changes" in again.decision
    assert not again.promoted
    await mongo.collection("models").delete_many({})
    alone = await run(mongo, run_id="run-3")
    assert (await ModelRegistry(mongo).fetch(alone.model_version)).pack() == packed
    other = await run(mongo, run_id="run-4", settings=QUICK.model_copy(update={"seed": 2}))
    assert other.model_version != first.model_version


async def test_a_worse_model_is_refused_and_the_champion_stays(mongo: Mongo) -> None:
    await History(slates=600).write(mongo)
    good = await run(mongo)
    crippled = QUICK.model_copy(update={"num_boost_round": 1, "num_leaves": 2, "learning_rate": 1e-6, "min_data_in_leaf": 2000})
    worse = await run(mongo, settings=crippled, run_id="run-2")
    assert not worse.promoted
    assert "it is worse than the champion" in worse.decision
    registry = ModelRegistry(mongo)
    assert await registry.champion() == good.model_version
    record = await registry.get(worse.model_version)
    assert record.status == "refused"
    assert record.status_reason == worse.decision
    assert worse.metric("test.model_minus_champion.ndcg_at_10") is not None
    with pytest.raises(FailedPrecondition, match="was refused"):
        await registry.promote(worse.model_version, NOW)


async def test_a_feature_that_stopped_varying_is_refused_by_name(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    good = await run(mongo)
    assert good.promoted, good.decision
    # From now on the costs are gone: every later slate has the same.
    slates = mongo.collection("slates")
    width = len(NAMES)
    for slate in await slates.find({}, {"features": 1}, limit=1000):
        values = np.frombuffer(slate["features"]).reshape(-1, width).copy()
        values[:, NAMES.index("item_cost")] = 1.0
        await slates.update_one({"_id": slate["_id"]}, {"$set": {"features": values.tobytes()}})
    worse = await run(mongo, run_id="run-2")
    assert not worse.promoted
    assert "no longer do: item_cost;" in worse.decision
    registry = ModelRegistry(mongo)
    assert await registry.champion() == good.model_version
    assert (await registry.get(worse.model_version)).status == "refused"
    expected = QUICK.model_copy(update={"may_become_constant": ("item_cost",), "seed": 2})
    assert "item_cost" not in (await run(mongo, run_id="run-3", settings=expected)).decision


async def test_a_detailed_report_has_parts_and_curves(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    report = await run(mongo, detailed=True)
    for figure in ("ndcg_at_5", "ndcg_at_10", "map", "mrr"):
        for ranker in ("model", "as_shown", "prior_score", "random", "popularity", "model_after_mmr", "model_after_mmr_minus_model"):
            assert report.metric(f"test.{ranker}.{figure}") is not None, (ranker, figure)
    assert {(one.dimension, one.value) for one in report.segments} >= {("item_type", "post"), ("surface", "home"), ("user", "known")}
    curve = report.curves["learning"]["validation_ndcg_at_10"]
    assert curve.index(max(curve)) + 1 == report.curves["learning"]["rounds_kept"] == report.tree_count
    calibration = report.curves["calibration"]
    assert sum(one["impressions"] for one in calibration) == report.slices[-1].row_count
    assert [one["score"] for one in calibration] == sorted(one["score"] for one in calibration)
    assert calibration[-1]["label"] > calibration[0]["label"]
    trade_off = report.curves["trade_off"]
    # λ = 1 is the model's own order, with equal scores in the order of the ids instead of in any.
    assert trade_off[-1]["ndcg_at_10"] == pytest.approx(value(report, "test.model.ndcg_at_10"), abs=0.05)
    assert trade_off[0]["diversity"] >= trade_off[-1]["diversity"]
    assert json.loads(json.dumps(report.to_json()))["segments"][0]["metrics"]
    plain = await run(mongo, run_id="run-2", mode="evaluate-only")
    assert (plain.segments, dict(plain.curves)) == ((), {})


async def test_too_few_interactions_say_how_many_are_missing(mongo: Mongo) -> None:
    history = await History(slates=100).write(mongo)
    found = len(history.documents()[1])
    with pytest.raises(CannotTrain, match=f"{found} interactions.*{10_000 - found} are missing"):
        await run(mongo, settings=QUICK.model_copy(update={"min_interactions": 10_000}))
    (failed,) = await TrainingRuns(mongo).list()
    assert failed.status == "failed"
    assert "are missing" in failed.result
    assert await ModelRegistry(mongo).list() == []


async def test_evaluate_only_leaves_no_model(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    bare = await run(mongo, mode="evaluate-only")
    assert bare.model_version == ""
    assert await ModelRegistry(mongo).list() == []
    trained = await run(mongo, run_id="run-2")
    measured = await run(mongo, mode="evaluate-only", run_id="run-3")
    assert measured.model_version == trained.model_version
    assert measured.metric("test.model.ndcg_at_10") is None
    assert value(measured, "test.champion.ndcg_at_10") == value(trained, "test.model.ndcg_at_10")
    assert len(await ModelRegistry(mongo).list()) == 1
    assert await mongo.collection("blobs.files").count({}, limit=10) == 1


async def test_counts_say_what_was_left_out(mongo: Mongo) -> None:
    history = await History(slates=200).write(mongo)
    slates = mongo.collection("slates")
    # Two without features, one with values that do not fit, one of one item, three that nobody touched.
    await slates.update_many({"_id": {"$in": ["r000000", "r000001"]}}, {"$unset": {"features": ""}})
    await slates.update_one({"_id": "r000002"}, {"$set": {"features": b"12345678"}})
    one = await slates.find_one({"_id": "r000003"})
    assert one is not None
    await slates.update_one(
        {"_id": "r000003"}, {"$set": {"items": one["items"][:1], "features": one["features"][: 8 * len(history.names)]}}
    )
    untouched = ["r000004", "r000005", "r000006"]
    await mongo.collection("attributions").delete_many({"ranking_id": {"$in": untouched}})
    # One interaction without a slate, one of a slate that was never recorded; one long ago.
    moment = NOW - timedelta(hours=1)
    lost = {"user_id": "u1", "item_id": "i", "type": "click", "label": 0.4, "acts": True, "occur_time": moment, "receive_time": moment}
    await mongo.collection("interactions").insert_many(
        [
            {**lost, "_id": "lost-1"},
            {**lost, "_id": "lost-2", "ranking_id": "gone"},
            {**lost, "_id": "old", "occur_time": NOW - timedelta(days=400)},
        ]
    )
    counts = (await run(mongo)).counts
    assert counts.slates == 200
    assert counts.slates_without_features == 2
    assert counts.slates_with_bad_features == 1
    assert counts.slates_of_one_item == 1
    without = {one["_id"] for one in history.documents()[0]} - {one["ranking_id"] for one in history.documents()[2]}
    assert counts.slates_without_label == len((without | set(untouched)) - {f"r{number:06d}" for number in range(4)})
    assert counts.used_slates == 200 - 4 - counts.slates_without_label
    assert counts.used_rows == 10 * counts.used_slates
    assert counts.interactions == len(history.documents()[1]) + 2
    assert counts.unmatched_interactions == 2


async def test_slates_of_an_older_schema_are_mapped_by_name(mongo: Mongo) -> None:
    older = History(slates=200, names=("item_cost", "gone_since", "item_quality"), schema_hash="schema-zero", days=40, seed=2)
    await older.write(mongo)
    await History(slates=200, days=10, first=1000).write(mongo)
    report = await run(mongo)
    assert report.counts.slates_of_other_schemas > 100
    bundle = await ModelRegistry(mongo).fetch(report.model_version)
    assert bundle.passport.feature_names == tuple(History().names)
    assert bundle.passport.schema_hash == "schema-one"


async def test_slates_outside_the_window_are_not_looked_at(mongo: Mongo) -> None:
    await History(slates=400, days=40).write(mongo)
    report = await run(mongo, settings=QUICK.model_copy(update={"lookback_days": 20.0}))
    # Slates stand a tenth of a day apart; number 200 was shown 20 days and a minute ago.
    assert report.counts.slates == 199


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("no slates", "NO_FEATURES"),
        ("no features", "NO_FEATURES"),
        ("no attributions", "NO_LABELS"),
        ("one label", "ONE_LABEL"),
        ("one item", "ONE_ITEM_SLATES"),
        ("few slates", "TOO_FEW_SLATES"),
    ],
)
async def test_data_that_teach_nothing_are_refused_with_the_reason(mongo: Mongo, spoil: str, reason: str) -> None:
    history = await History(slates=12 if spoil == "few slates" else 60).write(mongo)
    slates, attributions = mongo.collection("slates"), mongo.collection("attributions")
    if spoil == "no slates":
        await slates.delete_many({})
    elif spoil == "no features":
        await slates.update_many({}, {"$unset": {"features": "", "schema_hash": ""}})
    elif spoil == "no attributions":
        await attributions.delete_many({})
    elif spoil == "one label":
        await attributions.delete_many({})
        await attributions.insert_many(
            [
                {"_id": {"ranking_id": slate["_id"], "item_id": item["item_id"]}, "ranking_id": slate["_id"], "label": 0.4}
                for slate in history.documents()[0]
                for item in slate["items"]
            ]
        )
    elif spoil == "one item":
        await slates.delete_many({})
        await slates.insert_many(
            [
                {**slate, "items": slate["items"][:1], "features": slate["features"][: 8 * len(history.names)]}
                for slate in history.documents()[0]
            ]
        )
    with pytest.raises(CannotTrain) as caught:
        await run(mongo, settings=QUICK.model_copy(update={"min_interactions": 1}))
    assert caught.value.reason == reason
    assert await ModelRegistry(mongo).champion() is None


async def test_a_request_that_waits_is_taken_up_but_not_by_an_evaluation(mongo: Mongo) -> None:
    await History(slates=200).write(mongo)
    runs = TrainingRuns(mongo)
    asked = await runs.request("asked", NOW, reason="new season")
    assert (await run(mongo, mode="evaluate-only", run_id="looked")).run_id == "looked"
    report = await run(mongo, run_id="unused")
    assert (report.run_id, report.trigger) == (asked.run_id, "request")
    done = await runs.get("asked")
    assert done.status == "succeeded"
    assert done.reason == "new season"
    assert done.model_version == report.model_version
    assert done.row_count == report.slices[0].row_count
    assert done.metrics == report.metrics


async def test_a_stopped_training_leaves_no_model_and_no_running_run(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    reached = asyncio.Event()

    class StopsInTraining(Silent):
        rounds = 0

        def advance(self, count: int) -> None:
            if self.training:
                self.rounds += count
                loop.call_soon_threadsafe(reached.set)

        def step(self, description: str, total: int | None = None) -> None:
            self.training = description == "training"

    loop = asyncio.get_running_loop()
    settings = QUICK.model_copy(update={"num_boost_round": 20_000, "early_stopping_rounds": 20_000})
    options = TrainingOptions(settings=settings, run_id="run-1", clock=lambda: NOW)
    watching = StopsInTraining()
    task = asyncio.create_task(train(mongo, options, watching))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The thread that trains ends too, long before its last round.
    await loop.shutdown_default_executor()
    assert watching.rounds < 15_000
    (stopped,) = await TrainingRuns(mongo).list()
    assert stopped.status == "failed"
    assert "stopped" in stopped.result
    assert await ModelRegistry(mongo).list() == []


async def test_a_broken_champion_does_not_keep_the_next_one_from_serving(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    first = await run(mongo)
    document = await mongo.collection("models").find_one({"_id": first.model_version})
    assert document is not None
    await mongo.blobs.delete(document["bundle"])
    report = await run(mongo, run_id="run-2", settings=QUICK.model_copy(update={"seed": 3}))
    assert any("not compared" in note for note in report.notes)
    assert report.promoted
    assert (await ModelRegistry(mongo).rollback(NOW)).model_version == first.model_version


async def test_the_report_is_json_with_metrics_by_name(mongo: Mongo) -> None:
    await History(slates=200).write(mongo)
    report = await run(mongo)
    told = json.loads(json.dumps(report.to_json()))
    ndcg = told["metrics"]["test.model.ndcg_at_10"]
    assert ndcg["low"] <= ndcg["value"] <= ndcg["high"]
    assert told["model_version"] == report.model_version
    assert told["counts"]["used_slates"] == report.counts.used_slates
    assert [one["name"] for one in told["slices"]] == ["train", "validation", "test"]


async def test_sampling_thins_what_is_learned_from_and_nothing_else(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    whole = await run(mongo)
    fewer = await run(mongo, run_id="run-2", settings=QUICK.model_copy(update={"negatives_per_positive": 1.0}))
    rows = [[one.row_count for one in report.slices] for report in (whole, fewer)]
    assert rows[1][0] == rows[0][0] - fewer.counts.sampled_out_rows < rows[0][0]
    assert rows[1][1:] == rows[0][1:]
    # What needs no model is measured on the very same slates.
    for ranker in ("as_shown", "prior_score", "random"):
        assert fewer.metric(f"test.{ranker}.ndcg_at_10") == whole.metric(f"test.{ranker}.ndcg_at_10")
