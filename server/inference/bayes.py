"""Which variant is probably best, and what a wrong choice would cost, under flat priors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special

from server.inference.difference import Difference
from server.inference.estimate import Estimate
from server.inference.moments import Floats


class Posterior(Protocol):
    """What is known of a true value: `Normal`, `Beta`, or a frozen distribution of scipy."""

    def cdf(self, x: Floats) -> Floats:
        """P(true value ≤ x)."""
        ...

    def ppf(self, q: Floats) -> Floats:
        """Quantiles."""
        ...

    def mean(self) -> float:
        """Its expectation."""
        ...


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal posterior: that of a mean over many users under a flat prior."""

    centre: float
    error: float

    def cdf(self, x: Floats) -> Floats:
        """P(true value ≤ x)."""
        return np.asarray(special.ndtr((x - self.centre) / self.error), dtype=np.float64)

    def ppf(self, q: Floats) -> Floats:
        """Quantiles."""
        return np.asarray(self.centre + self.error * special.ndtri(q), dtype=np.float64)

    def mean(self) -> float:
        """Its expectation."""
        return self.centre


@dataclass(frozen=True, slots=True)
class Beta:
    """A posterior of a share."""

    a: float
    b: float

    def cdf(self, x: Floats) -> Floats:
        """P(true value ≤ x)."""
        return np.asarray(special.betainc(self.a, self.b, np.clip(x, 0.0, 1.0)), dtype=np.float64)

    def ppf(self, q: Floats) -> Floats:
        """Quantiles."""
        return np.asarray(special.betaincinv(self.a, self.b, q), dtype=np.float64)

    def mean(self) -> float:
        """Its expectation."""
        return self.a / (self.a + self.b)


REACH = 8.5
NODES = 601
"""Per posterior, standard normal quantiles from −REACH to REACH: the integrals below are right to better than 3e-5."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Of each variant, in order."""

    best: Floats
    """(n_variants,) the probability that its true value is the highest; they add up to 1."""
    loss: Floats
    """(n_variants,) the expected loss of choosing it: E[the highest true value − its own], in units of the metric."""


def chance_to_win(found: Difference) -> float:
    """The probability that the true difference is above 0: Φ(value ÷ se), a flat prior on the difference.

    Source: Gelman et al., "Bayesian data analysis", 3rd edition.
    """
    return float(special.ndtr(found.value / found.standard_error))


def outlook(estimates: Sequence[Estimate]) -> Outlook:
    """By normal posteriors around the values, as flat priors and many users give them."""
    return outlook_of([Normal(one.value, max(one.standard_error, 1e-300)) for one in estimates])


def outlook_of(posteriors: Sequence[Posterior]) -> Outlook:
    """By any independent posteriors, by numerical integration: no draws, the same answer every time.

        P(i best) = ∫ f_i(x) Π_{j≠i} F_j(x) dx,   loss_i = E[max] − E[i],   E[max] = Σ_i ∫ x f_i(x) Π_{j≠i} F_j(x) dx

    Source: Scott, "A modern Bayesian look at the multi-armed bandit", Applied Stochastic Models in Business and Industry 26, 2010; the loss
    as in Stucchio, "Bayesian A/B testing at VWO", 2015.
    """
    if len(posteriors) == 1:
        return Outlook(np.ones(1), np.zeros(1))
    levels = special.ndtr(np.linspace(-REACH, REACH, NODES))
    best, highest = np.empty(len(posteriors)), 0.0
    for index, posterior in enumerate(posteriors):
        # In the quantiles u of this posterior: ∫ f(x) g(x) dx = ∫ g(F⁻¹(u)) du; every other one's own nodes keep its steps in sight.
        others = [other for place, other in enumerate(posteriors) if place != index]
        u = np.unique(np.clip(np.concatenate([levels, *(posterior.cdf(other.ppf(levels)) for other in others)]), 1e-17, 1.0 - 1e-16))
        x = posterior.ppf(u)
        under = np.prod([other.cdf(x) for other in others], axis=0)
        best[index] = np.trapezoid(under, u)
        highest += float(np.trapezoid(x * under, u))
    means = np.array([float(posterior.mean()) for posterior in posteriors])
    best /= math.fsum(best)
    return Outlook(best, np.maximum(highest - means, 0.0))
