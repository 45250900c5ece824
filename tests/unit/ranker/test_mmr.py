"""MMR: equal to the formula written out, and to a peer under its own clipping."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyversity.strategies import mmr as peer

from ranker.diversity.mmr import mmr


def naive(relevance: list[float], similarities: NDArray[np.float64], count: int, balance: float) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < count:
        left = [place for place in range(len(relevance)) if place not in chosen]
        if chosen:
            value = {i: balance * relevance[i] - (1 - balance) * max(float(similarities[i, j]) for j in chosen) for i in left}
        else:
            value = {i: relevance[i] for i in left}
        best = max(value.values())
        chosen.append(next(i for i in left if value[i] == best))
    return chosen


@st.composite
def slates(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64], int, float]:
    count = draw(st.integers(1, 12))
    # Few different values, so that ties are common.
    relevance = sorted(draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]), min_size=count, max_size=count)), reverse=True)
    upper = np.triu(
        np.array(draw(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=count**2, max_size=count**2))).reshape(count, count),
        1,
    )
    return np.array(relevance), upper + upper.T + np.eye(count), draw(st.integers(0, count)), draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))


@settings(max_examples=300, deadline=None)
@given(slates())
def test_equals_the_formula_written_out(slate: tuple[NDArray[np.float64], NDArray[np.float64], int, float]) -> None:
    relevance, similarities, count, balance = slate
    expected = list(range(count)) if balance == 1.0 else naive(relevance.tolist(), similarities, count, balance)
    assert mmr(relevance, similarities, count=count, balance=balance).tolist() == expected


@given(slates())
def test_lambda_one_is_pure_relevance(slate: tuple[NDArray[np.float64], NDArray[np.float64], int, float]) -> None:
    relevance, similarities, count, _ = slate
    assert mmr(relevance, similarities, count=count, balance=1.0).tolist() == list(range(count))


@pytest.mark.parametrize("balance", [0.1, 0.5, 0.7, 0.9])
def test_equals_pyversity_where_cosines_are_not_negative(balance: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        relevance = np.sort(rng.random(40))[::-1].copy()
        vectors = rng.random((40, 8))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        theirs = peer(vectors, relevance, k=15, diversity=1.0 - balance, normalize=True)
        ours = mmr(relevance, np.clip(unit @ unit.T, 0.0, 1.0), count=15, balance=balance)
        assert ours.tolist() == theirs.indices.tolist()


def test_signed_similarities_are_used_as_they_are() -> None:
    similarities = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    # 0.5·0.9 − 0.5·0 = 0.45 against 0.5·0.1 − 0.5·(−1) = 0.55
    assert mmr(np.array([1.0, 0.9, 0.1]), similarities, count=2, balance=0.5).tolist() == [0, 2]
