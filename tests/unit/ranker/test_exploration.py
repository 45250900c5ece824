"""Exploration: the probability of every impression is what happens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.exploration import epsilon_greedy as greedy
from ranker.exploration import thompson as sampling
from ranker.exploration.epsilon_greedy import epsilon_greedy
from ranker.exploration.exploration import Explored, seed_of
from ranker.exploration.thompson import LEVELS, POINTS, thompson

DRAWS = 4000


def tree(size: int, count: int, epsilon: float) -> dict[tuple[int, int], float]:
    """The probability of every candidate at every position, by walking all that can happen."""
    found: dict[tuple[int, int], float] = defaultdict(float)

    def walk(left: tuple[int, ...], position: int, probability: float) -> None:
        if position == count:
            return
        for place, candidate in enumerate(left):
            chance = probability * (epsilon / len(left) + (1 - epsilon if place == 0 else 0))
            if chance:
                found[candidate, position] += chance
                walk(left[:place] + left[place + 1 :], position + 1, chance)

    walk(tuple(range(size)), 0, 1.0)
    return found


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 2), (5, 5), (6, 3)])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.6, 1.0])
def test_epsilon_greedy_is_what_walking_all_that_can_happen_gives(size: int, count: int, epsilon: float) -> None:
    wanted = tree(size, count, epsilon)
    for shown in permutations(range(size), count):
        told = greedy.probabilities(size, list(shown), epsilon)
        assert told == pytest.approx([wanted[candidate, position] for position, candidate in enumerate(shown)], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32), st.data())
def test_thompson_is_what_all_draws_together_give(size: int, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    count = data.draw(st.integers(1, size))
    # Few points and rounded ones, so that draws are equal now and then.
    beliefs = np.sort(np.round(rng.normal(size=(size, 4)), 1), axis=1)
    wanted: Counter[tuple[int, int]] = Counter()
    for draw in product(range(4), repeat=size):
        drawn = beliefs[np.arange(size), draw]
        wanted.update((int(candidate), position) for position, candidate in enumerate(np.argsort(-drawn, kind="stable")[:count]))
    for _ in range(3):
        shown = rng.permutation(size)[:count]
        told = sampling.probabilities(beliefs, shown)
        assert told == pytest.approx([wanted[int(candidate), position] / 4**size for position, candidate in enumerate(shown)], abs=1e-12)


def epsilon_slate(rng: np.random.Generator) -> Explored:
    return epsilon_greedy(30, 8, 0.3, rng)


def thompson_slate(rng: np.random.Generator) -> Explored:
    return thompson(np.linspace(1.0, 0.0, 30), np.linspace(0.02, 0.4, 30), 8, rng)


def pooled_slate(rng: np.random.Generator) -> Explored:
    return thompson(np.linspace(1.0, 0.0, 30), np.full(30, 0.2), 12, rng, depth=9)


@pytest.mark.parametrize("slate", [epsilon_slate, thompson_slate, pooled_slate])
def test_frequencies_are_the_probabilities_told(slate: Callable[[np.random.Generator], Explored]) -> None:
    rng = np.random.default_rng(11)
    seen: Counter[tuple[int, int]] = Counter()
    told: dict[tuple[int, int], float] = {}
    for _ in range(DRAWS):
        explored = slate(rng)
        assert len(set(explored.places.tolist())) == len(explored.places)
        for position, (candidate, propensity) in enumerate(zip(explored.places.tolist(), explored.propensities.tolist(), strict=True)):
            seen[candidate, position] += 1
            # The same impression is told the same probability, whatever else stands in its slate.
            assert told.setdefault((candidate, position), propensity) == pytest.approx(propensity, abs=1e-12)
            assert 0.0 < propensity <= 1.0
    # Of some 200 cells, the worst is hardly ever 5 standard errors away.
    for cell, probability in told.items():
        error = (probability * (1 - probability) / DRAWS) ** 0.5
        assert abs(seen[cell] / DRAWS - probability) <= 5 * error + 1 / DRAWS, (cell, probability)
    # And what was never seen is rare: the told probabilities of a position add up to nearly 1.
    for position in range(len(explored.places)):
        assert sum(probability for (_, at), probability in told.items() if at == position) == pytest.approx(1.0, abs=0.02)


def test_epsilon_greedy_of_many_is_exact_to_the_last_position() -> None:
    rng = np.random.default_rng(1)
    explored = epsilon_greedy(400, 400, 0.2, rng)
    assert (explored.propensities > 0).all()
    # At the last position every candidate has some probability, and they add up to 1.
    last = [greedy.probabilities(40, [*(other for other in range(40) if other != one), one], 0.2)[-1] for one in range(40)]
    assert sum(last) == pytest.approx(1.0, abs=1e-12)


def test_nothing_is_left_to_chance_where_there_is_none() -> None:
    rng = np.random.default_rng(1)
    for explored in (epsilon_greedy(6, 4, 0.0, rng), thompson(np.linspace(1.0, 0.5, 6), np.zeros(6), 4, rng)):
        assert explored.places.tolist() == [0, 1, 2, 3]
        assert explored.propensities.tolist() == [1.0] * 4
    assert epsilon_greedy(0, 0, 0.5, rng).places.tolist() == []
    assert thompson(np.empty(0), np.empty(0), 0, rng).places.tolist() == []


def test_thompson_draws_those_that_can_come_highest_and_leaves_the_others_in_order() -> None:
    worth, deviation = np.array([1.0, 0.9, 0.8, 0.7, 0.1]), np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    assert worth[4] + POINTS[-1] > worth[0]
    for seed in range(20):
        explored = thompson(worth, deviation, 5, np.random.default_rng(seed), depth=2)
        assert explored.places.tolist() in ([0, 4, 1, 2, 3], [4, 0, 1, 2, 3])
        above = (worth[4] + POINTS > 1.0).sum() / LEVELS
        assert explored.propensities[0] == pytest.approx(above if explored.places[0] == 4 else 1 - above)
        assert explored.propensities[2:].tolist() == [1.0, 1.0, 1.0]
        assert explored.pool_size == 2


def test_a_seed_is_of_its_slate() -> None:
    assert seed_of("a") == seed_of("a") != seed_of("b")
    assert 0 <= seed_of("") < 2**63
