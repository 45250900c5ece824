"""The value of a metric in one variant, and how sure it is. The user is the unit of every one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from server.inference.moments import Floats, Moments


class Kind(StrEnum):
    """What a metric is made of; the columns of its moments."""

    MEAN = "mean"
    """The mean over users of one value per user. Columns: the value."""
    PROPORTION = "proportion"
    """The share of users who did it: a value of 0 or 1 per user. Columns: the value."""
    RATIO = "ratio"
    """A sum over users divided by another, such as clicks by impressions. Columns: above the line, below the line."""

    @property
    def width(self) -> int:
        """Columns that the metric itself has; further ones are covariates."""
        return 2 if self is Kind.RATIO else 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A variant's value."""

    value: float
    variance: float
    """Of the value, not of users: the square of its standard error."""
    count: int
    """Users."""

    @property
    def standard_error(self) -> float:
        """The root of the variance."""
        return math.sqrt(self.variance)


def estimate(kind: Kind, moments: Moments) -> Estimate | None:
    """The value of a metric and its variance; None where it is not defined: too few users, or nothing below the line.

    MEAN: x̄, s² ÷ n with n − 1 in s². PROPORTION: p, p(1 − p) ÷ n. RATIO: by the delta method,

        R = ȳ ÷ d̄,   var R = (s_y² − 2·R·s_yd + R²·s_d²) ÷ (n·d̄²)

    Source: Deng, Knoblich and Lu, "Applying the delta method in metric analytics", KDD 2018, on clusters (users are the clusters).
    """
    if moments.count < 2:
        return None
    if kind is Kind.PROPORTION:
        share = float(moments.mean[0])
        return Estimate(share, max(share * (1.0 - share), 0.0) / moments.count, moments.count)
    direction = influence(kind, moments)
    if direction is None:
        return None
    columns = slice(0, kind.width)
    variance = float(direction @ moments.covariance[columns, columns] @ direction) / moments.count
    return Estimate(_value(kind, moments), max(variance, 0.0), moments.count)


def influence(kind: Kind, moments: Moments) -> Floats | None:
    """(width,) how a user's columns move the value, times n: 1 for a mean, (1 ÷ d̄, −R ÷ d̄) for a ratio; None where undefined."""
    if kind is not Kind.RATIO:
        return np.ones(1)
    below = float(moments.mean[1])
    return None if below <= 0 else np.array([1.0, -_value(kind, moments)]) / below


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Values with what users did before they were exposed taken out."""

    estimates: tuple[Estimate, ...]
    """In the order of the variants."""
    variance_reduction: float
    """How much smaller the variance of the difference is: 0 nothing, 1 everything. About ρ² of the metric with the covariates."""


def adjusted(kind: Kind, variants: Sequence[Moments]) -> Adjusted | None:
    """CUPED: the variants' values, freed from what their covariates (the columns after the metric's own) explain.

        Y_adj = Ȳ − θ·(X̄ − X̄ of all),   θ = Cov(X, X)⁻¹·Cov(X, Y),   var = (s_Y² − 2·θ·s_XY + θ·s_XX·θ) ÷ n

    θ comes from the variation within the variants, pooled. For a ratio, Y is its linearisation. A covariate is measured before the first
    exposure, or it takes a part of the effect with it; users of whom nothing is known before have 0.
    None where a value is not defined, or where there is no covariate that varies.

    Source: Deng, Xu, Kohavi and Walker, "Improving the sensitivity of online controlled experiments by utilizing pre-experiment data", WSDM
    2013, on control variates; with several covariates θ is the vector of a regression on them.
    """
    plain = [estimate(kind, moments) for moments in variants]
    directions = [influence(kind, moments) for moments in variants]
    own, others = slice(0, kind.width), slice(kind.width, None)
    if not variants or any(one is None for one in (*plain, *directions)):
        return None
    freedom = sum(moments.count - 1 for moments in variants)
    xx = sum((moments.products[others, others] for moments in variants), np.zeros(())) / freedom
    xy = sum((m.products[others, own] @ d for m, d in zip(variants, directions, strict=True) if d is not None), np.zeros(())) / freedom
    if xx.size == 0 or not np.any(np.diag(xx) > 0):
        return None
    theta = np.linalg.pinv(xx, hermitian=True) @ xy
    everyone = sum(moments.count for moments in variants)
    centre = sum((moments.sums[others] for moments in variants), np.zeros(())) / everyone
    estimates, before, after = [], 0.0, 0.0
    for moments, direction, raw in zip(variants, directions, plain, strict=True):
        assert direction is not None
        assert raw is not None
        covariance = moments.covariance
        explained = 2.0 * theta @ covariance[others, own] @ direction - theta @ covariance[others, others] @ theta
        variance = float(direction @ covariance[own, own] @ direction - explained) / moments.count
        value = raw.value - float(theta @ (moments.mean[others] - centre))
        estimates.append(Estimate(value, max(variance, 0.0), moments.count))
        before, after = before + raw.variance, after + max(variance, 0.0)
    return Adjusted(tuple(estimates), 1.0 - after / before if before > 0 else 0.0)


def _value(kind: Kind, moments: Moments) -> float:
    return float(moments.mean[0] / moments.mean[1]) if kind is Kind.RATIO else float(moments.mean[0])
