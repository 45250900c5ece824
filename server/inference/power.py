"""How many users an experiment needs, and what a number of users can show.

    users per variant = (z_{1−α/2} + z_{power})² · (σ_a² + σ_b²) ÷ δ²          (unpooled; δ the difference to be found)

Source: Chow, Shao and Wang, "Sample size calculations in clinical research", on comparing two means and two proportions. A proportion has
σ² = p(1 − p), each side with its own p; a ratio has the variance of its linearisation per user, n·var R.
"""

from __future__ import annotations

import math

from scipy import special

from server.inference.difference import LEVEL

POWER = 0.8
FORMULA = "users per variant = (z(1 - alpha/2) + z(power))^2 * (variance_a + variance_b) / difference^2, unpooled normal approximation"


def users_per_variant(
    variance_a: float, variance_b: float, difference: float, *, level: float = LEVEL, power: float = POWER, comparisons: int = 1
) -> int:
    """Users that each variant needs to show a difference with this power.

    Args:
        variance_a: of one user's value in the control.
        variance_b: of one user's value in the variant.
        difference: to be found, in units of the metric; its sign does not matter.
        comparisons: variants held against the control; the level is shared among them (Bonferroni).

    Raises:
        ValueError: an argument is outside its range.
    """
    _check(level, power, comparisons)
    if not (math.isfinite(difference) and difference != 0):
        raise ValueError("the difference to be found is a finite number other than 0")
    if not (variance_a >= 0 and variance_b >= 0 and math.isfinite(variance_a + variance_b)):
        raise ValueError("variances are finite and not negative")
    return max(2, math.ceil(_z(level, power, comparisons) ** 2 * (variance_a + variance_b) / difference**2))


def users_per_variant_for_proportions(
    rate_a: float, rate_b: float, *, level: float = LEVEL, power: float = POWER, comparisons: int = 1, pooled: bool = False
) -> int:
    """Users that each variant needs to show that a share of users went from one rate to another.

    `pooled` gives the size for the pooled z test: (z_{1−α/2}·√(2·p̄(1 − p̄)) + z_power·√(p_a(1 − p_a) + p_b(1 − p_b)))² ÷ δ².
    Source: Fleiss, Levin and Paik, "Statistical methods for rates and proportions", on sample sizes, without the continuity correction.

    Raises:
        ValueError: an argument is outside its range.
    """
    if not (0 < rate_a < 1 and 0 < rate_b < 1):
        raise ValueError("rates are between 0 and 1")
    variance_a, variance_b, gap = rate_a * (1 - rate_a), rate_b * (1 - rate_b), rate_b - rate_a
    if not pooled:
        return users_per_variant(variance_a, variance_b, gap, level=level, power=power, comparisons=comparisons)
    _check(level, power, comparisons)
    if gap == 0:
        raise ValueError("the difference to be found is a finite number other than 0")
    middle = (rate_a + rate_b) / 2
    one, other = (float(special.ndtri(share)) for share in (1 - level / comparisons / 2, power))
    return math.ceil((one * math.sqrt(2 * middle * (1 - middle)) + other * math.sqrt(variance_a + variance_b)) ** 2 / gap**2)


def power_of(variance_a: float, variance_b: float, difference: float, users_a: int, users_b: int, *, level: float = LEVEL) -> float:
    """The chance to call a difference that is there: Φ(|δ| ÷ se − z_{1−α/2}) + Φ(−|δ| ÷ se − z_{1−α/2})."""
    _check(level, POWER, 1)
    error = math.sqrt(variance_a / users_a + variance_b / users_b)
    edge = float(special.ndtri(1 - level / 2))
    distance = abs(difference) / error
    return float(special.ndtr(distance - edge) + special.ndtr(-distance - edge))


def detectable_difference(
    variance: float, users_per_side: int, *, level: float = LEVEL, power: float = POWER, comparisons: int = 1
) -> float:
    """The smallest difference that so many users per variant show with this power, both sides varying alike."""
    _check(level, power, comparisons)
    return _z(level, power, comparisons) * math.sqrt(2 * variance / users_per_side)


def _z(level: float, power: float, comparisons: int) -> float:
    return float(special.ndtri(1 - level / comparisons / 2) + special.ndtri(power))


def _check(level: float, power: float, comparisons: int) -> None:
    if not 0 < level < 1:
        raise ValueError("the level is between 0 and 1, 0.05 as a rule")
    if not level / 2 < power < 1:
        raise ValueError("the power is between half the level and 1, 0.8 as a rule")
    if comparisons < 1:
        raise ValueError("there is at least one comparison")
