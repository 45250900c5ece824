"""Who gets what: known places, laws of the hash, and of shares that move."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rankloop.assignment import Assignment, Because, Plan, Share, Span, assignments, place_of
from runtime.errors import InvalidInput
from server.experiments.allocation import NoRoom, checked_weights, first_shares, layer_spans, moved_shares, room

USERS = [f"user-{number}" for number in range(20_000)]


def plan(shares: tuple[Share, ...] | None = None, **changed: object) -> Plan:
    settings: dict[str, object] = {
        "experiment_id": "e",
        "layer": "default",
        "salt": "s",
        "shares": shares or first_shares({"a": 0.5, "b": 0.5}),
    }
    return Plan(**(settings | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "salt", "user_id", "place"),
    [
        # Golden: whoever computes these gives every user the variant that this server gives.
        ("default", "", "u-1", 0.5497608124567446),
        ("default", "diversity-2026", "u-1", 0.6004848918059524),
        ("default", "diversity-2026", "u-2", 0.38524875632322364),
        ("home", "s", "naïve-ユーザー-🙂", 0.8727105445109546),
        ("", "", "", 0.7072854529322509),
    ],
)
def test_golden_places(layer: str, salt: str, user_id: str, place: float) -> None:
    assert place_of(layer, salt, user_id) == place


def test_the_documented_steps_by_hand() -> None:
    digest = hashlib.sha256(b"7:default,1:s,3:u-1,").digest()
    assert place_of("default", "s", "u-1") == math.floor(int(digest[:8].hex(), 16) / 2**11) / 2**53
    # Lengths are those of the bytes, and keep the parts apart.
    assert place_of("é", "", "x") == (int(hashlib.sha256("2:é,0:,1:x,".encode()).digest()[:8].hex(), 16) >> 11) / 2**53
    assert len({place_of("a", "b", "cd"), place_of("ab", "", "cd"), place_of("a", "bc", "d"), place_of("", "ab", "cd")}) == 4


def test_golden_variants() -> None:
    three = plan(first_shares({"control": 0.34, "half": 0.33, "high": 0.33}), salt="diversity-2026")
    assert [three.assign(f"u-{number}").variant_id for number in range(1, 13)] == [
        "half",
        "half",
        "high",
        "half",
        "control",
        "half",
        "control",
        "control",
        "high",
        "control",
        "half",
        "control",
    ]


def test_a_million_users_are_uniform_and_the_two_places_independent() -> None:
    places = np.array([place_of("default", "salt", f"user-{number}") for number in range(1_000_000)])
    assert stats.chisquare(np.histogram(places, bins=1_000, range=(0, 1))[0]).pvalue > 1e-4
    others = np.array([place_of("default", "", f"user-{number}") for number in range(100_000)])
    both, _, _ = np.histogram2d(places[:100_000], others, bins=50, range=[(0, 1), (0, 1)])
    assert stats.chisquare(both.ravel()).pvalue > 1e-4


def test_another_salt_deals_anew_and_the_same_one_alike() -> None:
    one, other = plan(), plan(salt="t")
    same = sum(one.assign(user).variant_id == other.assign(user).variant_id for user in USERS)
    assert abs(same / len(USERS) - 0.5) < 4 * math.sqrt(0.25 / len(USERS))
    assert all(one.assign(user) == plan().assign(user) for user in USERS[:100])


def test_without_an_id_nobody_is_assigned_and_a_tester_gets_what_the_plan_says() -> None:
    some = plan(overrides={"tester": "b"}, layer_spans=(Span(0.5, 0.5),), holdout=0.5)
    assert some.assign("") == Assignment("e", "", Because.ANONYMOUS)
    assert some.assign("tester") == Assignment("e", "b", Because.OVERRIDDEN)
    assert {some.assign(user).because for user in USERS[:100]} == {Because.HELD_OUT, Because.ELSEWHERE}
    assert {some.assign(user).propensity for user in ("", "tester", *USERS[:100])} == {None}


def test_whoever_is_assigned_has_the_propensity_of_the_variants_weight() -> None:
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    moved = plan(shares=moved_shares(first_shares({"a": 0.2, "b": 0.3, "c": 0.5}), weights), layer_spans=(Span(0.0, 0.5),))
    assert len(moved.shares) > len(weights)
    for found in (one for one in map(moved.assign, USERS[:500]) if one.variant_id):
        assert found.propensity == pytest.approx(weights[found.variant_id], abs=1e-9)


def test_experiments_of_a_layer_exclude_each_other_and_spare_the_holdout() -> None:
    first = layer_spans([], 0.3, holdout=0.1)
    second = layer_spans(first, 0.7, holdout=0.1)
    plans = [plan(experiment_id=name, salt=name, layer_spans=spans, holdout=0.1) for name, spans in (("one", first), ("two", second))]
    found = [assignments(plans, user) for user in USERS]
    assert {len(one) for one in found} == {0, 1}
    shares = [sum(bool(one) and one[0].experiment_id == name for one in found) / len(USERS) for name in ("one", "two")]
    assert shares == pytest.approx([0.27, 0.63], abs=4 * math.sqrt(0.25 / len(USERS)))
    for user, has in zip(USERS, found, strict=True):
        assert bool(has) == (place_of("default", "", user) >= 0.1)
    with pytest.raises(NoRoom, match=r"wants 10\.0% of the layer's users and 0\.0% are free"):
        layer_spans([*first, *second], 0.1, holdout=0.1)


def test_a_place_that_was_left_is_taken_again() -> None:
    assert room([Span(0.2, 0.4), Span(0.6, 1.0)], 0.1) == [Span(0.1, 0.2), Span(0.4, 0.6)]
    assert layer_spans([Span(0.2, 0.4), Span(0.6, 1.0)], 0.3) == (Span(0.0, 0.2), Span(0.4, pytest.approx(0.5)))
    assert layer_spans([Span(0.2, 0.4)], 0.8) == (Span(0.0, 0.2), Span(0.4, 1.0))


def test_when_a_weight_grows_only_the_users_needed_move() -> None:
    before = plan(first_shares({"a": 0.4, "b": 0.4, "c": 0.2}))
    after = plan(moved_shares(before.shares, {"a": 0.5, "b": 0.3, "c": 0.2}))
    moves = [(before.assign(user).variant_id, after.assign(user).variant_id) for user in USERS]
    assert {move for move in moves if move[0] != move[1]} == {("b", "a")}
    moved = sum(old != new for old, new in moves) / len(USERS)
    assert moved == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / len(USERS)))


WEIGHTS = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 1000), min_size=1).filter(lambda found: sum(found.values()) > 0)


@settings(max_examples=60)
@given(st.lists(WEIGHTS, min_size=2, max_size=8))
def test_shares_are_as_wanted_and_as_little_as_possible_moves(changes: list[dict[str, int]]) -> None:
    shares: tuple[Share, ...] = ()
    held: dict[str, float] = {}
    for change in changes:
        wanted = {name: count / sum(change.values()) for name, count in change.items()}
        moved = moved_shares(shares, wanted)
        Plan(experiment_id="e", layer="l", salt="s", shares=moved)  # covers everything once
        now = {name: math.fsum(share.span.length for share in moved if share.variant_id == name) for name in {*wanted, *held}}
        for name, amount in now.items():
            assert amount == pytest.approx(wanted.get(name, 0.0), abs=1e-9)
        if shares:
            kept = sum(
                max(0.0, min(old.span.end, new.span.end) - max(old.span.start, new.span.start))
                for old in shares
                for new in moved
                if old.variant_id == new.variant_id
            )
            needed = sum(max(0.0, now[name] - held.get(name, 0.0)) for name in now)
            assert 1.0 - kept == pytest.approx(needed, abs=1e-9)
        shares, held = moved, now


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "at least one variant"),
        ({"a": 0.5, "b": 0.4}, "add up to 0.9; they have to add up to 1"),
        ({"a": 1.5, "b": -0.5}, "the weight of b is -0.5"),
        ({"a": math.nan, "b": 1.0}, "the weight of a is nan"),
    ],
)
def test_weights_that_cannot_be(weights: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        checked_weights(weights)


@pytest.mark.parametrize("spans", [[(0.0, 0.5)], [(0.0, 0.5), (0.6, 1.0)], [(0.0, 0.6), (0.6, 0.4), (0.4, 1.0)], []])
def test_a_plan_with_gaps_is_refused(spans: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="share"):
        Plan(experiment_id="e", layer="l", salt="s", shares=[Share("a", Span(*span)) for span in spans])
