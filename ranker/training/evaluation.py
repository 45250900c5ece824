"""How good a ranking was: NDCG, average precision and reciprocal rank per slate, means per user, intervals over users.

NDCG is that of Järvelin and Kekäläinen (2002) with gain `2^(4·label) − 1` and discount `1 / log2(position + 1)`. Items with equal
scores share the discounts of the positions they take together (McSherry and Najork, 2008): the expectation over all orders of the
tie, so that a ranker that says the same of everything is exactly as good as chance, whatever order the slate was shown in.

Average precision and the reciprocal rank of the first relevant item know two kinds of items only: relevant is one with a label of a click's
at least. Ties are expectations here, too; a slate without a relevant item has neither.

The user is the unit: a slate counts within its user's mean, each user counts once, and intervals resample users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from ranker.training.labels import gains

CUTOFFS = (5, 10)
"""NDCG is reported at these positions."""

NDCG_AT_5, NDCG_AT_10, MAP, MRR = "ndcg_at_5", "ndcg_at_10", "map", "mrr"
FIGURES = (NDCG_AT_5, NDCG_AT_10, MAP, MRR)
"""What is measured of a ranking, under the names in the reports."""

RELEVANT_LABEL = 0.4
"""The least label of a relevant item: a click's."""

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
    return _ndcg(_Order.by(scores, offsets), _Order.by(labels, offsets), gains(labels), cutoff)


def slate_precision(
    scores: NDArray[np.float64], labels: NDArray[np.float64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision, and the reciprocal rank of the first relevant item, of each slate; arguments as of `slate_ndcg`.

    Returns two of (slates,) float64; NaN where no item is relevant. Within a tie of n items of which r are relevant, that begins behind
    t items of which b are relevant, any one of them stands k-th of all with r / n, and (k − t − 1)(r − 1) / (n − 1) relevant ones of the
    tie stand before it on average; the first relevant one is the p-th of the tie with C(n − p, r − 1) / C(n, r).
    """
    return _precision(_Order.by(scores, offsets), labels)


def slate_figures(scores: NDArray[np.float64], labels: NDArray[np.float64], offsets: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Each of `FIGURES` of each slate, (slates,) float64; arguments as of `slate_ndcg`."""
    order, ideal, gain = _Order.by(scores, offsets), _Order.by(labels, offsets), gains(labels)
    mean_precision, reciprocal = _precision(order, labels)
    return {
        **{f"ndcg_at_{cutoff}": _ndcg(order, ideal, gain, cutoff) for cutoff in CUTOFFS},
        MAP: mean_precision,
        MRR: reciprocal,
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """Rows with the largest scores first within their slate."""

    rows: NDArray[np.int64]
    """(rows,) int64, the row in each place."""
    slates: NDArray[np.int64]
    """(rows,) int64, the slate of each place."""
    ties: NDArray[np.int64]
    """(rows,) int64, the tie of each place, counted from 0."""
    offsets: NDArray[np.int64]

    @classmethod
    def by(cls, scores: NDArray[np.float64], offsets: NDArray[np.int64]) -> _Order:
        """By `scores`, NaN last."""
        sizes = np.diff(offsets)
        slates = np.repeat(np.arange(sizes.size), sizes)
        said = np.where(np.isnan(scores), -np.inf, scores)
        rows = np.lexsort((-said, slates))
        ordered = said[rows]
        begins = np.ones(slates.size, dtype=bool)
        begins[1:] = (ordered[1:] != ordered[:-1]) | (slates[1:] != slates[:-1])
        return cls(rows, slates, np.cumsum(begins) - 1, offsets)


def _ndcg(order: _Order, ideal: _Order, gain: NDArray[np.float64], cutoff: int) -> NDArray[np.float64]:
    best, reached = _discounted(ideal, gain, cutoff), _discounted(order, gain, cutoff)
    return np.where(best > 0, reached / np.where(best > 0, best, 1.0), np.nan)


def _discounted(order: _Order, gain: NDArray[np.float64], cutoff: int) -> NDArray[np.float64]:
    """DCG@cutoff of each slate in that order, (slates,) float64."""
    sizes = np.diff(order.offsets)
    if not order.rows.size:
        return np.zeros(sizes.size)
    positions = np.arange(order.rows.size) - np.repeat(order.offsets[:-1], sizes)
    discounts = np.where(positions < cutoff, 1.0 / np.log2(positions + 2.0), 0.0)
    mean_gain = np.bincount(order.ties, weights=gain[order.rows]) / np.bincount(order.ties)
    return np.asarray(np.bincount(order.slates, weights=mean_gain[order.ties] * discounts, minlength=sizes.size), dtype=np.float64)


def _precision(order: _Order, labels: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count, slates, ties = order.offsets.size - 1, order.slates, order.ties
    if not order.rows.size:
        return np.full(count, np.nan), np.full(count, np.nan)
    relevant = labels[order.rows] >= RELEVANT_LABEL - 1e-9
    total = np.bincount(slates, weights=relevant, minlength=count)
    places = np.arange(order.rows.size)
    tie_begin = np.searchsorted(ties, ties)
    n, r = np.bincount(ties)[ties].astype(np.float64), np.bincount(ties, weights=relevant)[ties]
    before = np.concatenate(([0.0], np.cumsum(relevant)))
    slate_begin = order.offsets[:-1][slates]
    b = before[tie_begin] - before[slate_begin]
    k, within = (places - slate_begin + 1).astype(np.float64), (places - tie_begin + 1).astype(np.float64)
    precision = r / n * (b + (within - 1) * (r - 1) / np.maximum(n - 1, 1) + 1) / k
    # The first relevant one lies in the first tie that has any; a tie of one needs no binomials.
    reciprocal = np.where((b == 0) & (r > 0) & (n == 1), 1.0 / k, 0.0)
    first = np.flatnonzero((b == 0) & (r > 0) & (n > 1) & (within <= n - r + 1))
    if first.size:
        among, chosen, place = n[first], r[first].astype(np.float64), within[first]
        chance = np.exp(_log_choose(among - place, chosen - 1) - _log_choose(among, chosen))
        reciprocal[first] = chance / k[first]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_precision = np.bincount(slates, weights=precision, minlength=count) / total
    return mean_precision, np.where(total > 0, np.bincount(slates, weights=reciprocal, minlength=count), np.nan)


def _log_choose(n: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), dtype=np.float64)


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
