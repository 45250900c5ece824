"""Average precision and reciprocal rank: worked values, and the mean over every order that the scores allow."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.training.evaluation import slate_precision


def precision(scores: list[float], labels: list[float]) -> tuple[float, float]:
    mean, reciprocal = slate_precision(np.array(scores, dtype=float), np.array(labels, dtype=float), np.array([0, len(scores)]))
    return float(mean[0]), float(reciprocal[0])


def of_order(labels: tuple[float, ...]) -> tuple[float, float]:
    places = [place for place, label in enumerate(labels, start=1) if label >= 0.4]
    return sum(found / place for found, place in enumerate(places, start=1)) / len(places), 1 / places[0]


def test_worked_values() -> None:
    # Relevant in places 1 and 3: (1/1 + 2/3) / 2, and the first stands first. A view of 0.1 is not relevant.
    assert precision([3, 2, 1], [0.4, 0.1, 1.0]) == pytest.approx(((1 + 2 / 3) / 2, 1.0))
    assert precision([3, 2, 1], [0.0, 0.0, 0.4]) == pytest.approx((1 / 3, 1 / 3))
    # Two that are equal: either stands first half of the time.
    assert precision([1, 1], [1.0, 0.0]) == pytest.approx(((1 + 1 / 2) / 2, (1 + 1 / 2) / 2))


def test_without_a_relevant_item_there_is_neither() -> None:
    assert all(math.isnan(value) for value in precision([2, 1], [0.1, 0.3]))
    mean, reciprocal = slate_precision(np.array([2.0, 1.0, 5.0]), np.array([0.1, 0.3, 1.0]), np.array([0, 2, 3]))
    assert [math.isnan(mean[0]), mean[1], reciprocal[1]] == [True, 1.0, 1.0]
    assert slate_precision(np.empty(0), np.empty(0), np.array([0]))[0].size == 0


few = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.1, 0.4, 1.0])), min_size=1, max_size=6)


@given(slates=st.lists(few, min_size=1, max_size=5))
def test_it_is_the_mean_over_all_orders_the_scores_allow(slates: list[list[tuple[int, float]]]) -> None:
    flat = [row for slate in slates for row in slate]
    mean, reciprocal = slate_precision(
        np.array([row[0] for row in flat], dtype=float), np.array([row[1] for row in flat]), np.cumsum([0, *map(len, slates)])
    )
    for place, slate in enumerate(slates):
        if not any(label >= 0.4 for _, label in slate):
            assert math.isnan(mean[place])
            continue
        allowed = [
            of_order(tuple(slate[i][1] for i in order))
            for order in itertools.permutations(range(len(slate)))
            if all(slate[a][0] >= slate[b][0] for a, b in itertools.pairwise(order))
        ]
        assert mean[place] == pytest.approx(sum(one[0] for one in allowed) / len(allowed))
        assert reciprocal[place] == pytest.approx(sum(one[1] for one in allowed) / len(allowed))
