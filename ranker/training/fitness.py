"""Whether a model may serve for reasons other than its figures: its files, its speed, its size, the data it saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.models.bundle import BadBundle, Bundle, raw_scores
from ranker.models.forest import check_forest
from ranker.models.passport import Passport
from ranker.models.trial import TRIAL_ROWS, scoring_seconds

SAMPLED_ROWS = 1_000
"""Rows that tell most columns to vary, before all rows are looked at."""

EVERY_FEATURE = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a model may cost."""

    score_seconds: float
    """Processor time of TRIAL_ROWS candidates on one thread."""
    byte_count: int
    """Size of the packed bundle."""
    may_become_constant: tuple[str, ...] = ()
    """Features that are no fault when they stop varying; `*`: all."""


def constant_features(matrix: NDArray[np.float64], names: Iterable[str]) -> tuple[str, ...]:
    """Names of the columns of (rows, features) float64 that have one value only, NaN being a value; in the order of the columns."""
    if not len(matrix):
        return tuple(names)
    columns = np.arange(matrix.shape[1])
    for rows in (matrix[:SAMPLED_ROWS], matrix):
        columns = np.array([column for column in columns if _constant(rows[:, column])], dtype=np.int64)
    chosen = set(columns.tolist())
    return tuple(name for column, name in enumerate(names) if column in chosen)


def _constant(values: NDArray[np.float64]) -> bool:
    first = values[0]
    return bool(np.isnan(values).all() if np.isnan(first) else (values == first).all())


def faults(bundle: Bundle, champion: Passport | None, limits: Limits, *, clock: Callable[[], float] = time.thread_time) -> list[str]:
    """What keeps the model from serving, each in words.

    `clock` counts the processor time of this thread, in seconds.
    """
    found: list[str] = []
    try:
        check_forest(bundle.forest)  # as rankers do, who would refuse it
        booster = bundle.verify()
    except BadBundle as error:
        return [error.message]
    size = len(bundle.pack())
    if size > limits.byte_count:
        found.append(f"its bundle has {size:,} bytes, and trainer.max_model_bytes allows {limits.byte_count:,}")
    canned = bundle.canned.matrix
    rows = canned[np.arange(TRIAL_ROWS) % len(canned)]
    seconds = scoring_seconds(lambda matrix: raw_scores(booster, matrix), rows, enough_seconds=limits.score_seconds, clock=clock)
    if seconds > limits.score_seconds:
        found.append(
            f"scoring {TRIAL_ROWS} candidates takes {seconds * 1000:.3g} ms, and ranker.model_budget_seconds allows "
            f"{limits.score_seconds * 1000:.3g} ms"
        )
    if new := newly_constant(bundle.passport, champion, limits.may_become_constant):
        found.append(
            f"features that varied for the champion no longer do: {', '.join(new)}; mend what sends them, or name them in "
            "trainer.may_become_constant"
        )
    return found


def newly_constant(passport: Passport, champion: Passport | None, allowed: Iterable[str]) -> tuple[str, ...]:
    """Features of which the model has seen one value only, and the champion several."""
    if champion is None or champion.constant_features is None or EVERY_FEATURE in (expected := set(allowed)):
        return ()
    varied = set(champion.feature_names) - set(champion.constant_features) - expected
    return tuple(name for name in passport.constant_features or () if name in varied)
