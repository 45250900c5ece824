"""What a model has to stand beside: the order shown, the caller's own scores, popularity, chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranker.training.data import TrainingData
from ranker.training.evaluation import slate_figures

RANDOM_SEEDS = 20
"""Orders drawn for the random baseline; their mean is reported."""

PRIOR_SCORE = "prior_score"
"""The feature that logs the caller's own confidence."""

SlateFigures = dict[str, NDArray[np.float64]]
"""Each figure of `FIGURES` of each slate, (slates,) float64; NaN where a slate has none."""


def figures(data: TrainingData, scores: NDArray[np.float64]) -> SlateFigures:
    """What is measured of the slates when their items are ordered by `scores` ((rows,) float64), largest first."""
    return slate_figures(scores, data.labels, data.offsets)


def as_shown(data: TrainingData) -> SlateFigures:
    """The order the users saw. It has an edge that no other ranker has: people look at the top first, so labels follow positions."""
    return figures(data, -data.positions.astype(np.float64))


def prior_score(data: TrainingData) -> SlateFigures | None:
    """The callers' scores as they were logged; None where none ever was."""
    scores = data.columns([PRIOR_SCORE])[:, 0]
    return None if np.isnan(scores).all() else figures(data, scores)


def popularity(data: TrainingData, *, before: tuple[TrainingData, ...]) -> SlateFigures:
    """By the sum of the labels that each item got in the slices `before`, which have the same codebook; an item never seen has 0."""
    items = len(data.codebook.items)
    earned = np.zeros(items)
    for part in before:
        earned += np.bincount(part.items, weights=part.labels, minlength=items)
    return figures(data, earned[data.items])


def at_random(data: TrainingData, *, seed: int) -> SlateFigures:
    """The mean over `RANDOM_SEEDS` random orders."""
    drawn = [figures(data, np.random.default_rng([seed, draw]).random(data.row_count)) for draw in range(RANDOM_SEEDS)]
    return {name: np.asarray(np.mean([one[name] for one in drawn], axis=0), dtype=np.float64) for name in drawn[0]}
