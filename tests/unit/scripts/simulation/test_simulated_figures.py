"""Figures by hand, intervals by known answers."""

from math import sqrt

import numpy as np
import pytest

from scripts.simulation.report import FIGURES, Figure, as_json, figures_of, lift_of
from scripts.simulation.table import plain, relative
from scripts.simulation.visits import Visit


def visit(
    user: int, *, ndcg: float = 0.5, diversity: float | None = 0.5, impressions: int = 10, clicks: int = 2, implements: int = 1
) -> Visit:
    return Visit(
        user=user,
        ndcg=ndcg,
        diversity=diversity,
        impression_count=impressions,
        clicked_impression_count=clicks,
        click_count=clicks,
        implement_count=implements,
        interaction_count=clicks + implements,
        model_version="",
        fallback_reason="NO_MODEL",
    )


def value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


def test_values_are_sums_over_sums() -> None:
    visits = [visit(0, ndcg=0.2, clicks=4, implements=1, diversity=0.8), visit(1, ndcg=0.6, clicks=1, implements=1, diversity=None)]
    figures = figures_of(visits, 5, seed=1)
    assert value(figures["ndcg_at_10"]) == pytest.approx((0.2 + 0.6) / 2)
    assert value(figures["ctr"]) == pytest.approx((4 + 1) / 20)
    assert value(figures["implementation_rate"]) == pytest.approx((1 + 1) / (4 + 1))
    assert value(figures["diversity_score"]) == pytest.approx(0.8)


def test_the_interval_of_a_mean_over_users_is_that_of_the_normal_law() -> None:
    # Half of 400 users have 0.4, half 0.6: the mean's standard error is 0.1 / sqrt(400).
    figure = figures_of([visit(user, ndcg=0.4 + 0.2 * (user % 2)) for user in range(400)], 400, seed=1)["ndcg_at_10"]
    half = 1.959964 * 0.1 / sqrt(400)
    assert value(figure) == pytest.approx(0.5)
    assert figure.low == pytest.approx(0.5 - half, abs=0.1 * half)
    assert figure.high == pytest.approx(0.5 + half, abs=0.1 * half)


def test_slates_of_one_user_stand_and_fall_together() -> None:
    one_each = figures_of([visit(user, ndcg=0.4 + 0.2 * (user % 2)) for user in range(100)], 100, seed=1)["ndcg_at_10"]
    nine_each = figures_of([visit(user, ndcg=0.4 + 0.2 * (user % 2)) for user in range(100) for _ in range(9)], 100, seed=1)["ndcg_at_10"]
    assert (nine_each.low, nine_each.high) == pytest.approx((one_each.low, one_each.high))


def test_equal_users_leave_nothing_open() -> None:
    figure = figures_of([visit(user) for user in range(30)], 30, seed=1)["ctr"]
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.2, 0.2, 0.2))


def test_lift_is_the_relative_change_of_the_same_people() -> None:
    rng = np.random.default_rng(5)
    before = [visit(user, ndcg=float(was)) for user, was in enumerate(rng.uniform(0.3, 0.7, size=200))]
    after = [visit(was.user, ndcg=was.ndcg * 1.2) for was in before]
    lift = lift_of(before, after, 200, seed=1)["ndcg_at_10"]
    # Everybody gained a fifth, so every sample of people did, however different they are.
    assert (lift.value, lift.low, lift.high) == pytest.approx((0.2, 0.2, 0.2))


def test_what_has_nothing_below_the_line_is_undefined() -> None:
    nobody_clicked = [visit(user, clicks=0, implements=0, diversity=None) for user in range(5)]
    figures = figures_of(nobody_clicked, 5, seed=1)
    undefined = Figure(value=None, low=None, high=None)
    assert figures["implementation_rate"] == figures["diversity_score"] == undefined
    assert value(figures["ctr"]) == 0.0
    assert lift_of(nobody_clicked, [visit(0)], 5, seed=1)["ctr"] == undefined  # from nothing there is no relative change
    assert set(figures_of([], 5, seed=1).values()) == set(lift_of([], [], 5, seed=1).values()) == {undefined}


def test_the_same_seed_gives_the_same_interval() -> None:
    visits = [visit(user, ndcg=user / 50) for user in range(50)]
    assert figures_of(visits, 50, seed=1) == figures_of(visits, 50, seed=1)
    assert figures_of(visits, 50, seed=1) != figures_of(visits, 50, seed=2)


def test_json_holds_a_value_and_an_interval_of_every_figure() -> None:
    told = as_json(figures_of([visit(0)], 1, seed=1))
    assert set(told) == set(FIGURES) == {"ndcg_at_10", "ctr", "implementation_rate", "diversity_score"}
    assert told["ctr"] == {"value": pytest.approx(0.2), "low": pytest.approx(0.2), "high": pytest.approx(0.2)}


def test_people_read_rounded_figures() -> None:
    assert plain(Figure(value=0.6214, low=0.61, high=0.63)) == "0.621 (0.610 to 0.630)"
    assert relative(Figure(value=-0.05, low=-0.1, high=0.012)) == "-5.0 % (-10.0 to +1.2)"
    assert plain(Figure(value=None, low=None, high=None)) == relative(Figure(value=None, low=None, high=None)) == "undefined"
