"""Rates, their intervals, and groups of figures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloop.v1 import stats_pb2 as stats
from runtime.errors import InvalidInput
from server.statistics.figures import outcome_value, ratio, type_counts
from server.statistics.intervals import Z, wilson
from server.statistics.items import item_stats
from server.statistics.performance import grouping_of, performance_row


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # By hand at one half: 1/2 ± z/2 ÷ √(n + z²).
        (5, 10, 0.5 - Z / 2 / (10 + Z**2) ** 0.5, 0.5 + Z / 2 / (10 + Z**2) ** 0.5),
        # At nothing: z² ÷ (n + z²).
        (0, 1, 0.0, Z**2 / (1 + Z**2)),
        (1, 1, 1 / (1 + Z**2), 1.0),
    ],
)
def test_wilson_intervals_are_those_that_were_published(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson(successes, trials)
    assert found is not None
    assert [found.low, found.high] == pytest.approx([low, high], abs=5e-5)
    assert found.level == 0.95


@given(st.integers(1, 10**9).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_an_interval_holds_its_rate_and_mirrors_its_complement(counts: tuple[int, int]) -> None:
    successes, trials = counts
    found, mirrored = wilson(successes, trials), wilson(trials - successes, trials)
    assert found is not None
    assert mirrored is not None
    assert 0.0 <= found.low <= successes / trials <= found.high <= 1.0
    assert found.low < found.high
    assert [found.low, found.high] == pytest.approx([1 - mirrored.high, 1 - mirrored.low], abs=1e-12)


def test_what_has_nothing_below_the_line_is_undefined() -> None:
    assert ratio(0, 0) is None
    assert wilson(0, 0) is None
    stats_of_nothing = item_stats("i", {})
    assert stats_of_nothing == stats.ItemStats(item_id="i")
    for name in ("click_through_rate", "implementation_rate", "avg_label", "ctr", "avg_position"):
        assert not stats_of_nothing.HasField(name), name
    row: Any = performance_row({}, {})
    for name in ("ctr", "rating_rate", "avg_rating", "avg_time_to_action", "quality_score", "implementation_rate", "ctr_interval"):
        assert not row.HasField(name), name


def test_figures_of_counters_by_hand() -> None:
    counters = {
        "interactions": 10,
        "type_view": 4,
        "type_click": 5,
        "type_implement": 1,
        "type_save": 0,
        "label_nanos": 3_300_000_000,
        "impressions": 8,
        "clicked": 2,
        "positions": 36,
        "outcome_units": -3,
        "outcome_nanos": 750_000_000,
    }
    found = item_stats("i", counters)
    assert dict(found.counts) == {"view": 4, "click": 5, "implement": 1}, "types that did not occur are left out"
    assert found.click_through_rate == 5 / 4, "more clicks than views: above 1"
    assert found.implementation_rate == 1 / 5
    assert found.avg_label == pytest.approx(3.3 / 10)
    assert found.ctr == 2 / 8
    assert found.avg_position == 36 / 8
    assert found.outcome_value == -3 + 0.75 == outcome_value(counters)
    assert type_counts({"type_": 1, "interactions": 3}) == {"": 1}
    row = performance_row(
        {"surface": "home"},
        {
            "impressions": 8,
            "touched": 4,
            "acted": 2,
            "ignored": 2,
            "untouched": 4,
            "action_milliseconds": 90_500,
            "rated": 2,
            "stars_nanos": 7_500_000_000,
            "label_nanos": 2_000_000_000,
        },
    )
    assert row.avg_time_to_action.ToMilliseconds() == 90_500 / 2
    assert row.avg_rating == 7.5 / 2
    assert row.rating_rate == 2 / 8
    assert row.quality_score == 100 * 2.0 / 4


def test_groupings_come_in_one_order_whatever_order_they_were_asked_in() -> None:
    assert grouping_of([]) == ()
    assert grouping_of([stats.DIMENSION_TIER, stats.DIMENSION_ALGORITHM]) == ("algorithm", "tier")
    assert grouping_of([stats.DIMENSION_ALGORITHM, stats.DIMENSION_TIER]) == ("algorithm", "tier")


@pytest.mark.parametrize(
    ("group_by", "field", "reason"),
    [
        ([stats.DIMENSION_UNSPECIFIED], "group_by[0]", "INVALID"),
        ([stats.DIMENSION_TIER, 77], "group_by[1]", "INVALID"),
        ([stats.DIMENSION_TIER, stats.DIMENSION_TIER], "group_by[1]", "DUPLICATE"),
        ([stats.DIMENSION_TIER, stats.DIMENSION_SURFACE, stats.DIMENSION_VARIANT], "group_by", "TOO_MANY"),
    ],
)
def test_groupings_that_are_none_are_refused(group_by: list[int], field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        grouping_of(group_by)
    assert [(one.field, one.reason) for one in refusal.value.violations] == [(field, reason)]
