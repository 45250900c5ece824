"""MMR: equal to the formula written out, and to a peer under its own clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyversity.strategies import mmr as peer

from ranker.diversity.mmr import mmr
from ranker.diversity.quota import Quota
from tests.unit.ranker.matrices import Matrix


def naive(
    relevance: Sequence[float],
    similarities: NDArray[np.float64],
    count: int,
    balance: float,
    stands: Sequence[int] = (),
    types: Sequence[int] = (),
    most: Mapping[int, int] | None = None,
) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < count:
        slate = [*stands, *chosen]
        left = [place for place in range(len(relevance)) if place not in slate]
        for kind, bound in (most or {}).items():
            if sum(types[place] == kind for place in slate) >= bound:
                left = [place for place in left if types[place] != kind]
        if not left:
            break
        if slate and balance < 1:
            value = {i: balance * relevance[i] - (1 - balance) * max(float(similarities[i, j]) for j in slate) for i in left}
        else:
            value = {i: relevance[i] for i in left}
        best = max(value.values())
        chosen.append(next(i for i in left if value[i] == best))
    return chosen


Slate = tuple[NDArray[np.float64], NDArray[np.float64], int, float]


@st.composite
def slates(draw: st.DrawFn) -> Slate:
    count = draw(st.integers(1, 12))
    # Few different values, so that ties are common.
    relevance = sorted(draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]), min_size=count, max_size=count)), reverse=True)
    upper = np.triu(
        np.array(draw(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=count**2, max_size=count**2))).reshape(count, count),
        1,
    )
    return np.array(relevance), upper + upper.T + np.eye(count), draw(st.integers(0, count)), draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))


@settings(max_examples=150, deadline=None)
@given(slates())
def test_equals_the_formula_written_out(slate: Slate) -> None:
    relevance, similarities, count, balance = slate
    picks = mmr(relevance, Matrix(similarities), count=count, balance=balance)
    assert picks.places.tolist() == naive(relevance.tolist(), similarities, count, balance)


@settings(max_examples=150, deadline=None)
@given(slates(), st.data())
def test_equals_the_formula_with_items_that_stand_anyway_and_bounds_per_type(slate: Slate, data: st.DataObject) -> None:
    relevance, similarities, count, balance = slate
    stands = data.draw(st.lists(st.integers(0, len(relevance) - 1), unique=True, max_size=3))
    types = data.draw(st.lists(st.integers(0, 2), min_size=len(relevance), max_size=len(relevance)))
    most = data.draw(st.dictionaries(st.integers(0, 2), st.integers(0, 3), max_size=2))
    picks = mmr(
        relevance, Matrix(similarities), count=count, balance=balance, given=stands, quota=Quota(np.array(types, dtype=np.int64), most)
    )
    assert picks.places.tolist() == naive(relevance.tolist(), similarities, count, balance, stands, types, most)


@settings(max_examples=50, deadline=None)
@given(slates())
def test_lambda_one_is_pure_relevance(slate: Slate) -> None:
    relevance, similarities, count, _ = slate
    assert mmr(relevance, Matrix(similarities), count=count, balance=1.0).places.tolist() == list(range(count))


@settings(max_examples=50, deadline=None)
@given(slates())
def test_only_the_rows_of_what_was_chosen_are_asked_for(slate: Slate) -> None:
    relevance, similarities, count, balance = slate
    matrix = Matrix(similarities)
    picks = mmr(relevance, matrix, count=count, balance=balance)
    assert matrix.asked <= set(picks.places.tolist())


@settings(max_examples=50, deadline=None)
@given(slates())
def test_values_fall_from_the_second_choice_on_and_the_rest_is_worth_no_more_than_the_last(slate: Slate) -> None:
    relevance, similarities, count, balance = slate
    picks = mmr(relevance, Matrix(similarities), count=count, balance=balance)
    chosen = picks.values[picks.places]
    assert (np.diff(chosen[1:]) <= 0).all()
    rest = np.delete(picks.values, picks.places)
    if count >= 2 and len(rest):
        assert rest.max() <= chosen[-1]


@pytest.mark.parametrize("balance", [0.1, 0.5, 0.7, 0.9])
def test_equals_pyversity_where_cosines_are_not_negative(balance: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        relevance = np.sort(rng.random(40))[::-1].copy()
        vectors = rng.random((40, 8))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        theirs = peer(vectors, relevance, k=15, diversity=1.0 - balance, normalize=True)
        ours = mmr(relevance, Matrix(np.clip(unit @ unit.T, 0.0, 1.0)), count=15, balance=balance)
        assert ours.places.tolist() == theirs.indices.tolist()


def test_equals_pyversity_for_signed_embeddings_under_its_own_clipping() -> None:
    rng = np.random.default_rng(8)
    differing = 0
    for _ in range(20):
        relevance = np.sort(rng.random(40))[::-1].copy()
        vectors = rng.normal(size=(40, 4))
        cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
        theirs = peer(vectors, relevance, k=15, diversity=0.5, normalize=True).indices.tolist()
        assert mmr(relevance, Matrix(np.clip(cosines, 0.0, 1.0)), count=15, balance=0.5).places.tolist() == theirs
        differing += mmr(relevance, Matrix(cosines), count=15, balance=0.5).places.tolist() != theirs
    assert differing, "without clipping, opposites are worth more than strangers: the slates must differ now and then"


def test_signed_similarities_are_used_as_they_are() -> None:
    similarities = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    # 0.5·0.9 − 0.5·0 = 0.45 against 0.5·0.1 − 0.5·(−1) = 0.55
    assert mmr(np.array([1.0, 0.9, 0.1]), Matrix(similarities), count=2, balance=0.5).places.tolist() == [0, 2]


def test_a_slate_that_its_bounds_leave_too_few_for_is_short() -> None:
    picks = mmr(np.array([1.0, 0.5]), Matrix(np.eye(2)), count=2, balance=0.7, quota=Quota(np.zeros(2, dtype=np.int64), {0: 1}))
    assert picks.places.tolist() == [0]
    assert picks.values.tolist() == [0.7, -np.inf]
