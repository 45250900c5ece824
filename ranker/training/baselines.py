"""What a model has to stand beside: the order shown, the caller's own scores, chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranker.training.data import TrainingData
from ranker.training.evaluation import CUTOFFS, slate_ndcg

RANDOM_SEEDS = 20
"""Orders drawn for the random baseline; their mean is reported."""

PRIOR_SCORE = "prior_score"
"""The feature that logs the caller's own confidence."""

SlateFigures = dict[int, NDArray[np.float64]]
"""NDCG of each slate, (slates,) float64, by cutoff."""


def figures(data: TrainingData, scores: NDArray[np.float64]) -> SlateFigures:
    """NDCG of the slates when their items are ordered by `scores` ((rows,) float64), largest first."""
    return {cutoff: slate_ndcg(scores, data.labels, data.offsets, cutoff) for cutoff in CUTOFFS}


def as_shown(data: TrainingData) -> SlateFigures:
    """The order the users saw. It has an edge that no other ranker has: people look at the top first, so labels follow positions."""
    return figures(data, -data.positions.astype(np.float64))


def prior_score(data: TrainingData) -> SlateFigures | None:
    """The callers' scores as they were logged; None where none ever was."""
    scores = data.columns([PRIOR_SCORE])[:, 0]
    return None if np.isnan(scores).all() else figures(data, scores)


def at_random(data: TrainingData, *, seed: int) -> SlateFigures:
    """The mean over `RANDOM_SEEDS` random orders."""
    drawn = [figures(data, np.random.default_rng([seed, draw]).random(data.row_count)) for draw in range(RANDOM_SEEDS)]
    return {cutoff: np.asarray(np.mean([one[cutoff] for one in drawn], axis=0), dtype=np.float64) for cutoff in CUTOFFS}
