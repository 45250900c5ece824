"""A bundle tried before it serves: files, features, finite scores, speed, and warm."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from ranker.features.columns import Floats
from ranker.features.schema import FeatureSchema
from ranker.models.bundle import BadBundle, Bundle
from ranker.models.forest import check_forest
from ranker.scoring.engine import EngineChoice, choose_engine
from ranker.scoring.scorer import ForestScorer

TRIAL_ROWS: Final = 100
"""Candidates that a model is tried on."""

TRIALS: Final = 5


class TooSlow(Exception):
    """A model takes longer than its budget; the sentence says by how much."""


def prepare(
    bundle: Bundle,
    schema: FeatureSchema,
    version: str,
    *,
    budget_seconds: float,
    engine: EngineChoice = "auto",
    clock: Callable[[], float] = time.thread_time,
) -> ForestScorer:
    """A bundle as a scorer that is known to work. For a thread: a large forest takes seconds.

    In order: sha256 of each file; a forest that can be walked, whose scores are finite whatever it is given; the canned slate, scored
    again; what walks its trees here, with LightGBM's bits; features that `schema` has; finite scores of rows that are nothing but missing;
    the time of TRIAL_ROWS candidates. What it takes to score is computed on the way, so the first request finds it warm.

    `clock` counts the processor time of this thread, in seconds, so that a busy machine does not make a model slow.

    Raises:
        BadBundle: its files do not agree, or it gives scores that are not finite.
        UnknownFeatures: it reads features that `schema` does not have.
        TooSlow: it takes more than `budget_seconds` for TRIAL_ROWS candidates.
    """
    bundle.verify_hashes()
    check_forest(bundle.forest)
    booster = bundle.verify()
    chosen = choose_engine(booster, wanted=engine, known=bundle.canned.matrix)
    scorer = ForestScorer(booster, bundle.passport.feature_names, schema, version=version, chosen=chosen)
    rows = trial_rows(bundle, schema)
    for matrix in (rows, np.full_like(rows, np.nan), np.zeros_like(rows)):
        if not np.isfinite(scorer.score(matrix)).all():
            raise BadBundle("the forest gives scores that are not finite", reason="NOT_FINITE")
    scorer.explain(rows[:1], beside=rows)
    seconds = scoring_seconds(scorer.score, rows, enough_seconds=budget_seconds, clock=clock)
    if seconds > budget_seconds:
        raise TooSlow(
            f"scoring {TRIAL_ROWS} candidates takes {seconds * 1000:.3g} ms here, and ranker.model_budget_seconds allows "
            f"{budget_seconds * 1000:.3g} ms; train fewer or smaller trees, or allow more"
        )
    return scorer


def trial_rows(bundle: Bundle, schema: FeatureSchema) -> Floats:
    """(TRIAL_ROWS, n_features) float64 with the schema's columns: the canned slate over and over, defaults where it has no column."""
    canned = bundle.canned.matrix
    rows: Floats = np.tile(schema.defaults, (TRIAL_ROWS, 1))
    columns = [schema.index[name] for name in bundle.passport.feature_names]
    rows[:, columns] = canned[np.arange(TRIAL_ROWS) % len(canned)]
    return rows


def scoring_seconds(score: Callable[[Floats], Floats], rows: Floats, *, enough_seconds: float, clock: Callable[[], float]) -> float:
    """The least time that scoring `rows` took in a few trials; trials end when one took no more than `enough_seconds`."""
    least = float("inf")
    for _ in range(TRIALS):
        began = clock()
        score(rows)
        least = min(least, clock() - began)
        if least <= enough_seconds:
            break
    return least
