"""People look from the top, act on what they like, and do the same under the same draws."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from scripts.simulation.behaviour import STEPS, Act, Habits, attention, react
from scripts.simulation.seeds import generator


def acts_of(utility: float, appeal: float, count: int = 3_000, exponent: float = 0.6, size: int = 10) -> list[list[Act]]:
    """What `count` people do with a slate of equal items."""
    appeals, utilities = np.full(size, appeal), np.full(size, utility)
    return [react(exponent, appeals, utilities, generator(1, "test", number)) for number in range(count)]


def test_the_same_draws_make_the_same_acts() -> None:
    appeals, utilities = np.linspace(2, -2, 10), np.linspace(0.9, 0.1, 10)
    one, other = (react(0.5, appeals, utilities, generator(4, "test")) for _ in range(2))
    assert one == other
    assert one != react(0.5, appeals, utilities, generator(5, "test"))


def test_attention_falls_with_the_position() -> None:
    chances = attention(np.arange(1.0, 11.0), 0.6)
    assert chances[0] == 1.0
    assert (np.diff(chances) < 0).all()
    assert chances[3] == pytest.approx(4**-0.6)


def test_items_are_looked_at_as_often_as_attention_says() -> None:
    views = Counter(act.position for acts in acts_of(0.3, 0.0) for act in acts if act.type == "view")
    for position in (1, 2, 5, 10):
        assert views[position] / 3_000 == pytest.approx(position**-0.6, abs=0.03)


def test_clicks_follow_appeal_and_implements_follow_utility() -> None:
    def rates(utility: float, appeal: float) -> tuple[float, float]:
        counts = Counter(act.type for acts in acts_of(utility, appeal) for act in acts)
        return counts["click"] / counts["view"], counts["implement"] / counts["click"]

    plain, appealing, useful = rates(0.3, 0.0), rates(0.3, 2.0), rates(0.8, 0.0)
    assert plain[0] == pytest.approx(1 / (1 + np.exp(1.6)), abs=0.02)
    assert appealing[0] == pytest.approx(1 / (1 + np.exp(-0.8)), abs=0.02)
    assert useful[0] == pytest.approx(plain[0], abs=0.02)  # what does not show makes nobody click
    passed = (1 - 0.15 * 0.2) * (1 - 0.40 * 0.2) * (1 - 0.25 * 0.2)
    assert useful[1] == pytest.approx(0.8 * 0.8 * passed, abs=0.03)
    assert plain[1] < useful[1]


def test_an_impression_has_a_possible_life() -> None:
    for acts in acts_of(0.4, 0.5, count=500):
        for position in {act.position for act in acts}:
            life = Counter(act.type for act in acts if act.position == position)
            assert set(life.values()) == {1}  # everything at most once
            assert life["view"] == 1
            assert not (life["click"] and life["dismiss"])
            assert life["act"] == life["implement"] + life["abandon"]
            assert not (life["act"] or life["save"]) or life["click"]


def test_times_are_positive_and_follow_one_another() -> None:
    for acts in acts_of(0.4, 0.5, count=300):
        views = [act for act in acts if act.type == "view"]
        assert all(act.seconds is not None and act.seconds > 0 for act in views)
        assert all(act.seconds is None for act in acts if act.type != "view")
        assert [act.delay_seconds for act in acts] == sorted(act.delay_seconds for act in acts)
        for before, after in pairwise(views):
            assert before.seconds is not None
            assert before.delay_seconds + before.seconds <= after.delay_seconds + 1e-9


def test_whoever_gives_up_says_where() -> None:
    abandons = [act for acts in acts_of(0.2, 2.0) for act in acts if act.type == "abandon"]
    counts = Counter(act.dropoff_point for act in abandons)
    assert set(counts) == set(STEPS)
    assert counts["budget"] > counts["rollout"]  # the hardest step, and an earlier one
    assert all(act.dropoff_point == "" for acts in acts_of(0.2, 2.0, count=50) for act in acts if act.type != "abandon")


def test_nobody_dismisses_where_nobody_would() -> None:
    acts = react(0.5, np.zeros(10), np.full(10, 0.3), generator(1, "test"), Habits(dismiss_share=0.0))
    assert "dismiss" not in {act.type for act in acts}


def test_an_empty_slate_moves_nobody() -> None:
    assert react(0.5, np.array([]), np.array([]), generator(1, "test")) == []
