"""Measures beside naive second implementations: quantiles, Gini, percentile ranks, sessions, intervals of users, funnels."""

from __future__ import annotations

import itertools
import statistics
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.statistics.clustered import clustered_mean, clustered_wilson
from server.statistics.day_columns import DayColumns
from server.statistics.funnel import STAGES, funnel_rows
from server.statistics.intervals import wilson, wilson_low
from server.statistics.outcomes import Result, Telling, goal_metrics, number_of, stories
from server.statistics.period import Period
from server.statistics.population import population_of
from server.statistics.quality import gini, novelty
from server.statistics.runs import Runs
from server.statistics.times import quantiles
from server.statistics.user_totals import Names

MIDNIGHT = datetime(2026, 2, 1, tzinfo=UTC)


@given(st.lists(st.integers(0, 10**12), min_size=1), st.floats(0, 1))
def test_quantiles_are_numpys_and_the_median_is_the_usual_one(values: list[int], share: float) -> None:
    found = quantiles(np.array(values), (0.5, share))
    assert found[0] == pytest.approx(statistics.median(values))
    assert found[1] == pytest.approx(float(np.quantile(np.array(values, dtype=np.float64), share)), rel=1e-9, abs=1e-3)
    assert quantiles(np.array([], dtype=np.int64), (0.5,)) == ()


@given(st.lists(st.integers(1, 100), min_size=1), st.integers(0, 20))
def test_gini_is_half_the_relative_mean_difference(counts: list[int], never_shown: int) -> None:
    everything = counts + [0] * never_shown
    naive = sum(abs(one - other) for one, other in itertools.product(everything, repeat=2)) / (2 * len(everything) * sum(everything))
    assert gini(counts, len(everything)) == pytest.approx(naive)
    assert gini([], never_shown) is None
    assert gini([7] * 5, 5) == pytest.approx(0)


def test_novelty_grows_with_what_nobody_touched() -> None:
    assert novelty({}, {}, 3) is None
    # One interaction per item, all alike: −log2(1/4) = 2 bits.
    assert novelty({"a": 5}, {}, 4) == pytest.approx(2)
    assert (novelty({"a": 1}, {"b": 9}, 2) or 0) > (novelty({"b": 1}, {"b": 9}, 2) or 0)


@given(st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 4), min_size=1, max_size=12))
def test_percentile_ranks_count_those_below_and_half_of_those_alike(users: list[tuple[float, float, float, float]]) -> None:
    population = population_of(users, MIDNIGHT)
    scores = []
    for values in users:
        found = population.score(values)
        ranks = [
            100 * sum((other[part] < values[part]) + (other[part] == values[part]) / 2 for other in users) / len(users) for part in range(4)
        ]
        assert [found.recency, found.frequency, found.depth, found.breadth] == pytest.approx(ranks)
        assert 0 <= found.score <= 100
        scores.append(found.score)
    distribution = population.distribution()
    assert sum(distribution.decile_counts) == distribution.user_count == len(users)
    assert distribution.mean == pytest.approx(50), "half the users stand below a user, on average"
    assert distribution.median == pytest.approx(statistics.median(scores))


@given(st.lists(st.integers(-200, 1700), max_size=30))
def test_sessions_end_with_more_than_thirty_minutes_of_rest_and_not_at_midnight(minutes: list[int]) -> None:
    runs = Runs(Period(MIDNIGHT, MIDNIGHT + timedelta(days=1)), Names())
    moments = [MIDNIGHT + timedelta(minutes=minute) for minute in minutes]
    for day in sorted({moment.replace(hour=0, minute=0) for moment in moments}):
        entries = [
            {"user_id": "u", "session_id": name, "type": "view", "label": 0.1, "occur_time": moment}
            for moment in moments
            for name in (f"other {day}", "s")
            if moment - day < timedelta(days=1) and moment >= day
        ]
        columns = DayColumns.of(entries)
        runs.feed(day, columns, [name == "s" for name in columns.sessions])
    runs.finish()
    naive: list[list[int]] = []
    for minute in sorted(minutes):
        if naive and minute - naive[-1][-1] <= 30:
            naive[-1].append(minute)
        else:
            naive.append([minute])
    kept = [run for run in naive if 0 <= run[0] < 1440]
    assert sorted(runs.lengths.tolist()) == sorted((run[-1] - run[0]) * 60_000 for run in kept)
    assert sorted(runs.counts.tolist()) == sorted(map(len, kept))
    assert len(runs.users) == len(kept)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_users_with_one_trial_each_are_as_good_as_independent(clicks: list[bool]) -> None:
    found, plain = clustered_wilson([(int(one), 1) for one in clicks]), wilson(sum(clicks), len(clicks))
    assert found is not None
    assert plain is not None
    # But for the factor m ÷ (m − 1) of a variance that was estimated.
    assert found.low <= plain.low + 1e-12
    assert found.high >= plain.high - 1e-12
    assert [found.low, found.high] == pytest.approx([plain.low, plain.high], abs=0.5 / len(clicks))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted).map(tuple), min_size=1, max_size=20))
def test_an_interval_of_users_holds_the_rate_and_is_never_narrower(users: list[tuple[int, int]]) -> None:
    found = clustered_wilson(users)
    clicks, trials = (sum(column) for column in zip(*users, strict=True))
    if not trials:
        assert found is None
        return
    plain = wilson(clicks, trials)
    assert found is not None
    assert plain is not None
    assert 0 <= found.low <= clicks / trials + 1e-12
    assert clicks / trials - 1e-12 <= found.high <= 1
    assert found.high - found.low >= plain.high - plain.low - 1e-9


def test_a_mean_of_users_by_hand() -> None:
    # Of 1, 2, 3, one of each user: mean 2, s² = 1, t(2, 0.975) = 4.302653.
    found = clustered_mean([(1.0, 1), (2.0, 1), (3.0, 1)])
    assert found is not None
    assert [found.low, found.high] == pytest.approx([2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5], abs=1e-6)
    assert clustered_mean([(4.0, 2)]) is None
    # The same values from two users who repeat: further apart.
    repeated = clustered_mean([(2.0, 2), (6.0, 2)])
    assert repeated is not None
    assert repeated.high - repeated.low > found.high - found.low


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_lower_end_is_that_of_the_interval(successes: int, failures: int) -> None:
    interval = wilson(successes, successes + failures)
    assert wilson_low(successes, successes + failures) == pytest.approx(interval.low if interval else 0.0, abs=1e-12)


def test_the_funnel_counts_an_application_once_however_it_is_told() -> None:
    shown = {"gold": {"impressions": 10, "viewed": 4, "applications": 2}, "": {"impressions": 3}}
    furthest = {("r1", "a"): ("gold", 5), ("r2", "b"): ("gold", 2), ("r3", "c"): ("", 3)}
    rows = funnel_rows(shown, furthest, applied=[("r1", "a")])
    assert [(row.tier, row.total) for row in rows] == [("gold", False), ("", False), ("", True)]
    stages = [[getattr(row, f"{name}_count") for name in STAGES] for row in rows]
    assert stages == [[10, 4, 3, 1, 1, 1], [3, 0, 1, 1, 0, 0], [13, 4, 4, 2, 1, 1]]
    assert rows[0].step_rates["applied"] == 3 / 4
    assert rows[0].conversion_rate == 1 / 10
    assert "applied" not in rows[1].step_rates, "nothing was viewed: undefined"
    assert not funnel_rows({}, {}, [])


def result(user_id: str, before: float | None, value: float | None, **attributes: str) -> Result:
    return Result(
        event_id=f"{user_id} {value}",
        user_id=user_id,
        type="goal",
        before=before,
        value=value,
        item_id="",
        ranking_id="",
        occur_time=MIDNIGHT,
        attributes=attributes,
    )


def test_goals_are_reached_by_their_target_else_by_their_result_else_by_being_told() -> None:
    goals = [
        result("a", None, 10, target="10"),
        result("a", None, 9.99, target="10", result="reached"),
        result("b", None, None, target="10"),
        result("b", None, None, result="achieved"),
        result("c", None, None, result="missed"),
        result("c", None, None),
    ]
    found = goal_metrics(goals)
    assert (found.goal_count, found.reached_count, found.user_count) == (6, 3, 3)
    assert found.completion_rate == 3 / 6
    assert not goal_metrics([]).HasField("completion_rate")


def test_numbers_that_are_none() -> None:
    assert [number_of(text) for text in ("1e3", " 2 ", "", "nan", "inf", "a lot")] == [1000.0, 2.0, None, None, None, None]


def test_stories_need_users_to_hide_among() -> None:
    telling = Telling(count=10, min_users=0, pseudonym=lambda user_id: f"x{user_id}")
    results = [result(str(number), 100, 100 + number) for number in range(1, 5)]
    assert stories(results, telling) == []
    told = stories([*results, result("5", 100, 50), result("5", 100, None), result("1", 0, 10)], telling)
    assert [story.pseudonym for story in told] == ["x4", "x3", "x2", "x1"], "who lost counts among the users, and is no success"
