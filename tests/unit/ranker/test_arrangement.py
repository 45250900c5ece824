"""Rules, diversity and chance together: known answers, and laws that hold whatever is asked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.arrangement import Arrangement, Chance, Manner, NoLikeness, arrange
from ranker.diversity.diversifiers import Diversifier
from ranker.exploration.exploration import Exploration
from ranker.rules.offered import OfferedCandidates
from ranker.rules.rule import NO_RULES, Boost, Cap, Exclusion, Pin, Rules, Target
from tests.unit.ranker.matrices import Matrix

IDS = ["a", "b", "c", "d", "e", "f"]
TYPES = ["x", "x", "x", "y", "y", ""]
TAGS = [["sale"], [], ["sale", "new"], ["new"], [], ["sale"]]
OFFERED = OfferedCandidates(IDS, TYPES, TAGS)
RELEVANCE = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])


def slate(rules: Rules, count: int = 0) -> tuple[str, Arrangement]:
    arranged = arrange(np.arange(6), RELEVANCE, NoLikeness(), rules=rules, offered=OFFERED, manner=Manner(count=count))
    return "".join(IDS[place] for place in arranged.places), arranged


def effects(arranged: Arrangement) -> list[tuple[str, str, int, int]]:
    return [(one.rule_id, IDS[one.candidate], one.position_before, one.position) for one in arranged.effects]


def pin(item_id: str, position: int) -> Pin:
    return Pin(rule_id=f"pin-{item_id}", item_id=item_id, position=position)


def cap(item_type: str, count: int) -> Cap:
    return Cap(rule_id=f"cap-{item_type}", item_type=item_type, max_count=count)


def without(kind: str, value: str) -> Exclusion:
    return Exclusion(rule_id=f"no-{value}", target=Target(kind, value))  # type: ignore[arg-type]


def boost(kind: str, value: str, factor: float = 1.0, addend: float = 0.0) -> Boost:
    return Boost(rule_id=f"more-{value}", target=Target(kind, value), factor=factor, addend=addend)  # type: ignore[arg-type]


def test_without_rules_relevance_orders() -> None:
    assert slate(NO_RULES)[0] == "abcdef"
    assert slate(NO_RULES, 2)[0] == "ab"


def test_a_pin_stands_and_the_others_close_up() -> None:
    shown, arranged = slate(Rules(pins=(pin("e", 1), pin("a", 3))))
    assert shown == "ebacdf"
    assert effects(arranged) == [("pin-e", "e", 5, 1), ("pin-a", "a", 1, 3)]


def test_a_pin_that_changes_nothing_is_told_of() -> None:
    assert effects(slate(Rules(pins=(pin("a", 1),)))[1]) == [("pin-a", "a", 1, 1)]


def test_a_pin_brings_up_what_would_not_be_in_the_slate_and_takes_a_place() -> None:
    shown, arranged = slate(Rules(pins=(pin("f", 2),)), 3)
    assert shown == "afb"
    assert effects(arranged) == [("pin-f", "f", 0, 2)]


def test_a_pin_beyond_the_slate_does_nothing_and_in_a_short_one_it_stands_last() -> None:
    assert slate(Rules(pins=(pin("f", 4),)), 3)[0] == "abc"
    assert slate(Rules(pins=(pin("a", 9), pin("b", 8))))[0] == "cdefba"
    assert slate(Rules(pins=(pin("zzz", 1),)))[0] == "abcdef"


def test_the_first_pin_of_a_position_and_of_an_item_counts() -> None:
    assert slate(Rules(pins=(pin("b", 1), pin("c", 1), pin("b", 5))))[0] == "bacdef"


def test_what_is_excluded_is_gone_even_if_pinned() -> None:
    shown, arranged = slate(Rules(exclusions=(without("tag", "sale"), without("item_id", "e")), pins=(pin("a", 1),)))
    assert shown == "bd"
    assert {(one[0], one[1], one[3]) for one in effects(arranged)} == {
        ("no-sale", "a", 0),
        ("no-sale", "c", 0),
        ("no-sale", "f", 0),
        ("no-e", "e", 0),
    }
    assert slate(Rules(exclusions=(without("item_type", "x"), without("item_type", "y"), without("item_id", "f"))))[0] == ""


def test_a_boost_changes_relevance_before_the_slate_is_chosen() -> None:
    # d: 0.4 × 2 + 0.15 = 0.95; c with both: (0.6 × 2 + 0.15) = 1.35
    shown, arranged = slate(Rules(boosts=(boost("tag", "new", factor=2.0), boost("tag", "new", addend=0.15))), 3)
    assert shown == "cad"
    assert ("more-new", "c", 3, 1) in effects(arranged)
    assert ("more-new", "d", 0, 3) in effects(arranged)
    assert slate(Rules(boosts=(boost("item_id", "a", factor=0.0),)))[0] == "bcdeaf"


def test_a_cap_bounds_a_type_and_a_pin_counts_for_it() -> None:
    shown, arranged = slate(Rules(caps=(cap("x", 1),)))
    assert shown == "adef"
    assert effects(arranged) == [("cap-x", "b", 2, 0), ("cap-x", "c", 3, 0)]
    assert slate(Rules(caps=(cap("x", 1),), pins=(pin("c", 2),)))[0] == "dcef"
    assert slate(Rules(caps=(cap("x", 0),), pins=(pin("c", 2),)))[0] == "dcef"
    assert slate(Rules(caps=(cap("x", 2), cap("x", 1))))[0] == "adef"


def test_a_cap_for_every_type_spares_those_with_their_own_and_the_unknown() -> None:
    assert slate(Rules(caps=(cap("", 1),)))[0] == "adf"
    assert slate(Rules(caps=(cap("", 1), cap("x", 2))))[0] == "abdf"


rules = st.builds(
    Rules,
    pins=st.lists(st.builds(pin, st.sampled_from([*IDS, "zzz"]), st.integers(1, 8)), max_size=3).map(tuple),
    boosts=st.lists(st.builds(boost, st.just("tag"), st.sampled_from(["sale", "new"]), st.sampled_from([0.0, 0.5, 3.0])), max_size=2).map(
        tuple
    ),
    exclusions=st.lists(
        st.one_of(st.builds(without, st.just("item_id"), st.sampled_from(IDS)), st.builds(without, st.just("tag"), st.just("new"))),
        max_size=2,
    ).map(tuple),
    caps=st.lists(st.builds(cap, st.sampled_from(["", "x", "y", "zzz"]), st.integers(0, 2)), max_size=2).map(tuple),
)
explorations = st.sampled_from(
    [None, Exploration(policy="epsilon_greedy", epsilon=0.7), Exploration(policy="thompson", spread=0.8)],
)


@settings(max_examples=200, deadline=None)
@given(rules, explorations, st.integers(0, 7), st.sampled_from(["mmr", "dpp"]), st.sampled_from([0.0, 0.6, 1.0]), st.integers(0, 2**32))
def test_no_draw_and_no_diversifier_breaks_a_rule(
    asked: Rules, exploration: Exploration | None, count: int, diversifier: Diversifier, balance: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(6)
    vectors = rng.normal(size=(6, 3))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chance = None if exploration is None else Chance(exploration=exploration, rng=rng, doubt=np.ones(6))
    manner = Manner(count=count, balance=balance, diversifier=diversifier, chance=chance)
    arranged = arrange(order, RELEVANCE, Matrix(unit @ unit.T), rules=asked, offered=OFFERED, manner=manner)
    shown = order[arranged.places].tolist()
    assert len(shown) == len(set(shown)) <= (count or 6)
    assert ((arranged.propensities > 0) & (arranged.propensities <= 1)).all()
    excluded = {place for place in range(6) for one in asked.exclusions if one.target.value in (IDS[place], *TAGS[place])}
    assert not excluded & set(shown)
    pinned: dict[int, int] = {}
    for one in asked.pins:
        place = IDS.index(one.item_id) if one.item_id in IDS else -1
        if place >= 0 and place not in excluded | pinned.keys() and one.position not in pinned.values() and one.position <= (count or 8):
            pinned[place] = one.position
    for place, position in pinned.items():
        stands = shown.index(place) + 1
        assert stands == position or (stands < position and all(other in pinned for other in shown[stands - 1 :]))
        assert arranged.propensities[stands - 1] == 1.0
    own = {one.item_type for one in asked.caps}
    for item_type in ("x", "y"):
        bounds = [one.max_count for one in asked.caps if one.item_type == item_type or (not one.item_type and item_type not in own)]
        free = sum(TYPES[place] == item_type and place not in pinned for place in shown)
        stands = sum(TYPES[place] == item_type and place in pinned for place in shown)
        assert not bounds or free <= max(0, min(bounds) - stands)


@pytest.mark.parametrize("policy", ["epsilon_greedy", "thompson"])
def test_frequencies_are_the_propensities_told_beside_pins_and_caps(policy: str) -> None:
    exploration = Exploration(policy=policy, epsilon=0.4, spread=0.5)  # type: ignore[arg-type]
    asked = Rules(pins=(pin("e", 2),), caps=(cap("x", 2),))
    rng = np.random.default_rng(5)
    seen: Counter[tuple[str, int]] = Counter()
    told: dict[tuple[str, int], float] = {}
    draws = 3000
    similarities = np.full((6, 6), 0.2)
    for _ in range(draws):
        chance = Chance(exploration=exploration, rng=rng, doubt=np.array([0.1, 1.0, 1.0, 0.5, 1.0, 1.0]))
        manner = Manner(count=4, balance=0.8, chance=chance)
        arranged = arrange(np.arange(6), RELEVANCE, Matrix(similarities), rules=asked, offered=OFFERED, manner=manner)
        for position, (place, propensity) in enumerate(zip(arranged.places.tolist(), arranged.propensities.tolist(), strict=True), start=1):
            seen[IDS[place], position] += 1
            assert told.setdefault((IDS[place], position), propensity) == pytest.approx(propensity, abs=1e-12)
        assert arranged.pool_size == 4, "of three x there is room for two, e is pinned; d and f"
    assert seen["e", 2] == draws
    for cell, probability in told.items():
        assert abs(seen[cell] / draws - probability) <= 5 * (probability * (1 - probability) / draws) ** 0.5 + 1 / draws, cell
