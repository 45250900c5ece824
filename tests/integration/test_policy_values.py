"""What other orders would have earned, from slates in a database in which chance had a say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ranker.models.registry import ModelRegistry
from ranker.training.report import TrainingReport
from ranker.training.settings import TrainerSettings
from ranker.training.trainer import TrainingOptions, train
from runtime.mongo import Mongo
from tests.integration.learnable import NOW, History, Silent

QUICK = TrainerSettings(num_boost_round=30, num_leaves=8, num_threads=1, bootstrap_samples=100, learning_rate=0.1, validation_split=0.5)
ITEMS = 4
# A prior that is noise, and no feature: chance orders the slates, each item at each place with probability 1/4.
CHANCE = History(slates=1600, items=ITEMS, prior_noise=1e6, names=("item_quality", "item_cost", "user_mood"))


async def run(mongo: Mongo, mode: str = "full", run_id: str = "run-1") -> TrainingReport:
    options = TrainingOptions(settings=QUICK, run_id=run_id, clock=lambda: NOW, mode="evaluate-only" if mode == "evaluate-only" else "full")
    return await train(mongo, options, Silent())


async def explored(mongo: Mongo, propensity: float, **changes: object) -> None:
    slates = mongo.collection("slates")
    await slates.update_many({}, {"$set": {"items.$[].propensity": propensity, **changes}})


async def test_a_model_that_knows_is_worth_more_than_chance_and_its_value_is_that_of_its_order(mongo: Mongo) -> None:
    await CHANCE.write(mongo)
    await explored(mongo, 1 / ITEMS)
    value = (await run(mongo)).off_policy["model"]
    assert value.refusal is None, value.refusal_text
    assert value.logged_value is not None
    assert value.mean_weight == pytest.approx(1.0, abs=0.15)
    assert value.largest_weight == ITEMS
    # In this world nobody minds positions, so any order of all candidates earns what was earned.
    for name, estimate in value.estimates.items():
        assert estimate.low <= value.logged_value <= estimate.high, name
    assert sorted(value.estimates) == ["clipped_ips", "dr", "ips", "snips"]
    # Slates that nobody touched count.
    test = (await run(mongo, "evaluate-only", "run-2")).slices[-1]
    whole = await mongo.collection("slates").count({"show_time": {"$gte": test.start_time, "$lt": test.end_time}}, limit=10_000)
    assert value.impression_count == ITEMS * whole > ITEMS * test.slate_count
    # The champion is the same model.
    again = (await run(mongo, "evaluate-only", "run-3")).off_policy
    assert list(again) == ["champion"]
    assert again["champion"] == value


async def test_where_the_top_is_seen_more_an_order_that_knows_earns_more(mongo: Mongo) -> None:
    history = replace(CHANCE, seed=4, slates=2500)
    await history.write(mongo)
    await explored(mongo, 1 / ITEMS)
    # Only what stood first was seen: all other labels go.
    first = [
        {"ranking_id": slate["_id"], "item_id": slate["items"][0]["item_id"]}
        for slate in await mongo.collection("slates").find({}, {"items.item_id": 1}, limit=10_000)
    ]
    await mongo.collection("attributions").delete_many({"_id": {"$nin": first}})
    value = (await run(mongo)).off_policy["model"]
    assert value.logged_value is not None
    for name in ("ips", "snips", "dr"):
        assert value.estimates[name].low > value.logged_value, name


@pytest.mark.parametrize(
    ("propensity", "candidates", "reason"),
    [(None, None, "NO_PROPENSITIES"), (1.0, ITEMS, "NO_RANDOMNESS"), (0.1, 50, "CANDIDATES_NOT_SHOWN"), (0.01, ITEMS, None)],
)
async def test_what_the_log_cannot_tell_is_said(mongo: Mongo, propensity: float | None, candidates: int | None, reason: str | None) -> None:
    await CHANCE.write(mongo)
    if propensity is not None:
        await explored(mongo, propensity, candidate_count=candidates)
    report = await run(mongo)
    assert report.off_policy["model"].refusal == reason
    assert report.to_json()["off_policy"]["model"]["refusal"] == reason
    assert await ModelRegistry(mongo).champion() == report.model_version
    assert np.isfinite(report.off_policy["model"].effective_sample)
