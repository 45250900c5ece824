"""LambdaRank: learns what is there, the same each time, and stops where the validation slice says."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.models.bundle import read_forest
from ranker.training.baselines import figures
from ranker.training.data import Codebook, TrainingData
from ranker.training.lambdarank import Stopped, fit, scores
from ranker.training.settings import TrainerSettings

QUICK = TrainerSettings(num_boost_round=60, early_stopping_rounds=10, num_leaves=8, num_threads=2, learning_rate=0.1)
NAMES = ("good", "noise")


def columns(slates: int, *, seed: int, sign: float = 1.0) -> TrainingData:
    random = np.random.default_rng(seed)
    matrix = random.random((slates * 8, 2))
    labels = np.round(np.clip(sign * (matrix[:, 0] - 0.5) + 0.5 + random.normal(0, 0.1, len(matrix)), 0, 1), 1)
    return TrainingData(
        feature_names=NAMES,
        schema_hash="hash",
        matrix=matrix,
        labels=labels,
        positions=np.tile(np.arange(1, 9, dtype=np.int32), slates),
        items=np.zeros(slates * 8, dtype=np.int32),
        item_types=np.zeros(slates * 8, dtype=np.int32),
        surfaces=np.zeros(slates, dtype=np.int32),
        codebook=Codebook(items=("i",), item_types=("post",), surfaces=("home",)),
        offsets=np.arange(slates + 1, dtype=np.int64) * 8,
        show_times=np.arange(slates, dtype=np.int64),
        users=np.arange(slates, dtype=np.int64),
        ranking_ids=np.arange(slates).astype(object),
    )


TRAIN, VALIDATION, TEST = columns(150, seed=1), columns(40, seed=2), columns(40, seed=3)


def test_it_finds_the_feature_that_matters() -> None:
    fitted = fit(TRAIN, VALIDATION, QUICK)
    ndcg = figures(TEST, scores(fitted.forest, TEST, NAMES, num_threads=1))["ndcg_at_10"].mean()
    assert ndcg > figures(TEST, TEST.matrix[:, 1])["ndcg_at_10"].mean() + 0.1
    assert fitted.gains[0] > 5 * fitted.gains[1]
    assert b"feature_names=good noise" in fitted.forest


def test_the_same_data_give_the_same_bytes() -> None:
    assert fit(TRAIN, VALIDATION, QUICK).forest == fit(TRAIN, VALIDATION, QUICK).forest


def test_it_keeps_the_best_round_and_not_the_last() -> None:
    # The validation slice says the opposite of what is learned, so every round makes it worse.
    heard: list[int] = []
    fitted = fit(TRAIN, columns(40, seed=2, sign=-1.0), QUICK, on_round=heard.append)
    assert len(heard) < 60
    assert fitted.tree_count == read_forest(fitted.forest).num_trees() <= len(heard) - QUICK.early_stopping_rounds + 1


def test_going_on_keeps_the_trees_there_are() -> None:
    first = fit(TRAIN, VALIDATION, QUICK.model_copy(update={"num_boost_round": 5}))
    further = fit(columns(150, seed=8), VALIDATION, QUICK, continued=first.forest)
    assert further.tree_count > first.tree_count
    base, grown = read_forest(first.forest), read_forest(further.forest)
    np.testing.assert_array_equal(base.predict(TEST.matrix), grown.predict(TEST.matrix, num_iteration=first.tree_count))


def test_it_stops_when_asked() -> None:
    heard: list[int] = []
    with pytest.raises(Stopped):
        fit(TRAIN, VALIDATION, QUICK, on_round=heard.append, stopped=lambda: len(heard) == 3)
    assert heard == [0, 1, 2]
