"""Where attention falls with the position and clicks are the only label, taking positions out of what is learned gains on average."""

from __future__ import annotations

import numpy as np

from ranker.training.data import Codebook, TrainingData
from ranker.training.evaluation import slate_ndcg
from ranker.training.lambdarank import fit, scores
from ranker.training.settings import TrainerSettings

SEEDS, SLATES, HELD_OUT, ITEMS = 20, 500, 300, 8
SETTINGS = TrainerSettings(
    num_boost_round=30, early_stopping_rounds=30, num_leaves=6, learning_rate=0.15, num_threads=1, min_data_in_leaf=20
)


def clicked(seed: int) -> tuple[TrainingData, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Slates in the order of a prior that knows one of two features, seen less and less from the top down; and their true relevance."""
    rng = np.random.default_rng(seed)
    known, unknown = rng.normal(size=(2, SLATES, ITEMS))
    order = np.argsort(-(known + 0.3 * rng.normal(size=known.shape)), axis=1)
    known, unknown = np.take_along_axis(known, order, axis=1), np.take_along_axis(unknown, order, axis=1)
    relevance = 1 / (1 + np.exp(1.0 - 0.4 * known - 1.2 * unknown))
    attention = np.arange(1, ITEMS + 1) ** -1.0
    clicks = rng.random(known.shape) < attention * relevance
    clicks[~clicks.any(axis=1), 0] = True
    rows = SLATES * ITEMS
    data = TrainingData(
        feature_names=("known", "unknown"),
        schema_hash="s",
        matrix=np.column_stack([known.ravel(), unknown.ravel()]),
        labels=0.4 * clicks.ravel(),
        positions=np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), SLATES),
        items=np.zeros(rows, dtype=np.int32),
        item_types=np.zeros(rows, dtype=np.int32),
        surfaces=np.zeros(SLATES, dtype=np.int32),
        codebook=Codebook(items=("i",), item_types=("post",), surfaces=("home",)),
        offsets=np.arange(0, rows + 1, ITEMS),
        show_times=1000 * np.arange(SLATES),
        users=np.arange(SLATES),
        ranking_ids=np.array([f"r{number}" for number in range(SLATES)], dtype=np.object_),
    )
    return data, relevance.ravel()


def test_over_seeds_the_mean_gain_is_positive() -> None:
    gains = np.array([gain(seed) for seed in range(SEEDS)])
    # Means, not seeds: the gain of one seed has a spread of its own.
    assert gains.mean() > 2 * gains.std(ddof=1) / np.sqrt(SEEDS), gains


def gain(seed: int) -> float:
    """By true relevance, on slates that were not learned from."""
    data, relevance = clicked(seed)
    train, validation, test = data.part(0, HELD_OUT), data.part(HELD_OUT, HELD_OUT + 60), data.part(HELD_OUT + 60, SLATES)
    plain = fit(train, validation, SETTINGS)
    corrected = fit(train, validation, SETTINGS.model_copy(update={"position_bias": True}), rounds=max(1, plain.rounds_added))
    of_plain, of_corrected = (
        slate_ndcg(scores(one.forest, test, test.feature_names, num_threads=1), relevance[-test.row_count :], test.offsets, 3).mean()
        for one in (plain, corrected)
    )
    return float(of_corrected - of_plain)
