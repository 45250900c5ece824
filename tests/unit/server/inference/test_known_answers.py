"""Tests and intervals against published and hand-made answers."""

from __future__ import annotations

import math

import pytest

from server.inference.batches import batched
from server.inference.bayes import chance_to_win, outlook, outlook_of
from server.inference.difference import Difference, Scale, as_relative, difference, pooled_z, welch
from server.inference.estimate import Estimate, Kind, estimate
from server.inference.moments import Moments
from server.inference.multiplicity import Correction, benjamini_hochberg, corrected, holm
from server.inference.power import (
    detectable_difference,
    power_of,
    users_per_variant,
    users_per_variant_for_proportions,
)
from server.inference.sample_ratio import sample_ratio
from server.inference.sequential import half_widths, mixing_variance, p_values, sequential


def share(converted: int, count: int) -> Estimate:
    found = estimate(Kind.PROPORTION, Moments.of_conversions(count, converted))
    assert found is not None
    return found


def mean(count: int, total: float, squares: float) -> Estimate:
    found = estimate(Kind.MEAN, Moments.from_sums(count, total, squares))
    assert found is not None
    return found


def between(control: Estimate, treatment: Estimate, scale: Scale = Scale.ABSOLUTE) -> Difference:
    found = difference(control, treatment, scale)
    assert found is not None
    return found


SPENT = mean(3407, 1396.87, 52377.9767), mean(3461, 2422.7, 134698.29)


def test_welch_on_proportions_relative() -> None:
    found = between(share(14, 28), share(16, 30), Scale.RELATIVE)
    test = welch(found)
    assert (test.value, test.low, test.high) == pytest.approx((0.06667, -0.47767, 0.61101), abs=5e-6)
    assert (found.standard_error, test.p_value) == pytest.approx((0.2717, 0.80707), abs=5e-5)
    assert test.name == "welch_t_relative"
    assert pooled_z(14, 28, 16, 30)[1] == pytest.approx(0.79960, abs=5e-6)


def test_welch_on_means() -> None:
    found = between(*SPENT)
    test = welch(found)
    assert (test.value, test.low, test.high, found.standard_error, test.p_value) == pytest.approx(
        (0.29, 0.04538, 0.53462, 0.12478, 0.02016), abs=5e-6
    )
    found = between(*SPENT, Scale.RELATIVE)
    test = welch(found)
    assert (test.value, test.low, test.high, found.standard_error, test.p_value) == pytest.approx(
        (0.70732, -0.03526, 1.44989, 0.37879, 0.06191), abs=5e-6
    )


def test_sequential() -> None:
    test = sequential(between(share(1396, 3000), share(2422, 3461), Scale.RELATIVE), tuning_users=5000)
    assert (test.value, test.low, test.high) == pytest.approx((0.50386, 0.40098, 0.60675), abs=5e-6)


@pytest.mark.parametrize("count", [60, 1_000, 250_000])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_sequential_interval_and_p_value_agree(count: int, level: float) -> None:
    edge = half_widths(1.0, count, level)
    assert p_values(edge, count, level) == pytest.approx(level)
    assert p_values(edge * 1.001, count, level) < level < p_values(edge * 0.999, count, level)
    assert p_values(0.0, count, level) == 1.0
    # ρ² at 5 %: (−2 ln 0.05 + ln(−2 ln 0.05 + 1)) ÷ N = (5.99146 + ln 6.99146) ÷ 5000.
    assert mixing_variance(0.05, 5000) == pytest.approx((5.991464547 + math.log(6.991464547)) / 5000)


def test_log_ratio_ends_are_relative_differences() -> None:
    found = between(share(100, 1000), share(120, 1000), Scale.LOG_RATIO)
    assert found.value == pytest.approx(math.log(1.2))
    assert found.standard_error == pytest.approx(math.sqrt(0.9 / 100 + 0.88 / 120))
    test = as_relative(welch(found))
    assert test.value == pytest.approx(0.2)
    assert (1 + test.low) * (1 + test.high) == pytest.approx(1.2**2)


def test_undefined_is_none() -> None:
    nothing = Estimate(0.0, 0.0, 100)
    assert difference(nothing, nothing) is None
    assert difference(nothing, share(10, 100), Scale.RELATIVE) is None
    assert difference(share(10, 100), nothing, Scale.LOG_RATIO) is None
    assert difference(Estimate(-1.0, 0.1, 100), Estimate(1.0, 0.1, 100), Scale.RELATIVE) is None
    assert estimate(Kind.PROPORTION, Moments.of_conversions(1, 1)) is None
    assert estimate(Kind.RATIO, Moments.of([[0.0, 0.0], [0.0, 0.0]])) is None
    with pytest.raises(ValueError, match="2 of 1 users"):
        Moments.of_conversions(1, 2)


def test_pooled_z() -> None:
    assert pooled_z(200, 2000, 250, 2000) == pytest.approx((2.50196, 0.01235), abs=5e-6)


def test_sample_ratio() -> None:
    found = sample_ratio([500, 550], [0.5, 0.5])
    assert found.p_value == pytest.approx(0.12282, abs=5e-6)
    assert not found.void
    assert sample_ratio([5200, 4800], [1, 1]).void
    assert sample_ratio([10, 0, 1], [0.5, 0.5, 0.0]).p_value == 0.0
    assert sample_ratio([0, 0], [0.5, 0.5]).p_value == 1.0
    assert sample_ratio([90, 10], [0.9, 0.1]).chi_square == 0.0


def test_bayes() -> None:
    assert chance_to_win(between(share(49, 100), share(51, 100), Scale.RELATIVE)) == pytest.approx(0.60918, abs=5e-6)
    assert chance_to_win(between(share(49, 100), share(51, 100))) == pytest.approx(
        outlook([share(49, 100), share(51, 100)]).best[1], abs=2e-5
    )


def test_outlook_of_two_and_three() -> None:
    # Two normals: E[max] − E[i] = σφ(δ/σ) − |δ|Φ(−|δ|/σ) for the better one.
    found = outlook([Estimate(0.0, 1.0, 9), Estimate(1.0, 3.0, 9)])
    cdf = 0.5 * math.erfc(-0.5 / math.sqrt(2))
    density = math.exp(-0.125) / math.sqrt(2 * math.pi)
    assert found.best == pytest.approx([1 - cdf, cdf], abs=1e-5)
    assert found.loss[1] == pytest.approx(2 * density - (1 - cdf), abs=1e-4)
    assert found.loss[0] - found.loss[1] == pytest.approx(1.0)
    # One that is known for sure among two that are not: Φ(1)·Φ(0.25).
    assert outlook([Estimate(0.0, 1.0, 9), Estimate(1.0, 1e-12, 9), Estimate(0.5, 4.0, 9)]).best[1] == pytest.approx(
        0.841344746 * 0.598706326, abs=1e-4
    )
    assert outlook([Estimate(3.0, 1.0, 9)]).best == pytest.approx([1.0])


def test_outlook_of_counts() -> None:
    from scipy import stats

    # P(Beta(2, 1) > Beta(1, 1)) = ∫ 2x · x dx = 2/3.
    assert outlook_of([stats.beta(1, 1), stats.beta(2, 1)]).best == pytest.approx([1 / 3, 2 / 3], abs=1e-5)


def test_periods_are_added_each_in_its_own_standard_errors() -> None:
    found = batched([Difference(Scale.ABSOLUTE, 0.1, 0.05, 90.0, 500), Difference(Scale.ABSOLUTE, 0.2, 0.1, 60.0, 300)])
    assert found is not None
    assert found.value == pytest.approx((0.1 / 0.05 + 0.2 / 0.1) / (1 / 0.05 + 1 / 0.1))
    assert found.standard_error == pytest.approx(math.sqrt(2) / (1 / 0.05 + 1 / 0.1))
    assert found.value / found.standard_error == pytest.approx((2.0 + 2.0) / math.sqrt(2))
    assert (found.degrees_of_freedom, found.count) == (150.0, 2)
    assert batched([]) is None


def test_users_per_variant() -> None:
    assert users_per_variant_for_proportions(0.10, 0.11) == 14_749
    assert users_per_variant_for_proportions(0.10, 0.11, pooled=True) == 14_751
    assert users_per_variant(0.09, 0.0979, -0.01) == 14_749
    assert users_per_variant(1.0, 1.0, 0.1, comparisons=2) == math.ceil((2.241402728 + 0.841621234) ** 2 * 2 / 0.01)
    assert power_of(0.09, 0.0979, 0.01, 14_749, 14_749) == pytest.approx(0.8, abs=1e-4)
    assert users_per_variant(4.0, 4.0, detectable_difference(4.0, 5_000)) == 5_000
    for wrong in ({"difference": 0.0}, {"level": 1.5}, {"power": 1.0}, {"comparisons": 0}, {"variance_a": -1.0}):
        with pytest.raises(ValueError, match=r"between|at least|finite"):
            users_per_variant(**({"variance_a": 1.0, "variance_b": 1.0, "difference": 1.0} | wrong))  # type: ignore[arg-type]


def test_holm_and_benjamini_hochberg() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert corrected(p, Correction.HOLM) == pytest.approx(holm(p))
    assert holm([]).size == 0
