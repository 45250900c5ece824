"""Intervals of rates."""

from __future__ import annotations

import math

from rankloop.v1.stats_pb2 import Interval

LEVEL = 0.95
Z = 1.959963984540054
"""The standard normal quantile at 1 − (1 − LEVEL) ÷ 2."""


def wilson(successes: int, trials: int) -> Interval | None:
    """The score interval of a proportion (Wilson 1927, eq. 4); None without trials."""
    if trials <= 0:
        return None
    share = successes / trials
    spread = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    centre, scale = share + Z * Z / (2 * trials), 1 + Z * Z / trials
    # At 0 and at 1 the ends are exact; rounding must not leave them a hair off.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return Interval(low=low, high=high, level=LEVEL)


def wilson_of_ratio(part: int, whole: int) -> Interval | None:
    """The same of a ratio that need not be a proportion: None where it is above 1."""
    return wilson(part, whole) if part <= whole else None


def wilson_low(successes: float, trials: int) -> float:
    """The lower end of that interval, 0 without trials. Also of a mean of values within 0 to 1, `successes` their sum: their variance is at
    most that of a proportion, so it is on the safe side."""
    if trials <= 0 or successes <= 0:
        return 0.0
    share = min(1.0, successes / trials)
    spread = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    return (share + Z * Z / (2 * trials) - spread) / (1 + Z * Z / trials)
