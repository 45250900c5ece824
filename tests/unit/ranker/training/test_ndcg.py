"""NDCG: worked values, a second implementation by permutations, laws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.training.evaluation import slate_ndcg, user_means
from ranker.training.labels import GRADES_PER_LABEL, LABEL_GAIN, gains, grades


def ndcg(scores: list[float], labels: list[float], cutoff: int) -> float:
    offsets = np.array([0, len(scores)])
    return float(slate_ndcg(np.array(scores, dtype=float), np.array(labels, dtype=float), offsets, cutoff)[0])


def dcg(labels: list[float], cutoff: int) -> float:
    return sum((2 ** (4 * label) - 1) / math.log2(place + 1) for place, label in enumerate(labels[:cutoff], start=1))


def by_permutations(scores: list[float], labels: list[float], cutoff: int) -> float:
    """The mean over every order that the scores allow."""
    allowed = [
        [labels[i] for i in order]
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return sum(dcg(order, cutoff) for order in allowed) / len(allowed) / dcg(sorted(labels, reverse=True), cutoff)


def test_a_purchase_in_second_place() -> None:
    # Gains 2^0 − 1 = 0 and 2^4 − 1 = 15.
    assert ndcg([2, 1], [0.0, 1.0], 10) == pytest.approx(1 / math.log2(3))


def test_a_click_above_a_purchase() -> None:
    reached = (2**1.6 - 1) / math.log2(2) + 15 / math.log2(3)
    ideal = 15 / math.log2(2) + (2**1.6 - 1) / math.log2(3)
    assert ndcg([2, 1], [0.4, 1.0], 10) == pytest.approx(reached / ideal)


def test_what_stands_below_the_cutoff_counts_nothing() -> None:
    assert ndcg([3, 2, 1], [0.0, 0.0, 1.0], 2) == 0.0
    assert ndcg([3, 2, 1], [0.0, 0.0, 1.0], 3) == pytest.approx(1 / math.log2(4))


def test_equal_scores_share_their_places() -> None:
    assert ndcg([1, 1], [1.0, 0.0], 10) == pytest.approx((1 + 1 / math.log2(3)) / 2)
    # At a cutoff of 1 either one stands there half of the time.
    assert ndcg([1, 1], [1.0, 0.0], 1) == pytest.approx(1 / 2)


def test_a_missing_score_ranks_last() -> None:
    assert ndcg([math.nan, -1e300], [1.0, 0.0], 10) == pytest.approx(1 / math.log2(3))


def test_a_slate_without_a_label_has_no_ndcg() -> None:
    assert math.isnan(ndcg([2, 1], [0.0, 0.0], 10))


def test_the_ideal_order_is_1_and_slates_do_not_mix() -> None:
    scores = np.array([1.0, 2.0, 9.0, 8.0, 7.0])
    labels = np.array([0.4, 1.0, 0.0, 0.0, 1.0])
    values = slate_ndcg(scores, labels, np.array([0, 2, 5]), 10)
    assert values == pytest.approx([1.0, 1 / math.log2(4)])


few = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.1, 0.4, 0.8, 1.0])), min_size=1, max_size=6)


@given(rows=few, cutoff=st.integers(1, 7))
def test_it_is_the_mean_over_all_orders_the_scores_allow(rows: list[tuple[int, float]], cutoff: int) -> None:
    scores, labels = [float(score) for score, _ in rows], [label for _, label in rows]
    if max(labels) > 0:
        assert ndcg(scores, labels, cutoff) == pytest.approx(by_permutations(scores, labels, cutoff))


@given(slates=st.lists(few, min_size=1, max_size=8), cutoff=st.integers(1, 7))
def test_many_slates_are_as_one_by_one(slates: list[list[tuple[int, float]]], cutoff: int) -> None:
    flat = [row for slate in slates for row in slate]
    offsets = np.cumsum([0, *map(len, slates)])
    together = slate_ndcg(np.array([row[0] for row in flat], dtype=float), np.array([row[1] for row in flat]), offsets, cutoff)
    alone = [ndcg([float(row[0]) for row in slate], [row[1] for row in slate], cutoff) for slate in slates]
    np.testing.assert_allclose(together, alone)


def test_no_slates_have_no_values() -> None:
    assert slate_ndcg(np.empty(0), np.empty(0), np.array([0]), 5).size == 0


def test_each_user_counts_once() -> None:
    # User 7 has three slates, user 3 has one: 3 comes first, by code.
    assert user_means(np.array([1.0, 0.5, 0.0, 0.2]), np.array([7, 7, 7, 3])) == pytest.approx([0.2, 0.5])


@pytest.mark.parametrize(
    ("label", "grade"), [(0.0, 0), (0.1, 2), (0.3, 6), (0.4, 8), (0.6, 12), (0.8, 16), (0.9, 18), (1.0, 20), (0.001, 1)]
)
def test_grades_lie_on_a_grid_of_a_twentieth(label: float, grade: int) -> None:
    assert grades(np.array([label]))[0] == grade


def test_the_gain_of_a_grade_is_that_of_its_label() -> None:
    assert len(LABEL_GAIN) == GRADES_PER_LABEL + 1
    assert list(LABEL_GAIN) == pytest.approx(list(gains(np.arange(GRADES_PER_LABEL + 1) / GRADES_PER_LABEL)))
    assert (LABEL_GAIN[0], LABEL_GAIN[20]) == (0.0, 15.0)
    assert LABEL_GAIN[8] == pytest.approx(2**1.6 - 1)
