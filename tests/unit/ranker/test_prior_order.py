"""The order without a model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ranker.prior import CALLER_ORDER, PRIOR_SCORE, prior_order
from rankloop.v1.ranking_pb2 import Candidate


def test_by_prior_then_by_id_then_those_without_in_the_callers_order() -> None:
    candidates = [
        Candidate(item_id="z"),
        Candidate(item_id="c", prior_score=1.0),
        Candidate(item_id="b", prior_score=3.0),
        Candidate(item_id="a", prior_score=1.0),
        Candidate(item_id="y"),
        Candidate(item_id="d", prior_score=2.0),
    ]
    order = prior_order(candidates)
    assert [candidates[index].item_id for index in order.indexes] == ["b", "d", "a", "c", "z", "y"]
    assert order.scores == [3.0, 2.0, 1.0, 1.0, 0.0, 0.0]
    assert order.relevances == [1.0, (2 - 1) / (3 - 1), 0.0, 0.0, 0.0, 0.0]
    assert order.algorithm == PRIOR_SCORE


def test_without_any_prior_the_caller_has_ordered_already() -> None:
    order = prior_order([Candidate(item_id="b"), Candidate(item_id="a")])
    assert list(order.indexes) == [0, 1]
    assert list(order.relevances) == [1.0, 1.0]
    assert order.algorithm == CALLER_ORDER


def test_equal_priors_are_all_fully_relevant() -> None:
    order = prior_order([Candidate(item_id="b", prior_score=-2.0), Candidate(item_id="a", prior_score=-2.0)])
    assert list(order.indexes) == [1, 0]
    assert list(order.relevances) == [1.0, 1.0]


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=30))
def test_every_candidate_once_and_relevance_within_bounds(priors: list[float | None]) -> None:
    order = prior_order([Candidate(item_id=str(place), prior_score=prior) for place, prior in enumerate(priors)])
    assert sorted(order.indexes) == list(range(len(priors)))
    assert all(0.0 <= relevance <= 1.0 for relevance in order.relevances)
    assert max(order.relevances) == 1.0
    known = [score for index, score in zip(order.indexes, order.scores, strict=True) if priors[index] is not None]
    assert known == sorted(known, reverse=True)
