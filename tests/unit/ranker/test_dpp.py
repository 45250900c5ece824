"""The greedy search of a DPP: equal to determinants worked out one by one, and to a peer on the same kernel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyversity.strategies import dpp as peer

from ranker.diversity.dpp import dpp
from ranker.diversity.mmr import mmr
from ranker.diversity.quota import Quota
from tests.unit.ranker.matrices import Matrix


def cosines(rng: np.random.Generator, count: int, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    vectors = rng.normal(size=(count, size))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, unit @ unit.T


def naive(relevance: NDArray[np.float64], similarities: NDArray[np.float64], count: int, balance: float) -> list[int]:
    """By the determinant of every slate that one more item would make."""
    chosen: list[int] = []
    while len(chosen) < count:
        worth = {}
        for place in set(range(len(relevance))) - set(chosen):
            slate = [*chosen, place]
            volume = np.linalg.slogdet(similarities[np.ix_(slate, slate)])[1]
            worth[place] = balance * relevance[slate].sum() + (1 - balance) * volume
        chosen.append(max(worth, key=lambda place: worth[place]))
    return chosen


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 14), st.sampled_from([0.0, 0.3, 0.7, 0.95]))
def test_equals_determinants_worked_out_one_by_one(seed: int, count: int, balance: float) -> None:
    rng = np.random.default_rng(seed)
    _, similarities = cosines(rng, count, 16)
    relevance = np.sort(rng.random(count))[::-1].copy()
    # With λ = 0 all first choices are equal; the first stands.
    wanted = naive(relevance, similarities, min(count, 6), balance) if balance else None
    found = dpp(relevance, Matrix(similarities), count=min(count, 6), balance=balance).places.tolist()
    assert found[0] == 0
    assert wanted is None or found == wanted


def test_equals_pyversity_on_its_own_weights() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        relevance = np.sort(rng.random(30))[::-1].copy()
        vectors, similarities = cosines(rng, 30, 12)
        diversity = 0.4
        theirs = peer(vectors, relevance, k=10, diversity=diversity).indices.tolist()
        # Its kernel is w·S·w with w = exp(β·z), so that log det = 2·Σ β·z + log det S: our balance with 2·β·z for λ ÷ (1 − λ) · relevance.
        z = (relevance - relevance.mean()) / relevance.std()
        ours = dpp(2 * (1 - diversity) * z, Matrix(similarities), count=10, balance=0.5).places.tolist()
        assert ours == theirs


def test_lambda_one_is_pure_relevance_and_a_filled_space_is_followed_by_relevance() -> None:
    rng = np.random.default_rng(4)
    relevance = np.sort(rng.random(20))[::-1].copy()
    _, similarities = cosines(rng, 20, 3)
    assert dpp(relevance, Matrix(similarities), count=20, balance=1.0).places.tolist() == list(range(20))
    alike = np.ones((4, 4))
    assert dpp(relevance[:4].copy(), Matrix(alike), count=3, balance=1.0).places.tolist() == [0, 1, 2], "even where all are the same"
    found = dpp(relevance, Matrix(similarities), count=20, balance=0.5).places.tolist()
    assert sorted(found) == list(range(20))
    assert found[3:] == sorted(found[3:]), "three dimensions span three items; what follows adds nothing but its relevance"


@pytest.mark.parametrize("balance", [0.3, 1.0])
def test_what_stands_and_what_is_bounded_is_heeded(balance: float) -> None:
    similarities = np.eye(4)
    similarities[0, 1] = similarities[1, 0] = 0.99
    types = np.array([0, 1, 1, 0])
    relevance = np.array([1.0, 0.9, 0.5, 0.2])
    with_given = dpp(relevance, Matrix(similarities), count=3, balance=balance, given=[0])
    assert with_given.places.tolist() == ([1, 2, 3] if balance == 1.0 else [2, 3, 1])
    bounded = dpp(relevance, Matrix(similarities), count=4, balance=balance, quota=Quota(types, {1: 1}))
    assert len(bounded.places) == 3
    assert sum(types[bounded.places] == 1) == 1


def test_likenesses_that_are_no_kernel_do_no_harm() -> None:
    # Not positive semi-definite: a and b as good as equal, and c like a but unlike b.
    similarities = np.array([[1.0, 1.0, 0.9], [1.0, 1.0, -0.9], [0.9, -0.9, 1.0]])
    picks = dpp(np.array([1.0, 0.5, 0.0]), Matrix(similarities), count=3, balance=0.5)
    assert sorted(picks.places.tolist()) == [0, 1, 2]
    assert np.isfinite(picks.values).all()


def test_the_worth_of_choices_falls_as_that_of_mmr_does() -> None:
    rng = np.random.default_rng(5)
    relevance = np.sort(rng.random(15))[::-1].copy()
    _, similarities = cosines(rng, 15, 32)
    for diversify in (dpp, mmr):
        picks = diversify(relevance, Matrix(np.abs(similarities)), count=10, balance=0.6)
        assert (np.diff(picks.values[picks.places]) <= 0).all()
        assert np.delete(picks.values, picks.places).max() <= picks.values[picks.places[-1]]
