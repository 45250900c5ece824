"""The always-valid test and interval: right at every look, however often somebody looks.

With n users in both variants, se the standard error of the difference and s² = se²·n:

    ρ²         = (−2·ln α + ln(−2·ln α + 1)) ÷ N
    half-width = √(s² · 2(nρ² + 1) · ln(√(nρ² + 1) ÷ α) ÷ (nρ)²)
    p          = min(1, 1 ÷ E),   E = exp(ρ²·z²·n ÷ (2(nρ² + 1))) ÷ √(nρ² + 1),   z = difference ÷ se

Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", arXiv
2103.06476: the Gaussian-mixture sequence and its choice of ρ. E is the mixture martingale that the interval inverts, so that p ≤ α where,
and only where, the interval leaves 0 out. "Asymptotic": it holds from enough users on, which is why a readout asks for 25 conversions per
variant first, and uses it on the absolute or the log-ratio scale: on the relative scale it is too often wrong at low rates.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from server.inference.difference import LEVEL, Difference, Result
from server.inference.moments import Floats

TUNING_USERS = 5_000
"""N: the number of users at which the interval is tightest, about. It is chosen before the experiment, never after a look."""


def mixing_variance(level: float, tuning_users: float) -> float:
    """ρ²."""
    return (-2.0 * math.log(level) + math.log(-2.0 * math.log(level) + 1.0)) / tuning_users


def half_widths(standard_errors: ArrayLike, counts: ArrayLike, level: float = LEVEL, tuning_users: float = TUNING_USERS) -> Floats:
    """Half the intervals, of arrays of any one shape."""
    grown = np.asarray(counts, dtype=np.float64) * mixing_variance(level, tuning_users)
    widths = np.sqrt(2.0 * (grown + 1.0) * np.log(np.sqrt(grown + 1.0) / level) / grown)
    return np.asarray(np.asarray(standard_errors) * widths, dtype=np.float64)


def p_values(z: ArrayLike, counts: ArrayLike, level: float = LEVEL, tuning_users: float = TUNING_USERS) -> Floats:
    """The always-valid p-values of z = difference ÷ standard error, of arrays of any one shape."""
    grown = np.asarray(counts, dtype=np.float64) * mixing_variance(level, tuning_users)
    evidence = grown * np.square(z) / (2.0 * (grown + 1.0)) - 0.5 * np.log(grown + 1.0)
    return np.asarray(np.exp(-np.maximum(evidence, 0.0)), dtype=np.float64)


def sequential(found: Difference, level: float = LEVEL, tuning_users: float = TUNING_USERS) -> Result:
    """The always-valid interval and p-value of a difference."""
    spread = float(half_widths(found.standard_error, found.count, level, tuning_users))
    p = float(p_values(found.value / found.standard_error, found.count, level, tuning_users))
    return Result(f"always_valid_{found.scale}", found.value, found.value - spread, found.value + spread, p)
