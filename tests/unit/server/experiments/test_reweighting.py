"""What a bandit's next weights follow from, and when they stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from rankloop.v1 import experiment_pb2 as pb
from server.experiments.bandit import conversion_posterior, thompson_weights
from server.experiments.design import Better, Design, Metric, Role
from server.experiments.observed import Group, Observed, Period
from server.experiments.reweighting import MAX_CHANGES, Outcome, Rule, decide, posteriors_of, rule_of
from server.inference.estimate import Kind
from server.inference.moments import Moments
from server.inference.standardising import standardised

BOUGHT = Metric(name="bought", kind=Kind.PROPORTION, role=Role.PRIMARY)
DESIGN = Design(control_id="a", weights={"a": 0.5, "b": 0.5}, metrics=[BOUGHT])


def period(a: tuple[int, int], b: tuple[int, int], share: float = 0.5) -> Period:
    """Users and conversions of both; `share` is that of a."""
    groups = [
        Group(variant_id=name, user_count=users, metrics={"bought": Observed.conversions(users, bought)})
        for name, (users, bought) in zip("ab", (a, b), strict=True)
    ]
    return Period(weights={"a": share, "b": 1 - share}, groups=groups)


def valued(a: Sequence[object], b: Sequence[object]) -> Period:
    """Users with these values."""
    groups = [
        Group(
            variant_id=name,
            user_count=len(rows),
            metrics={"bought": Observed(Moments.of(rows), int(np.count_nonzero(np.array(rows).reshape(len(rows), -1)[:, 0])))},
        )
        for name, rows in (("a", a), ("b", b))
    ]
    return Period(weights={"a": 0.5, "b": 0.5}, groups=groups)


def test_one_period_is_as_if_nothing_were_brought_to_anything() -> None:
    found = decide(DESIGN, Rule(floor=0.1), [period((1000, 100), (1040, 120))])
    expected = thompson_weights({"a": conversion_posterior(1000, 100), "b": conversion_posterior(1040, 120)}, 0.1)
    assert found.outcome is Outcome.MOVED
    assert found.weights == pytest.approx(expected)
    assert found.why.startswith(f"a 50.0% → {expected['a']:.1%}, b 50.0% → {expected['b']:.1%}; probability to be best by bought: a 0.")
    assert found.why.endswith("2,040 users in 1 period")


def test_whoever_had_more_users_in_good_times_is_no_better_for_that() -> None:
    """Both buy 20 % in the first week and 5 % in the second. Pooled, a has 17 % and b 8 %."""
    weeks = [period((8000, 1600), (2000, 400), 0.8), period((2000, 100), (8000, 400), 0.2)]
    posteriors = posteriors_of(DESIGN, weeks)
    assert posteriors is not None
    assert [one.mean() for one in posteriors.values()] == pytest.approx([0.125, 0.125], abs=1e-3)
    assert thompson_weights(posteriors) == pytest.approx({"a": 0.5, "b": 0.5}, abs=1e-3)
    # n = 1 ÷ (0.5² ÷ 8000 + 0.5² ÷ 2000) = 6400 users of 10,000: the price.
    assert standardised([Moments.of_conversions(8000, 1600), Moments.of_conversions(2000, 100)], [1, 1]).count == 6400


def test_shares_that_stood_still_cost_nothing() -> None:
    parts = [Moments.of([1.0, 2.0, 3.0]), Moments.of([5.0] * 6)]
    found, whole = standardised(parts, [6, 12]), parts[0] + parts[1]
    assert (found.count, found.mean[0]) == (9, pytest.approx(4.0))
    assert found.products == pytest.approx(whole.products)


def test_a_period_without_one_of_the_variants_tells_nothing() -> None:
    weeks = [period((1000, 100), (1000, 100)), period((90, 90), (0, 0), 0.99)]
    assert posteriors_of(DESIGN, weeks) == posteriors_of(DESIGN, weeks[:1])


def test_too_little_leaves_weights_as_they_are() -> None:
    for rule, periods, said in (
        (Rule(), [period((99, 30), (120, 30))], "a has 99 of 100 users"),
        (Rule(), [period((90, 30), (90, 30)), period((9, 3), (11, 3))], "a has 99 of 100 users"),
        (Rule(), [], "a has 0 of 100 users"),
        (Rule(), [period((5000, 12), (5000, 12))], "fewer than 25 users have a value in bought"),
        (Rule(), [period((5000, 100), (5000, 100))], "no weight would move"),
        (Rule(), [period((5000, 100), (4000, 300))], "not shared out as the weights say"),
    ):
        found = decide(DESIGN, rule, periods)
        assert said in found.why
        assert found.weights is None
        assert found.outcome is not Outcome.MOVED
    assert decide(DESIGN, Rule(min_users=99), [period((99, 30), (120, 60))]).outcome is Outcome.MOVED
    assert decide(DESIGN, Rule(), [period((9, 3), (11, 3))] * (MAX_CHANGES + 1)).outcome is Outcome.FULL


def test_a_variant_that_nobody_takes_to_loses_its_users_without_25_conversions_of_its_own() -> None:
    found = decide(DESIGN, Rule(), [period((1000, 100), (1000, 0))])
    assert found.weights == pytest.approx({"a": 0.95, "b": 0.05}, abs=1e-6)


def test_lower_is_better_is_turned_round() -> None:
    lower = replace(DESIGN, metrics=[replace(BOUGHT, better=Better.LOWER)])
    plain, turned = (decide(one, Rule(), [period((1000, 100), (1000, 120))]).weights for one in (DESIGN, lower))
    assert plain is not None
    assert turned is not None
    assert (turned["a"], turned["b"]) == pytest.approx((plain["b"], plain["a"]))
    rng = np.random.default_rng(1)
    seconds = [rng.gamma(4, 1.0, 400), rng.gamma(4, 1.1, 400)]
    for better, winner in ((Better.LOWER, "a"), (Better.HIGHER, "b")):
        metric = Metric(name="bought", kind=Kind.MEAN, role=Role.PRIMARY, better=better)
        weights = decide(replace(DESIGN, metrics=[metric]), Rule(), [valued(*map(list, seconds))]).weights
        assert weights is not None
        assert weights[winner] > 0.8


def test_ratios_and_means_are_normal_around_their_values() -> None:
    """a: 10 clicks of 100 impressions per user on average, b as many; known by the delta method, P(best) by Φ."""
    rng = np.random.default_rng(2)
    rows = [np.stack([rng.binomial(10, rate, 500), np.full(500, 10)], axis=1).astype(float) for rate in (0.10, 0.11)]
    ratio = Metric(name="bought", kind=Kind.RATIO, role=Role.PRIMARY)
    posteriors = posteriors_of(replace(DESIGN, metrics=[ratio]), [valued(list(rows[0]), list(rows[1]))])
    assert posteriors is not None
    for one, values in zip(posteriors.values(), rows, strict=True):
        assert one.mean() == pytest.approx(values[:, 0].sum() / values[:, 1].sum())
        spread = (float(one.ppf(np.array([0.841344746]))[0]) - one.mean()) / (values[:, 0].std(ddof=1) / 10 / math.sqrt(500))
        assert spread == pytest.approx(1.0, abs=1e-6)


def test_what_was_known_before_is_taken_out_with_cuped() -> None:
    rng = np.random.default_rng(3)
    before = rng.gamma(2, 5, (2, 2000))
    spent = before * 0.9 + rng.normal(0, 2, (2, 2000)) + np.array([[0.0], [0.3]])
    design = replace(DESIGN, metrics=[Metric(name="bought", kind=Kind.MEAN, role=Role.PRIMARY)])
    plain, freed = (
        posteriors_of(design, [valued(*(list(np.stack(columns, axis=1)) for columns in zip(*parts, strict=True)))])
        for parts in ((spent,), (spent, before))
    )
    assert plain is not None
    assert freed is not None
    widths = [float(np.diff(one["a"].ppf(np.array([0.16, 0.84])))[0]) for one in (plain, freed)]
    assert widths[1] < 0.5 * widths[0]


def test_everybody_alike_cannot_be_told_apart() -> None:
    design = replace(DESIGN, metrics=[Metric(name="bought", kind=Kind.MEAN, role=Role.PRIMARY)])
    assert decide(design, Rule(), [valued([3.0] * 200, [3.0] * 200)]).outcome is Outcome.TOO_FEW


def test_a_rule_has_defaults() -> None:
    assert rule_of(pb.Bandit()) == Rule() == Rule(floor=0.05, update_interval=timedelta(days=1), min_users=100)
    own = rule_of(pb.Bandit(floor=0.1, update_interval=Duration(seconds=60), min_users=7))
    assert own == Rule(floor=0.1, update_interval=timedelta(minutes=1), min_users=7)
