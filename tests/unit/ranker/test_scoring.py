"""Scores, relevance and contributions."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.features.schema import default_schema
from ranker.scoring.explanation import BASE, OTHERS
from ranker.scoring.relevance import best_first, relevance
from ranker.scoring.scorer import ForestScorer, UnknownFeatures

SCHEMA = default_schema()
finite = st.floats(allow_nan=False, allow_infinity=False)


def booster(columns: int, *, seed: int = 0) -> lightgbm.Booster:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(400, columns))
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    labels = np.nan_to_num(matrix[:, 0]) + 0.5 * np.nan_to_num(matrix[:, columns - 1])
    data = lightgbm.Dataset(matrix, labels, free_raw_data=False)
    trained = lightgbm.train({"objective": "regression", "num_leaves": 7, "verbosity": -1, "num_threads": 1, "seed": seed}, data, 20)
    return lightgbm.Booster(model_str=trained.model_to_string())


def rows(count: int, *, seed: int = 1) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, len(SCHEMA)))
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    return matrix


@given(st.lists(finite, min_size=1, max_size=40))
def test_relevance_keeps_the_order_and_the_best_has_one(scores: list[float]) -> None:
    found = relevance(np.array(scores))
    assert found.max() == 1.0
    assert found.min() >= 0.0
    assert (np.diff(found[np.argsort(scores)]) >= 0).all()
    assert found[int(np.argmax(scores))] == 1.0


def test_relevance_is_min_max() -> None:
    assert relevance(np.array([-1.0, 0.0, 3.0])).tolist() == [0.0, (0 - -1) / (3 - -1), 1.0]
    assert relevance(np.array([2.0, 2.0])).tolist() == [1.0, 1.0]
    assert relevance(np.array([])).tolist() == []


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=30), st.randoms())
def test_equal_scores_stand_by_item_id(scores: list[float], random: object) -> None:
    ids = [f"i{place:02d}" for place in range(len(scores))]
    random.shuffle(ids)  # type: ignore[attr-defined]
    order = best_first(np.array(scores), ids).tolist()
    assert order == sorted(range(len(scores)), key=lambda place: (-scores[place], ids[place]))


def test_columns_are_found_by_name_whatever_their_order() -> None:
    names = ("list_size", "hour", "prior_score")
    model = booster(3)
    matrix = rows(50)
    expected = model.predict(matrix[:, [SCHEMA.index[name] for name in names]], raw_score=True)
    assert np.array_equal(ForestScorer(model, names, SCHEMA, version="v").score(matrix), expected)


def test_batch_equals_one_by_one() -> None:
    scorer = ForestScorer(booster(len(SCHEMA)), SCHEMA.names, SCHEMA, version="v")
    matrix = rows(30)
    assert scorer.score(matrix).tolist() == [float(scorer.score(matrix[place : place + 1])[0]) for place in range(30)]


def test_a_model_of_unknown_features_is_refused() -> None:
    with pytest.raises(UnknownFeatures, match="moon_phase") as caught:
        ForestScorer(booster(3), ("hour", "moon_phase", "cost"), SCHEMA, version="v")
    assert caught.value.names == ("moon_phase",)


def test_contributions_sum_to_the_score() -> None:
    scorer = ForestScorer(booster(len(SCHEMA)), SCHEMA.names, SCHEMA, version="v")
    matrix = rows(40)
    np.testing.assert_allclose(scorer.contributions(matrix).sum(axis=1), scorer.score(matrix), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_an_explanation_adds_up_to_the_score_and_names_the_largest_first(limit: int) -> None:
    scorer = ForestScorer(booster(len(SCHEMA)), SCHEMA.names, SCHEMA, version="v")
    matrix = rows(40)
    chosen = matrix[:5]
    for row, explained in enumerate(scorer.explain(chosen, beside=matrix, limit=limit)):
        added = scorer.contributions(chosen)[row, :-1]
        assert sum(one.contribution for one in explained) == pytest.approx(scorer.score(chosen)[row], rel=1e-9)
        listed = [one for one in explained if one.feature not in (OTHERS, BASE)]
        assert [abs(one.contribution) for one in listed] == sorted(np.abs(added[added != 0]).tolist(), reverse=True)[:limit]
        assert [one.feature for one in explained[len(listed) :]] == [OTHERS, BASE][int(len(listed) == (added != 0).sum()) :]
        for one in listed:
            column = SCHEMA.index[one.feature]
            assert one.meaning == SCHEMA.features[column].meaning
            assert np.array_equal(one.value, chosen[row, column], equal_nan=True)
            assert one.words.endswith(f"({one.contribution:+.2f})")
