"""Options of a training that change what is learned: tried settings, and labels without what a position does to them."""

from __future__ import annotations

import json

from ranker.models.registry import ModelRegistry
from ranker.training.settings import TrainerSettings
from ranker.training.trainer import TrainingOptions, train
from runtime.mongo import Mongo
from tests.integration.learnable import NOW, History, Silent

QUICK = TrainerSettings(num_boost_round=20, early_stopping_rounds=10, num_leaves=8, num_threads=1, bootstrap_samples=100, learning_rate=0.1)


async def test_a_tuned_model_is_made_of_what_was_chosen_and_judged_as_any_other(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    report = await train(mongo, TrainingOptions(settings=QUICK, run_id="run-1", clock=lambda: NOW, tune_trials=4), Silent())
    tuned = report.tuned
    assert tuned is not None
    assert tuned.trial_count == 4
    passport = (await ModelRegistry(mongo).fetch(report.model_version)).passport
    parameters = dict(passport.parameters)
    for name in ("num_leaves", "learning_rate", "feature_fraction", "lambda_l2"):
        assert parameters[name] == getattr(tuned.settings, name), name
    assert report.metric("test.model_minus_prior_score.ndcg_at_10") is not None
    told = json.loads(json.dumps(report.to_json()))["tuned"]
    assert told["chosen"] == tuned.chosen
    assert told["settings"]["num_leaves"] == tuned.settings.num_leaves


async def test_with_position_bias_the_plain_model_stands_beside(mongo: Mongo) -> None:
    await History(slates=300).write(mongo)
    plain = await train(mongo, TrainingOptions(settings=QUICK, run_id="run-1", clock=lambda: NOW), Silent())
    assert plain.metric("test.plain.ndcg_at_10") is None
    settings = QUICK.model_copy(update={"position_bias": True})
    report = await train(mongo, TrainingOptions(settings=settings, run_id="run-2", clock=lambda: NOW), Silent())
    beside, model = report.metric("test.plain.ndcg_at_10"), plain.metric("test.model.ndcg_at_10")
    assert beside is not None
    assert model is not None
    assert beside.value == model.value
    difference = report.metric("test.model_minus_plain.ndcg_at_10")
    assert difference is not None
    assert difference.low is not None
    assert report.rounds_added == plain.rounds_added
    assert report.model_version != plain.model_version
    assert dict((await ModelRegistry(mongo).fetch(report.model_version)).passport.parameters)["position_bias"] is True
