"""Two rankings in one slate."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.experiments.interleaving import Pick, Team, coin_of, credit, preference, team_draft
from server.inference.moments import Moments

CONTROL, TREATMENT = Team.CONTROL, Team.TREATMENT


def test_a_draft_by_hand() -> None:
    found = team_draft(["a", "b", "c", "d"], ["b", "d", "a", "c"], 4, [True, False].__getitem__)
    # Round 1, control first: a, then b. Round 2, treatment first: d, then (b is taken) c.
    assert found == [Pick("a", CONTROL), Pick("b", TREATMENT), Pick("d", TREATMENT), Pick("c", CONTROL)]
    assert credit(found, {"b", "d", "x"}) == 2.0
    assert credit(found, ["a", "c", "b"]) == -1.0


RANKINGS = st.permutations("abcdefgh").flatmap(
    lambda one: st.tuples(st.just(one), st.permutations(one), st.integers(0, 10), st.integers(0, 999))
)


@given(RANKINGS)
def test_every_item_once_teams_even_and_order_kept(given_rankings: tuple[list[str], list[str], int, int]) -> None:
    control, treatment, length, number = given_rankings
    picks = team_draft(control, treatment, length, coin_of(f"ranking-{number}"))
    ids = [pick.item_id for pick in picks]
    assert len(ids) == len(set(ids)) == min(length, 8)
    sizes = Counter(pick.team for pick in picks)
    assert abs(sizes[CONTROL] - sizes[TREATMENT]) <= 1
    for team, ranking in ((CONTROL, control), (TREATMENT, treatment)):
        own = [ranking.index(pick.item_id) for pick in picks if pick.team is team]
        assert own == sorted(own)
    # Every pick is its ranking's best among what was not there yet.
    for place, pick in enumerate(picks):
        ranking = control if pick.team is CONTROL else treatment
        assert pick.item_id == next(one for one in ranking if one not in ids[:place])
    assert picks == team_draft(control, treatment, length, coin_of(f"ranking-{number}"))


def test_rankings_of_different_items_and_lengths() -> None:
    found = team_draft(["a"], ["x", "y", "z"], 10, lambda _: True)
    assert found == [Pick("a", CONTROL), Pick("x", TREATMENT), Pick("y", TREATMENT), Pick("z", TREATMENT)]
    assert team_draft([], [], 5, lambda _: True) == []


def test_equal_rankings_are_equally_often_first() -> None:
    slates = [team_draft(list("abcdef"), list("abcdef"), 6, coin_of(f"r-{number}")) for number in range(4000)]
    for position in range(6):
        firsts = sum(slate[position].team is CONTROL for slate in slates)
        assert abs(firsts / 4000 - 0.5) < 4 * math.sqrt(0.25 / 4000)
    assert abs(sum(credit(slate, {"a", "c"}) for slate in slates)) < 4 * math.sqrt(4000 * 2)


def test_preference_by_hand() -> None:
    credits = [2.0, 1.0, 1.0, 1.0, 0.0, -1.0, 1.0, 1.0, 1.0, 0.0]
    found = preference(Moments.of(credits), 7, 1)
    assert found is not None
    assert (found.treatment_wins, found.control_wins, found.ties) == (7, 1, 2)
    assert found.share == pytest.approx((7 + 1) / 10 - 0.5)
    # 7 or more of 8, or 1 or fewer: 2 · (8 + 1) ÷ 256.
    assert found.sign_test.p_value == pytest.approx(18 / 256)
    assert found.paired.value == pytest.approx(0.7)
    assert found.paired.name == "paired_t"
    assert found.sequential.p_value > found.paired.p_value
    assert preference(Moments.of([0.0, 0.0]), 0, 0) is None
    assert preference(Moments.of([1.0, 1.0]), 2, 0) is None
