"""Two variants compared: a difference, its standard error, and the fixed-horizon test and interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

from server.inference.estimate import Estimate

LEVEL = 0.05
"""The share of tests without any effect that may call one: α. Intervals have 1 − α."""


class Scale(StrEnum):
    """On which scale two values are compared."""

    ABSOLUTE = "absolute"
    """b − a."""
    RELATIVE = "relative"
    """(b − a) ÷ a, its error by the delta method. For one look only: see `sequential`."""
    LOG_RATIO = "log_ratio"
    """ln(b ÷ a). Its ends through e^x − 1 are those of the relative difference, without the skew that RELATIVE overlooks."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the second variant has over the first, on a scale."""

    scale: Scale
    value: float
    standard_error: float
    degrees_of_freedom: float
    """Welch and Satterthwaite's."""
    count: int
    """Users of both."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a test says of a difference."""

    name: str
    value: float
    low: float
    high: float
    """The ends of the interval of 1 − α."""
    p_value: float


def difference(control: Estimate, treatment: Estimate, scale: Scale = Scale.ABSOLUTE) -> Difference | None:
    """The difference on a scale; None where it is not defined there: relative to nothing or less, or with no variation at all.

    RELATIVE: var = v_b ÷ a² + v_a·b² ÷ a⁴. LOG_RATIO: var = v_b ÷ b² + v_a ÷ a².
    Source: Deng, Knoblich and Lu, "Applying the delta method in metric analytics", KDD 2018, on percent changes;
    Welch, "The generalization of Student's problem", Biometrika 34, 1947, for the degrees of freedom.
    """
    a, b, va, vb = control.value, treatment.value, control.variance, treatment.variance
    if control.count < 2 or treatment.count < 2 or not va + vb > 0:
        return None
    if (scale is not Scale.ABSOLUTE and a <= 0) or (scale is Scale.LOG_RATIO and b <= 0):
        return None
    value, variance = {
        Scale.ABSOLUTE: lambda: (b - a, va + vb),
        Scale.RELATIVE: lambda: ((b - a) / a, vb / a**2 + va * b**2 / a**4),
        Scale.LOG_RATIO: lambda: (math.log(b / a), vb / b**2 + va / a**2),
    }[scale]()
    if not variance > 0:  # as for a variant in which nobody did it, relative to the control
        return None
    freedom = (va + vb) ** 2 / (va**2 / (control.count - 1) + vb**2 / (treatment.count - 1))
    return Difference(scale, value, math.sqrt(variance), freedom, control.count + treatment.count)


def welch(found: Difference, level: float = LEVEL) -> Result:
    """Welch's unpooled t test, two-sided: t = value ÷ se. Right at one look that was fixed beforehand, and at no other."""
    spread = float(special.stdtrit(found.degrees_of_freedom, 1.0 - level / 2.0)) * found.standard_error
    p_value = 2.0 * float(special.stdtr(found.degrees_of_freedom, -abs(found.value) / found.standard_error))
    return Result(f"welch_t_{found.scale}", found.value, found.value - spread, found.value + spread, p_value)


def pooled_z(converted_a: int, count_a: int, converted_b: int, count_b: int) -> tuple[float, float]:
    """The pooled z test of two proportions, two-sided: z and p.

        z = (p_b − p_a) ÷ √(p(1 − p)(1 ÷ n_a + 1 ÷ n_b)),   p of both together

    Source: Fleiss, Levin and Paik, "Statistical methods for rates and proportions", 3rd edition, without the continuity correction.

    Raises:
        ValueError: there is nobody on one side, or everybody did the same.
    """
    if not count_a or not count_b:
        raise ValueError("both sides need somebody")
    share = (converted_a + converted_b) / (count_a + count_b)
    if share in (0.0, 1.0):
        raise ValueError("everybody did the same")
    z = (converted_b / count_b - converted_a / count_a) / math.sqrt(share * (1 - share) * (1 / count_a + 1 / count_b))
    return z, 2.0 * float(special.ndtr(-abs(z)))


def as_relative(test: Result) -> Result:
    """A test on the log-ratio scale, its value and ends as relative differences: e^x − 1."""
    value, low, high = (float(np.expm1(min(end, 700.0))) for end in (test.value, test.low, test.high))
    return Result(test.name, value, low, high, test.p_value)
