"""Readouts of sums whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from server.experiments.breakdown import by_period, by_segment, by_time
from server.experiments.design import Better, DecideBy, Design, Metric, Role
from server.experiments.observed import Group, Observed, Period
from server.experiments.readout import read, read_periods
from server.experiments.verdict import Ruling, expected_time, judge
from server.inference.estimate import Kind
from server.inference.moments import Moments
from server.inference.multiplicity import Correction, benjamini_hochberg, holm

START, NOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 11, tzinfo=UTC)
BOUGHT = Metric(name="bought", kind=Kind.PROPORTION, role=Role.PRIMARY)
DESIGN = Design(control_id="a", weights={"a": 0.5, "b": 0.5}, metrics=[BOUGHT])


def group(name: str, users: int, **converted: int) -> Group:
    metrics = {metric: Observed.conversions(users, count) for metric, count in converted.items()}
    return Group(variant_id=name, user_count=users, exposure_count=3 * users, metrics=metrics)


def ruling(design: Design, *groups: Group) -> Ruling:
    return judge(design, read(design, groups), start_time=START, now=NOW).ruling


def test_both_results_side_by_side() -> None:
    found = read(DESIGN, [group("b", 3461, bought=2422), group("a", 3461, bought=1610)])
    assert [one.variant_id for one in found.groups] == ["a", "b"]
    (comparison,) = found.metrics[0].comparisons
    assert comparison.absolute is not None
    assert comparison.relative is not None
    assert comparison.absolute.fixed_horizon.value == pytest.approx((2422 - 1610) / 3461)
    assert comparison.relative.sequential.value == pytest.approx(2422 / 1610 - 1)
    names = [one.name for one in (comparison.absolute.fixed_horizon, comparison.relative.fixed_horizon, comparison.relative.sequential)]
    assert names == ["welch_t_absolute", "welch_t_relative", "always_valid_log_ratio"]
    width = [one.high - one.low for one in (comparison.absolute.fixed_horizon, comparison.absolute.sequential)]
    assert width[0] < width[1]
    a, b = found.metrics[0].values
    assert (a.user_count, a.converted_count, b.converted_count) == (3461, 1610, 2422)
    assert b.probability_to_be_best == pytest.approx(1.0)
    assert a.expected_loss == pytest.approx((2422 - 1610) / 3461)
    assert found.sample_ratio.p_value == 1.0


def test_the_published_vector_through_the_readout() -> None:
    design = replace(DESIGN, weights={"a": 3000 / 6461, "b": 3461 / 6461})
    (comparison,) = read(design, [group("a", 3000, bought=1396), group("b", 3461, bought=2422)]).comparisons
    assert comparison.absolute is not None
    # 0.69980 − 0.46533, se = √(0.4653·0.5347/3000 + 0.6998·0.3002/3461)
    assert comparison.absolute.fixed_horizon.value == pytest.approx(2422 / 3461 - 1396 / 3000)
    assert comparison.chance_to_win == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ((1000, 24), (1000, 60), Ruling.TOO_EARLY),
        ((1000, 0), (1000, 0), Ruling.TOO_EARLY),
        ((0, 0), (0, 0), Ruling.TOO_EARLY),
        ((5200, 520), (4800, 960), Ruling.VOID),
        ((5000, 500), (5000, 700), Ruling.BETTER),
        ((5000, 700), (5000, 500), Ruling.HARMFUL),
        ((5000, 500), (5000, 510), Ruling.UNDECIDED),
        ((20_000, 2000), (20_000, 2010), Ruling.NO_DIFFERENCE),
        ((20_000, 20_000), (20_000, 20_000), Ruling.TOO_EARLY),
    ],
)
def test_rulings(a: tuple[int, int], b: tuple[int, int], said: Ruling) -> None:
    design = replace(DESIGN, planned_users=14_749)
    assert ruling(design, group("a", a[0], bought=a[1]), group("b", b[0], bought=b[1])) is said


def test_sentences_tell_what_to_do() -> None:
    design = replace(DESIGN, planned_users=14_749)

    def sentence(*groups: Group) -> str:
        return judge(design, read(design, groups), start_time=START, now=NOW).sentence

    early = judge(design, read(design, [group("a", 1000, bought=10), group("b", 1000, bought=30)]), start_time=START, now=NOW)
    assert early.expected_time == START + timedelta(days=25)
    assert early.sentence == (
        "Too early: a variant has 10 of the 25 users with a value in bought below which nothing is concluded. "
        "Expected around 2026-01-26 at the pace so far."
    )
    assert sentence(group("a", 5200, bought=520), group("b", 4800, bought=960)).startswith(
        "Void: the users were not shared out as planned: a 5,200 (expected 5,000), b 4,800 (expected 5,000); p 6e-05, below 0.001."
    )
    assert "b is better than a: bought of b +40.0% (95% interval +18.3% to +65.7%, always valid, p" in sentence(
        group("a", 5000, bought=500), group("b", 5000, bought=700)
    )
    undecided = judge(design, read(design, [group("a", 5000, bought=500), group("b", 5000, bought=510)]), start_time=START, now=NOW)
    assert undecided.expected_time == START + timedelta(days=10) * 14_749 / 5000


def test_the_fixed_horizon_decides_at_its_size_only() -> None:
    design = replace(DESIGN, planned_users=6000, decide_by=DecideBy.FIXED_HORIZON)
    assert ruling(design, group("a", 5000, bought=500), group("b", 5000, bought=580)) is Ruling.TOO_EARLY
    assert ruling(design, group("a", 6000, bought=600), group("b", 6000, bought=680)) is Ruling.BETTER
    assert ruling(replace(design, decide_by=DecideBy.SEQUENTIAL), group("a", 6000, bought=600), group("b", 6000, bought=680)) is (
        Ruling.NO_DIFFERENCE
    )


def test_lower_is_better_where_it_says_so() -> None:
    design = replace(DESIGN, metrics=[replace(BOUGHT, better=Better.LOWER)])
    assert ruling(design, group("a", 5000, bought=700), group("b", 5000, bought=500)) is Ruling.BETTER
    found = read(design, [group("a", 5000, bought=700), group("b", 5000, bought=500)]).metrics[0]
    assert found.comparisons[0].chance_to_win == pytest.approx(1.0)
    assert found.values[1].probability_to_be_best == pytest.approx(1.0)
    assert found.values[0].expected_loss == pytest.approx(0.04, abs=1e-6)


def test_a_breached_guardrail_takes_the_win() -> None:
    slow = Metric(name="failed", kind=Kind.PROPORTION, role=Role.GUARDRAIL, better=Better.LOWER, margin=0.1)
    design = replace(DESIGN, metrics=[BOUGHT, slow])
    good, bad = group("a", 5000, bought=500, failed=250), group("b", 5000, bought=700, failed=500)
    verdict = judge(design, read(design, [good, bad]), start_time=START, now=NOW)
    assert (verdict.ruling, verdict.breached) == (Ruling.HARMFUL, [("b", "failed")])
    assert verdict.sentence == "Guardrails are breached: failed (b). Stop it."
    # Worse, but not for sure by more than the margin; and hardly seen at all.
    assert ruling(design, good, group("b", 5000, bought=700, failed=290)) is Ruling.BETTER
    assert ruling(design, group("a", 5000, bought=500, failed=1), group("b", 5000, bought=700, failed=24)) is Ruling.BETTER


def test_several_variants_are_corrected_together() -> None:
    others = [Metric(name=name, kind=Kind.PROPORTION) for name in ("clicked", "saved")]
    design = replace(DESIGN, weights={"a": 0.4, "b": 0.3, "c": 0.3}, metrics=[BOUGHT, *others])
    groups = [
        group("a", 4000, bought=400, clicked=900, saved=200),
        group("b", 3000, bought=350, clicked=700, saved=180),
        group("c", 3000, bought=310, clicked=760, saved=140),
    ]
    for correction, function in ((Correction.HOLM, holm), (Correction.BENJAMINI_HOCHBERG, benjamini_hochberg)):
        found = read(replace(design, correction=correction), groups)
        primary = found.of("bought").comparisons
        secondary = [one for metric in found.metrics[1:] for one in metric.comparisons]
        for part, expected in ((primary, holm), (secondary, function)):
            alone = [one.absolute.fixed_horizon.p_value for one in part if one.absolute]
            assert [one.fixed_p_value for one in part] == pytest.approx(list(expected(alone)))
            always = [one.absolute.sequential.p_value for one in part if one.absolute]
            assert [one.sequential_p_value for one in part] == pytest.approx(list(expected(always)))


def test_covariates_are_used_where_there_are_some() -> None:
    rng = np.random.default_rng(1)
    before = rng.gamma(2, 5, (2, 4000))
    spent = before * 0.9 + rng.normal(0, 2, (2, 4000)) + np.array([[0.0], [0.5]])
    metric = Metric(name="spent", kind=Kind.MEAN, role=Role.PRIMARY)
    design = replace(DESIGN, metrics=[metric])

    def groups(*columns: np.ndarray) -> list[Group]:
        values = np.stack(columns, axis=2)
        return [
            Group(variant_id=name, user_count=4000, metrics={"spent": Observed(Moments.of(rows), 4000)})
            for name, rows in zip("ab", values, strict=True)
        ]

    (plain,) = read(design, groups(spent)).comparisons
    (freed,) = read(design, groups(spent, before)).comparisons
    rho = np.corrcoef(before[0], spent[0])[0, 1]
    assert freed.variance_reduction == pytest.approx(rho**2, abs=0.02)
    assert freed.absolute is not None
    assert plain.absolute is not None
    assert freed.absolute.fixed_horizon.low < 0.5 < freed.absolute.fixed_horizon.high
    assert plain.variance_reduction is None
    narrower = [one.high - one.low for one in (freed.absolute.fixed_horizon, plain.absolute.fixed_horizon)]
    assert narrower[0] / narrower[1] == pytest.approx((1 - rho**2) ** 0.5, abs=0.02)


def test_changing_shares_are_compared_period_by_period() -> None:
    """Simpson's: in either period b is better by a tenth, pooled it looks worse, since it had its users when little was bought."""
    design = replace(DESIGN, planned_users=100_000)
    periods = [
        Period(weights={"a": 0.8, "b": 0.2}, groups=[group("a", 80_000, bought=16_000), group("b", 20_000, bought=4_400)]),
        Period(weights={"a": 0.2, "b": 0.8}, groups=[group("a", 20_000, bought=1_000), group("b", 80_000, bought=4_400)]),
    ]
    pooled = read(design, [periods[0].groups[0] + periods[1].groups[0], periods[0].groups[1] + periods[1].groups[1]])
    assert judge(design, pooled, start_time=START, now=NOW).ruling is Ruling.HARMFUL
    found = read_periods(design, periods)
    (comparison,) = found.comparisons
    assert comparison.relative is not None
    assert comparison.relative.fixed_horizon.value == pytest.approx(0.1)
    assert comparison.relative.fixed_horizon.p_value < 1e-9
    assert found.sample_ratio.p_value == 1.0
    assert [one.user_count for one in found.metrics[0].values] == [100_000, 100_000]
    # Which is best is asked of even periods, too: pooled it would be a.
    assert [one.probability_to_be_best for one in pooled.metrics[0].values] == pytest.approx([1.0, 0.0], abs=1e-6)
    assert [one.probability_to_be_best for one in found.metrics[0].values] == pytest.approx([0.0, 1.0], abs=1e-6)
    assert found.metrics[0].values[0].expected_loss == pytest.approx((0.22 + 0.055) / 2 - (0.2 + 0.05) / 2, rel=1e-3)
    assert judge(design, found, start_time=START, now=NOW).ruling in (Ruling.BETTER, Ruling.NO_DIFFERENCE)
    # One period with too little leaves nothing to test.
    thin = read_periods(design, [Period(weights={"a": 0.5, "b": 0.5}, groups=[group("a", 50, bought=20), group("b", 50, bought=40)])])
    assert judge(design, thin, start_time=START, now=NOW).ruling is Ruling.TOO_EARLY
    assert judge(design, read_periods(design, []), start_time=START, now=NOW).ruling is Ruling.TOO_EARLY


def test_one_period_is_the_plain_readout() -> None:
    groups = [group("a", 5000, bought=500), group("b", 5000, bought=600)]
    (plain,), (period,) = (
        read(DESIGN, groups).comparisons,
        read_periods(DESIGN, [Period(weights=DESIGN.weights, groups=groups)]).comparisons,
    )
    assert plain.absolute is not None
    assert period.absolute is not None
    one, other = plain.absolute.fixed_horizon, period.absolute.fixed_horizon
    assert (other.value, other.low, other.high, other.p_value) == pytest.approx((one.value, one.low, one.high, one.p_value))


@pytest.mark.parametrize(
    ("control", "variant", "breached"),
    [
        ((300, 0), (300, 300), True),  # which never fails against which always does: neither varies
        ((300, 1), (300, 300), True),
        ((300, 0), (300, 150), True),
        ((300, 3), (300, 0), False),
        ((300, 300), (300, 0), False),
        ((300, 0), (300, 40), False),  # 40 conversions would be 20 on either side
        ((300, 0), (300, 0), False),
        ((9500, 0), (500, 499), False),  # 25 of 500 are expected where 499 of 10,000 fail: just too few
        ((9500, 0), (520, 520), True),
        ((9500, 52), (500, 0), False),
        ((0, 0), (300, 300), False),
    ],
)
@pytest.mark.parametrize("kind", [Kind.PROPORTION, Kind.RATIO])
def test_a_guardrail_hears_of_harm_on_one_side_alone(
    kind: Kind, control: tuple[int, int], variant: tuple[int, int], breached: bool
) -> None:
    """Users with two slates each, of whom so many fail both times."""
    errors = Metric(name="errors", kind=kind, role=Role.GUARDRAIL, better=Better.LOWER)
    design = replace(DESIGN, metrics=[BOUGHT, errors])

    def failing(name: str, users: int, failed: int) -> Group:
        slates = 2 if kind is Kind.RATIO else 1
        rows = np.array([[slates, slates]] * failed + [[0, slates]] * (users - failed), dtype=float).reshape(users, 2)
        return Group(
            variant_id=name, user_count=users, metrics={"errors": Observed(Moments.of(rows if kind is Kind.RATIO else rows[:, :1]), failed)}
        )

    groups = [failing("a", *control), failing("b", *variant)]
    assert read(design, groups).of("errors").comparisons[0].breached is breached
    period = Period(weights={"a": 0.5, "b": 0.5}, groups=groups)
    assert read_periods(design, [period] * 3).of("errors").comparisons[0].breached is breached
    # What decides waits for both sides as ever.
    primary = Design(control_id="a", weights=DESIGN.weights, metrics=[replace(errors, role=Role.PRIMARY)])
    assert read(primary, groups).comparisons[0].lacking_conversions or min(control[1], variant[1]) >= 25


def test_segments_are_corrected_and_come_with_a_warning() -> None:
    parts = {
        ("device", "phone"): [group("a", 3000, bought=300), group("b", 3000, bought=390)],
        ("device", "desktop"): [group("a", 2000, bought=200), group("b", 2000, bought=205)],
        ("surface", "home"): [group("a", 10, bought=1), group("b", 10, bought=0)],
    }
    segments, warning = by_segment(DESIGN, parts)
    assert [(one.dimension, one.value) for one in segments] == list(parts)
    alone = [one.comparisons[0].absolute.fixed_horizon.p_value for one in segments if one.comparisons[0].absolute]
    assert [one.comparisons[0].fixed_p_value for one in segments] == pytest.approx(list(holm(alone)))
    assert segments[2].comparisons[0].lacking_conversions == 25
    assert warning.startswith("3 comparisons: without a correction, 0.2 of them")


def test_the_last_point_of_a_series_is_the_readout() -> None:
    looks = [
        (START + timedelta(days=day), [group("a", 500 * day, bought=50 * day), group("b", 500 * day, bought=60 * day)]) for day in (1, 2, 3)
    ]
    points = by_time(DESIGN, looks)
    assert [point.values[1].converted_count for point in points] == [60, 120, 180]
    assert [point.time for point in points] == [look[0] for look in looks]
    assert points[-1].comparisons == read(DESIGN, looks[-1][1]).comparisons


def test_a_series_over_changed_weights_has_a_point_at_the_end_of_each() -> None:
    periods = [
        Period(weights={"a": share, "b": 1 - share}, groups=[group("a", 2_000, bought=100 + seed), group("b", 3_000, bought=200)])
        for seed, share in enumerate([0.5, 0.4, 0.6, 0.4])
    ]
    ends = [START + timedelta(days=day) for day in range(1, 5)]
    points = by_period(DESIGN, periods, ends, most=3)
    assert [point.time for point in points] == ends[1:]
    assert [point.values[1].converted_count for point in points] == [400, 600, 800]
    for count, point in zip((2, 3, 4), points, strict=True):
        assert point.comparisons == read_periods(DESIGN, periods[:count]).comparisons
    # As of the second's beginning nobody had come who belongs to it.
    (first,) = by_period(DESIGN, periods, ends[:1], most=3)
    assert first.comparisons == read(replace(DESIGN, weights=periods[0].weights), periods[0].groups).comparisons


def test_too_few_real_clicks_to_tell_are_said_to_be() -> None:
    """Clicks of a uniform policy and of Thompson sampling on 10,000 impressions each of a fashion shop (Saito et al. 2020)."""
    counts = group("uniform", 10_000, bought=46), group("thompson", 10_000, bought=69)
    design = Design(control_id="uniform", weights={"uniform": 0.5, "thompson": 0.5}, metrics=[BOUGHT])
    found = read(design, counts)
    assert [value.converted_count for value in found.metrics[0].values] == [46, 69]
    (comparison,) = found.comparisons
    assert comparison.relative is not None
    assert comparison.relative.sequential.value == pytest.approx(0.5)
    # The fixed test would call it at this one look (p about 0.03); who has looked before may not.
    assert comparison.fixed_p_value == pytest.approx(0.0316, abs=5e-4)
    assert comparison.relative.sequential.low < 0 < comparison.relative.sequential.high
    assert judge(design, found, start_time=START, now=NOW).ruling is Ruling.UNDECIDED


def test_designs_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="the control x is not among the variants"):
        replace(DESIGN, control_id="x")
    with pytest.raises(ValueError, match="one primary metric"):
        replace(DESIGN, metrics=[BOUGHT, BOUGHT])


def test_expected_times() -> None:
    assert expected_time(25, 25, start_time=START, now=NOW) == NOW
    assert expected_time(0, 25, start_time=START, now=NOW) is None
    assert expected_time(5, 25, start_time=NOW, now=NOW) is None
    assert expected_time(1, 10**9, start_time=START, now=NOW) is None
