"""LambdaRank with LightGBM, so that the same data and parameters give the same trees.

Burges, "From RankNet to LambdaRank to LambdaMART" (MSR-TR-2010-82). Grades and gains are those of `labels`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.models.bundle import raw_scores, read_forest
from ranker.training.data import TrainingData
from ranker.training.evaluation import slate_ndcg
from ranker.training.labels import LABEL_GAIN, grades
from ranker.training.settings import TrainerSettings

TRUNCATION_LEVEL = 15
"""Pairs count where one of the two is among so many first: a little above the 10 that is reported."""

EVALUATED_AT = 10


class Stopped(Exception):
    """The training was asked to stop."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fitted:
    """What a training gave."""

    forest: bytes
    """LightGBM's text, up to the best round."""
    tree_count: int
    """Its trees, up to the best round."""
    rounds_added: int
    """Trees beyond those it went on from."""
    rounds_removed: int
    """Trees trained beyond the best round, and dropped again."""
    gains: tuple[float, ...]
    """Total gain of each feature's splits."""
    learning_curve: tuple[float, ...] = ()
    """LightGBM's NDCG@10 on the validation slice after each round that was trained, also those dropped again."""


def parameters(settings: TrainerSettings, row_count: int) -> dict[str, Any]:
    """What LightGBM is told to learn from so many rows. Nothing is left to chance or to the machine's load."""
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [EVALUATED_AT],
        "label_gain": list(LABEL_GAIN),
        "lambdarank_truncation_level": TRUNCATION_LEVEL,
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.num_leaves,
        "min_data_in_leaf": settings.min_data_in_leaf or min(100, max(5, row_count // 150)),
        "feature_fraction": settings.feature_fraction,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "bagging_by_query": True,
        "lambda_l2": settings.lambda_l2,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": settings.num_threads or os.cpu_count() or 1,
        "verbosity": -1,
    }


def fit(
    train: TrainingData,
    validation: TrainingData,
    settings: TrainerSettings,
    *,
    continued: bytes | None = None,
    rounds: int | None = None,
    on_round: Callable[[int], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Trains until the validation slice's NDCG@10 has not risen for `early_stopping_rounds`, and keeps the best round.

    `continued` is the forest to go on from (warm start), over the same features; where no further round is better on the validation
    slice than it is, it stays as it is. With `rounds`, so many are trained and kept, whatever the validation slice says. `on_round`
    hears of every round; `stopped` is asked.

    Raises:
        Stopped: `stopped` said so.
    """
    options = parameters(settings, train.row_count)

    trained = 0
    curve: dict[str, dict[str, list[float]]] = {}

    def each_round(environment: lightgbm.callback.CallbackEnv) -> None:
        nonlocal trained
        if stopped():
            raise Stopped
        trained += 1
        on_round(environment.iteration)

    base = None if continued is None else read_forest(continued)
    learned = _dataset(train, options, positions=settings.position_bias)
    callbacks: list[Callable[..., None]] = [lightgbm.record_evaluation(curve), each_round]
    if rounds is None:
        callbacks.append(lightgbm.early_stopping(settings.early_stopping_rounds, first_metric_only=True, verbose=False))
    booster = lightgbm.train(
        options,
        learned,
        num_boost_round=settings.num_boost_round if rounds is None else rounds,
        # LightGBM leaves equal scores in the order of the rows. In the order that was shown, a forest that says nothing yet would be
        # credited with that order, and training would stop too early.
        valid_sets=[_dataset(validation.shuffled(settings.seed), options, reference=learned)],
        valid_names=["validation"],
        init_model=base,
        callbacks=callbacks,
    )
    best = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
    forest = booster.model_to_string(num_iteration=best).encode()
    kept, begun = read_forest(forest), 0 if base is None else base.num_trees()
    if base is not None and rounds is None and _ndcg(kept, validation, options) <= _ndcg(base, validation, options):
        assert continued is not None
        forest, kept = continued, base
    gains = tuple(float(gain) for gain in kept.feature_importance(importance_type="gain"))
    added = kept.num_trees() - begun
    return Fitted(
        forest=forest,
        tree_count=kept.num_trees(),
        rounds_added=added,
        rounds_removed=trained - added,
        gains=gains,
        learning_curve=tuple(curve.get("validation", {}).get(f"ndcg@{EVALUATED_AT}", ())),
    )


def _ndcg(booster: lightgbm.Booster, data: TrainingData, options: dict[str, Any]) -> float:
    """Mean NDCG@10 over slates, ties as expectations."""
    said = raw_scores(booster, data.matrix, num_threads=options["num_threads"])
    return float(np.nanmean(slate_ndcg(said, data.labels, data.offsets, EVALUATED_AT)))


def _dataset(
    data: TrainingData, options: dict[str, Any], reference: lightgbm.Dataset | None = None, *, positions: bool = False
) -> lightgbm.Dataset:
    """With `positions`, a constant per position is learned beside the trees and left out of what they predict."""
    return lightgbm.Dataset(
        data.matrix,
        label=grades(data.labels),
        group=data.group_sizes,
        feature_name=list(data.feature_names),
        position=data.positions if positions else None,
        reference=reference,
        params=options,
    )


def scores(forest: bytes, data: TrainingData, feature_names: Sequence[str], *, num_threads: int) -> NDArray[np.float64]:
    """What a forest over `feature_names` says of every row, (rows,) float64."""
    return raw_scores(read_forest(forest), data.columns(feature_names), num_threads=num_threads or os.cpu_count() or 1)
