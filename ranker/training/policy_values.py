"""What a model's order would have earned, estimated from slates in which chance had a say.

The policy in question orders all candidates of a slate by the model, ties by item id, without diversification. It puts an item where it
was shown or it does not, so a target probability is 1 or 0. Rewards are the labels of impressions; that of an item at a position is taken
to depend on the item and the position, not on its neighbours (Li et al., KDD 2018, the item-position model).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.models.bundle import Bundle, raw_scores, read_forest
from ranker.training.off_policy import NO_RANDOMNESS, LoggedImpressions, PolicyValue, evaluate, refused
from ranker.training.policy_log import PolicyLog, read_policy_log
from runtime.mongo import Mongo

FOLDS = 2
GUESS_ROUNDS = 60


async def measured_values(
    mongo: Mongo, start: datetime, end: datetime, bundles: Mapping[str, Bundle], *, seed: int
) -> dict[str, PolicyValue]:
    """The value of each model's order on what was explored in [start, end)."""
    if not bundles:
        return {}
    names = tuple(sorted({name for bundle in bundles.values() for name in bundle.passport.feature_names}))
    log = await read_policy_log(mongo, start, end, names)
    places = {name: place for place, name in enumerate(names)}

    def values() -> dict[str, PolicyValue]:
        matrices = {
            ranker: (bundle, log.matrix[:, [places[name] for name in bundle.passport.feature_names]]) for ranker, bundle in bundles.items()
        }
        return policy_values(log, matrices, seed=seed)

    return await asyncio.to_thread(values)


def order_of(scores: NDArray[np.float64], log: PolicyLog) -> NDArray[np.int64]:
    """(rows,) int64: rows of the log as the policy would show them, slate by slate. `scores` (rows,) float64, NaN last."""
    finite = np.where(np.isnan(scores), -np.inf, scores)
    return np.lexsort((log.item_ids.astype(str), -finite, log.slate_codes)).astype(np.int64)


def policy_values(log: PolicyLog, models: Mapping[str, tuple[Bundle, NDArray[np.float64]]], *, seed: int) -> dict[str, PolicyValue]:
    """The value of each model's order. `models` has with each bundle the log's matrix in its columns, (rows, features) float64."""
    if not models:
        return {}
    if not log.rewards.size:
        return dict.fromkeys(models, _nothing(log))
    fold = log.slate_codes % FOLDS
    found = {}
    for name, (bundle, matrix) in models.items():
        order = order_of(raw_scores(read_forest(bundle.forest), matrix, num_threads=os.cpu_count() or 1), log)
        # Rows of the log stand by position, so the row at place p of the order would be shown where row p was.
        targets = (order == np.arange(order.size)).astype(np.float64)
        guesses, target_guesses = _guesses(log, matrix, order, fold, seed)
        impressions = LoggedImpressions(
            rewards=log.rewards,
            propensities=log.propensities,
            targets=targets,
            clusters=log.slate_codes,
            guesses=guesses,
            target_guesses=target_guesses,
        )
        found[name] = evaluate(impressions)
    return found


def _guesses(
    log: PolicyLog, matrix: NDArray[np.float64], order: NDArray[np.int64], fold: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Guessed rewards of the impressions and of what the policy would show in their places, each by a model of the other slates."""
    positions = log.positions.astype(np.float64)[:, np.newaxis]
    shown, instead = np.hstack([matrix, positions]), np.hstack([matrix[order], positions])
    guesses, target_guesses = np.zeros(log.rewards.size), np.zeros(log.rewards.size)
    options: dict[str, Any] = {
        "objective": "regression",
        "learning_rate": 0.1,
        "num_leaves": 15,
        "min_data_in_leaf": 50,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": os.cpu_count() or 1,
        "verbosity": -1,
    }
    for held_out in range(FOLDS):
        inside = fold == held_out
        if inside.all() or not inside.any():
            continue
        booster = lightgbm.train(options, lightgbm.Dataset(shown[~inside], label=log.rewards[~inside]), num_boost_round=GUESS_ROUNDS)
        guesses[inside] = booster.predict(shown[inside])
        target_guesses[inside] = booster.predict(instead[inside])
    return guesses, target_guesses


def _nothing(log: PolicyLog) -> PolicyValue:
    if log.slates_of_more_candidates:
        return refused(
            "CANDIDATES_NOT_SHOWN",
            f"{log.slates_of_more_candidates} explored slates did not show all of their candidates, so it is not known what another order "
            "would have shown in their places; explore where all candidates are shown (top_k = 0)",
        )
    if log.has_propensities:
        return refused("NO_RANDOMNESS", NO_RANDOMNESS)
    return refused("NO_PROPENSITIES", "no slate of the test slice has logged propensities: nothing can be said of another policy")
