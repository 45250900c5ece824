"""What holds for all data: sums that add up, covariates, caps; and agreement with statsmodels where it has the same test."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.inference.difference import difference, pooled_z, welch
from server.inference.estimate import Estimate, Kind, adjusted, estimate
from server.inference.moments import Floats, Moments, together
from server.inference.multiplicity import benjamini_hochberg, holm
from server.inference.power import power_of
from server.inference.winsorising import FINENESS, Sketch, winsorised

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import statsmodels.api as sm
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportions_ztest
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW


def known(kind: Kind, values: Floats) -> Estimate:
    found = estimate(kind, Moments.of(values))
    assert found is not None
    return found


def visits(count: int, rate: float, seed: int) -> Floats:
    """(count, 2): clicks and impressions of users who differ in both."""
    rng = np.random.default_rng(seed)
    impressions = 1 + rng.geometric(0.2, count)
    clicks = rng.binomial(impressions, rng.beta(2, 2 / rate - 2, count))
    return np.stack([clicks, impressions], axis=1).astype(float)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=40), st.integers(0, 40))
def test_moments_of_parts_add_up(rows: list[tuple[float, float]], cut: int) -> None:
    values = np.array(rows)
    whole = Moments.of(values)
    parts = together([Moments.of(values[:cut]), Moments.of(values[cut:])], 2)
    assert parts.count == whole.count
    assert parts.mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-6)
    assert parts.products == pytest.approx(whole.products, rel=1e-9, abs=1e-2)
    sums = Moments.from_sums(len(values), values.sum(axis=0), values.T @ values)
    assert sums.products == pytest.approx(whole.products, rel=1e-6, abs=1e-1 + 1e-9 * float(np.abs(values.T @ values).max()))


def test_large_values_with_a_small_spread_lose_nothing() -> None:
    values = 1e9 + np.arange(1000) % 2
    assert together([Moments.of(values[:300]), Moments.of(values[300:])], 1).covariance[0, 0] == pytest.approx(0.25 * 1000 / 999)


def test_welch_is_statsmodels_welch() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.gamma(2, 3, 500), rng.gamma(2, 3.3, 700)
    found = difference(known(Kind.MEAN, a), known(Kind.MEAN, b))
    assert found is not None
    test, other = welch(found), CompareMeans(DescrStatsW(b), DescrStatsW(a))
    assert test.p_value == pytest.approx(other.ttest_ind(usevar="unequal")[1])
    assert (test.low, test.high) == pytest.approx(other.tconfint_diff(usevar="unequal"))
    assert found.degrees_of_freedom == pytest.approx(other.ttest_ind(usevar="unequal")[2])


def test_pooled_z_is_statsmodels_z() -> None:
    z, p = proportions_ztest([250, 200], [2000, 2100])
    assert pooled_z(200, 2100, 250, 2000) == pytest.approx((z, p))


def test_corrections_are_statsmodels_corrections() -> None:
    p = np.random.default_rng(2).random(25) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


def test_power_is_statsmodels_power() -> None:
    assert power_of(4.0, 4.0, 0.3, 500, 800) == pytest.approx(NormalIndPower().power(0.15, 500, 0.05, ratio=1.6))


def test_delta_method_is_the_cluster_robust_error_of_impressions() -> None:
    rows = visits(400, 0.1, 3)
    clicks, impressions = rows.astype(int).T
    outcome = np.concatenate([np.repeat([1.0, 0.0], [did, shown - did]) for did, shown in zip(clicks, impressions, strict=True)])
    fit = sm.OLS(outcome, np.ones(len(outcome))).fit(cov_type="cluster", cov_kwds={"groups": np.repeat(np.arange(len(rows)), impressions)})
    found = known(Kind.RATIO, rows)
    assert found.value == pytest.approx(fit.params[0])
    assert found.standard_error == pytest.approx(fit.bse[0])


def test_cuped_is_regression_on_the_covariates() -> None:
    rng = np.random.default_rng(4)
    before = rng.gamma(2, 2, (900, 2))
    treated = np.arange(900) % 3 == 0
    y = before @ [0.8, 0.3] + rng.normal(size=900) + 0.2 * treated
    arms = [Moments.of(np.column_stack([y, before])[treated == side]) for side in (False, True)]
    found = adjusted(Kind.MEAN, arms)
    assert found is not None
    control, treatment = found.estimates
    fit = sm.OLS(y, np.column_stack([np.ones(900), treated, before])).fit(cov_type="HC1")
    assert treatment.value - control.value == pytest.approx(fit.params[1])
    assert control.variance + treatment.variance == pytest.approx(fit.bse[1] ** 2, rel=0.02)
    explained = sm.OLS(y - fit.params[1] * treated, np.column_stack([np.ones(900), before])).fit().rsquared
    assert found.variance_reduction == pytest.approx(explained, abs=0.02)


def test_cuped_without_anything_to_go_by() -> None:
    assert adjusted(Kind.MEAN, [Moments.of([1.0, 2.0]), Moments.of([1.0, 3.0])]) is None
    assert adjusted(Kind.MEAN, [Moments.of([[1.0, 5.0], [2.0, 5.0]]), Moments.of([[1.0, 5.0], [3.0, 5.0]])]) is None
    assert adjusted(Kind.MEAN, []) is None


def test_cuped_of_a_ratio_keeps_its_difference_in_truth() -> None:
    differences, reductions = [], []
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        eager = rng.beta(2, 18, 800)
        shown, shown_before = 5 + rng.poisson(10, (2, 800))
        rows = np.stack([rng.binomial(shown, eager), shown, rng.binomial(shown_before, eager), shown_before], axis=1).astype(float)
        found = adjusted(Kind.RATIO, [Moments.of(rows[:400]), Moments.of(rows[400:])])
        assert found is not None
        control, treatment = found.estimates
        differences.append((treatment.value - control.value) / np.sqrt(treatment.variance + control.variance))
        reductions.append(found.variance_reduction)
    assert np.mean(reductions) > 0.15
    assert 0.7 < np.std(differences) < 1.3
    assert abs(np.mean(differences)) < 0.5


@settings(max_examples=50)
@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_sketch_finds_quantiles(values: list[float], share: float) -> None:
    whole, left, right = Sketch(), values[::2], values[1::2]
    for part in (left, right, [0.0]):
        whole.add(part)
    found = whole.quantile(share)
    assert found is not None
    exact = np.quantile(values, share, method="inverted_cdf" if share == 0 else "lower")
    assert found == pytest.approx(exact, rel=FINENESS * 1.01)


def test_winsorising() -> None:
    assert winsorised([-5.0, 1.0, 9.0], 3.0) == pytest.approx([-3.0, 1.0, 3.0])
    assert Sketch().quantile(0.5) is None
