"""Users whose truth is known: what a metric takes as values, and how often.

Every population has finitely many values, so that any number of users is drawn exactly by one multinomial draw of how many have which
value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from server.inference.estimate import Kind
from server.inference.moments import Floats

IMPRESSIONS = (5, 10, 20, 40)
IMPRESSION_SHARES = (0.4, 0.3, 0.2, 0.1)
"""Impressions per user, and how many users have so many."""


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """What users do."""

    kind: Kind
    cells: Floats
    """(n_cells, kind.width) the columns of a user."""
    shares: Floats
    """(n_cells,) of the users; they add up to 1."""

    @property
    def value(self) -> float:
        """The metric's true value."""
        means = self.shares @ self.cells
        return float(means[0] / means[1]) if self.kind is Kind.RATIO else float(means[0])

    @property
    def variance(self) -> float:
        """Of one user's value; for a ratio of its linearisation. The variance of the metric over n users is this ÷ n."""
        means = self.shares @ self.cells
        line = (self.cells[:, 0] - self.value * self.cells[:, 1]) / means[1] if self.kind is Kind.RATIO else self.cells[:, 0] - means[0]
        return float(self.shares @ line**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A metric that can be simulated."""

    name: str
    make: Callable[[float, float], Population]
    """From a base rate and a lift (0.1: ten in a hundred more)."""
    rates: tuple[float, ...]
    """Base rates at which it is simulated; 1 where it has none."""


def conversion(rate: float, lift: float) -> Population:
    """Users who do it or do not."""
    share = rate * (1 + lift)
    return Population(Kind.PROPORTION, np.array([[0.0], [1.0]]), np.array([1 - share, share]))


def clicks(rate: float, lift: float) -> Population:
    """Clicks by impressions, of users who differ in how many they get and in how they click: Beta(2, 2 ÷ rate − 2)."""
    share = rate * (1 + lift)
    cells, shares = [], []
    for shown, users in zip(IMPRESSIONS, IMPRESSION_SHARES, strict=True):
        clicked = np.arange(shown + 1)
        cells.append(np.stack([clicked, np.full(shown + 1, shown)], axis=1))
        shares.append(users * stats.betabinom.pmf(clicked, shown, 2.0, 2.0 / share - 2.0))
    return _possible(Kind.RATIO, np.concatenate(cells).astype(np.float64), np.concatenate(shares))


def labels(rate: float, lift: float) -> Population:
    """The sum of labels per user: most have none."""
    amounts, weights = np.array([0.1, 0.4, 0.6, 0.8, 1.0, 1.8, 3.0]), np.array([0.25, 0.3, 0.15, 0.12, 0.1, 0.06, 0.02])
    return _rarely(rate * (1 + lift), amounts, weights)


def revenue(rate: float, lift: float) -> Population:
    """What users spend: most nothing, the others log-normal (median 30, σ 1), winsorised at the 99.9 % quantile."""
    levels = (np.arange(200) + 0.5) / 200
    amounts = np.minimum(30 * np.exp(stats.norm.ppf(levels)), 30 * np.exp(stats.norm.ppf(0.999)))
    return _rarely(rate * (1 + lift), amounts, np.full(200, 1 / 200))


def rating(rate: float, lift: float) -> Population:
    """The mean stars of a user."""
    del rate
    stars = np.arange(1.0, 5.01, 0.5)
    shares = np.array([0.05, 0.03, 0.08, 0.07, 0.17, 0.15, 0.2, 0.13, 0.12])
    return Population(Kind.MEAN, (stars * (1 + lift))[:, None], shares / shares.sum())


def delay(rate: float, lift: float) -> Population:
    """Seconds to an action, or of an answer: log-normal, σ 1.2."""
    del rate
    levels = (np.arange(100) + 0.5) / 100
    return Population(Kind.MEAN, (60 * (1 + lift) * np.exp(1.2 * stats.norm.ppf(levels)))[:, None], np.full(100, 0.01))


RATES = (0.002, 0.01, 0.05, 0.2)
FIGURES = (
    Figure(name="conversion", make=conversion, rates=RATES),
    Figure(name="clicks by impressions", make=clicks, rates=RATES),
    Figure(name="labels per user", make=labels, rates=RATES),
    Figure(name="revenue per user", make=revenue, rates=RATES),
    Figure(name="stars per user", make=rating, rates=(1.0,)),
    Figure(name="seconds to action", make=delay, rates=(1.0,)),
)


def users_per_variant(rate: float) -> int:
    """Users of one variant at the last look: some hundreds of conversions at any rate."""
    return int(round(max(3_000, 300 / rate) * 1.0, -2))


def _rarely(share: float, amounts: Floats, weights: Floats) -> Population:
    return Population(Kind.MEAN, np.concatenate([[0.0], amounts])[:, None], np.concatenate([[1 - share], share * weights]))


def _possible(kind: Kind, cells: Floats, shares: Floats) -> Population:
    kept = shares > 1e-12
    return Population(kind, cells[kept], shares[kept] / shares[kept].sum())
