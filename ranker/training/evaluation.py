"""How good a ranking was: NDCG per slate, means per user, intervals over users.

NDCG is that of Järvelin and Kekäläinen (2002) with gain `2^(4·label) − 1` and discount `1 / log2(position + 1)`. Items with equal
scores share the discounts of the positions they take together (McSherry and Najork, 2008): the expectation over all orders of the
tie, so that a ranker that says the same of everything is exactly as good as chance, whatever order the slate was shown in.

The user is the unit: a slate counts within its user's mean, each user counts once, and intervals resample users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.training.labels import gains

CUTOFFS = (5, 10)
"""NDCG is reported at these positions."""

LEVEL = 0.95
"""Level of the intervals."""

RESAMPLED_AT_ONCE = 1_000_000
"""Draws held in memory at once."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its interval; without ends where fewer than two users stand behind it."""

    value: float
    low: float | None = None
    high: float | None = None


def slate_ndcg(scores: NDArray[np.float64], labels: NDArray[np.float64], offsets: NDArray[np.int64], cutoff: int) -> NDArray[np.float64]:
    """NDCG@cutoff of each slate.

    `scores` and `labels` are (rows,) float64, larger is better, NaN scores rank last; the rows of slate *s* are
    `offsets[s]:offsets[s + 1]`, `offsets` (slates + 1,) int64. Returns (slates,) float64; NaN where no label of the slate is above 0.
    """
    gain = gains(labels)
    ideal = _discounted(labels, gain, offsets, cutoff)
    reached = _discounted(np.where(np.isnan(scores), -np.inf, scores), gain, offsets, cutoff)
    with np.errstate(invalid="ignore"):
        return np.where(ideal > 0, reached / np.where(ideal > 0, ideal, 1.0), np.nan)


def _discounted(scores: NDArray[np.float64], gain: NDArray[np.float64], offsets: NDArray[np.int64], cutoff: int) -> NDArray[np.float64]:
    """DCG@cutoff of each slate, (slates,) float64, when its rows are ordered by `scores`, largest first."""
    sizes = np.diff(offsets)
    slates = np.repeat(np.arange(sizes.size), sizes)
    if not slates.size:
        return np.zeros(sizes.size)
    order = np.lexsort((-scores, slates))
    positions = np.arange(slates.size) - np.repeat(offsets[:-1], sizes)
    discounts = np.where(positions < cutoff, 1.0 / np.log2(positions + 2.0), 0.0)
    ordered, gained = scores[order], gain[order]
    begins = np.ones(slates.size, dtype=bool)
    begins[1:] = (ordered[1:] != ordered[:-1]) | (slates[1:] != slates[:-1])
    ties = np.cumsum(begins) - 1
    mean_gain = np.bincount(ties, weights=gained) / np.bincount(ties)
    return np.asarray(np.bincount(slates, weights=mean_gain[ties] * discounts, minlength=sizes.size), dtype=np.float64)


def user_means(values: NDArray[np.float64], users: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of each user's slates, by rising code of the user.

    `values` (slates,) float64 without NaN, `users` (slates,) int64 codes → (users,) float64.
    """
    _, codes = np.unique(users, return_inverse=True)
    return np.asarray(np.bincount(codes, weights=values) / np.bincount(codes), dtype=np.float64)


def bootstrap(columns: Mapping[str, NDArray[np.float64]], *, samples: int, seed: int) -> dict[str, Figure]:
    """The mean of each column over users, with its percentile bootstrap interval (Efron, 1979).

    Every column is (users,) float64, the same users in the same order: all of them see the same resamples, so the interval of a column
    of differences is paired.
    """
    if not columns:
        return {}
    table = np.column_stack(list(columns.values()))
    users = table.shape[0]
    means = table.mean(axis=0)
    if users < 2:
        return {name: Figure(float(mean)) for name, mean in zip(columns, means, strict=True)}
    random = np.random.default_rng(seed)
    resampled = np.empty((samples, table.shape[1]))
    together = max(1, RESAMPLED_AT_ONCE // users)
    for begin in range(0, samples, together):
        count = min(together, samples - begin)
        # How often each user was drawn, in each of `count` resamples: (count, users).
        drawn = random.integers(0, users, (count, users)) + np.arange(count)[:, np.newaxis] * users
        weights = np.bincount(drawn.ravel(), minlength=count * users).reshape(count, users)
        resampled[begin : begin + count] = weights @ table / users
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {name: Figure(float(means[i]), float(low[i]), float(high[i])) for i, name in enumerate(columns)}
