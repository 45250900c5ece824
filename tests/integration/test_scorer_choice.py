"""What a loaded model is scored by, and what is said about it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import lightgbm
import numpy as np
import pytest

from ranker import metrics
from ranker.compiled import compiled_module
from ranker.features.schema import default_schema
from ranker.models.bundle import Bundle
from ranker.models.loader import ModelLoader
from ranker.models.passport import Passport
from ranker.models.refusal import RankerNotes
from ranker.models.registry import ModelRegistry
from ranker.models.trial import prepare
from ranker.process import compiled
from runtime.errors import Misconfigured
from runtime.mongo import Mongo

MOMENT = datetime(2026, 11, 20, tzinfo=UTC)
SCHEMA = default_schema()
NAMES = ("hour", "prior_score", "list_size")


def bundle(leaves: int, version: str = "m") -> Bundle:
    random = np.random.default_rng(0)
    matrix = random.random((600, 3))
    dataset = lightgbm.Dataset(matrix, label=random.random(600))
    parameters = {"num_leaves": leaves, "min_data_in_leaf": 1, "num_threads": 1, "verbosity": -1}
    forest = lightgbm.train(parameters, dataset, 4).model_to_string().encode()
    passport = Passport(
        model_version=version,
        source="import",
        feature_names=NAMES,
        schema_hash=SCHEMA.hash,
        tree_count=4,
        data_start_time=MOMENT,
        data_end_time=MOMENT,
        slate_count=0,
        row_count=0,
        slices=(),
        metrics=(),
        top_features=(),
        label_gain=(),
        parameters=(),
        library_versions=(),
    )
    return Bundle.make(passport, forest, matrix[:20])


def test_a_small_forest_is_scored_by_the_compiled_scorer() -> None:
    scorer = prepare(bundle(31), SCHEMA, "m", budget_seconds=60)
    assert scorer.chosen.name == "forest"
    matrix = np.tile(SCHEMA.defaults, (20, 1))
    matrix[:, [SCHEMA.index[name] for name in NAMES]] = bundle(31).canned.matrix
    assert scorer.score(matrix).tolist() == bundle(31).canned.scores.tolist()


def test_lightgbm_scores_where_it_is_asked_for_and_that_is_no_fallback() -> None:
    chosen = prepare(bundle(65), SCHEMA, "m", budget_seconds=60, engine="lightgbm").chosen
    assert (chosen.name, chosen.fallback) == ("lightgbm", "")


def metric(name: str, label: str) -> float:
    of: dict[str, Any] = {"fallbacks": metrics.SCORER_FALLBACKS, "scorer": metrics.SCORER}
    return float(of[name].labels(label)._value.get())


async def test_metrics_say_what_scores_and_why(mongo: Mongo) -> None:
    registry = ModelRegistry(mongo)
    models = ModelLoader(registry, RankerNotes(registry, lambda: "here"), SCHEMA, poll_seconds=1, pinned_limit=0, budget_seconds=60)
    before = metric("fallbacks", "large_trees")
    await registry.publish(bundle(31, "small"), MOMENT)
    await registry.publish(bundle(65, "large"), MOMENT)
    await registry.promote("small", MOMENT)
    await models.poll()
    assert (metric("scorer", "forest"), metric("scorer", "lightgbm")) == (1, 0)
    assert metric("fallbacks", "large_trees") == before
    await registry.promote("large", MOMENT)
    await models.poll()
    assert (metric("scorer", "forest"), metric("scorer", "lightgbm")) == (0, 1)
    assert metric("fallbacks", "large_trees") == before + 1


async def test_the_compiled_scorer_can_be_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ranker.scoring.kernel", None)
    compiled_module.cache_clear()
    try:
        assert await compiled("auto") is None
        assert await compiled("lightgbm") is None
        with pytest.raises(Misconfigured, match="numba"):
            await compiled("forest")
    finally:
        compiled_module.cache_clear()
