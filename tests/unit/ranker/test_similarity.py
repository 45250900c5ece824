"""Similarity of candidates, and the diversity of a slate."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ranker.diversity import similarity as module
from ranker.diversity.similarity import Similarities, diversity_score
from ranker.features.columns import Candidates
from ranker.features.decoding import decode
from ranker.features.schema import default_schema
from ranker.state.items import ItemState
from rankloop.v1.ranking_pb2 import Candidate, RankRequest

SCHEMA = default_schema()


def joined(*candidates: Candidate) -> Candidates:
    items = ItemState(SCHEMA.names[SCHEMA.families["request"]], today=0)
    return items.join(decode(RankRequest(candidates=candidates), SCHEMA, 0.0))


def similarity(found: Candidates, *, expected_rows: int = 1000) -> NDArray[np.float64]:
    """Of all pairs."""
    every = np.arange(len(found.item_ids))
    return Similarities(found, every, expected_rows=expected_rows).among(every)


def naive(a: Candidate, b: Candidate) -> float:
    if any(a.embedding) and any(b.embedding):
        x, y = np.array(a.embedding), np.array(b.embedding)
        return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
    equal = a.item_type != "" and a.item_type == b.item_type
    shared, union = len(set(a.tags) & set(b.tags)) + equal, len(set(a.tags) | set(b.tags)) + equal
    return shared / union if union else 0.0


candidates = st.builds(
    lambda tags, kind, embedding: Candidate(tags=tags, item_type=kind, embedding=embedding),
    st.lists(st.sampled_from("abcde"), max_size=5),
    st.sampled_from(["", "x", "y"]),
    st.one_of(st.just([]), st.lists(st.sampled_from([-2.0, 0.0, 0.5, 1.0]), min_size=3, max_size=3)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(candidates, min_size=1, max_size=8))
def test_equals_the_definition_pair_by_pair(listed: list[Candidate]) -> None:
    for place, candidate in enumerate(listed):
        candidate.item_id = str(place)
    found = similarity(joined(*listed))
    for i, a in enumerate(listed):
        for j, b in enumerate(listed):
            if i != j:
                assert found[i, j] == pytest.approx(naive(a, b), abs=1e-6)


def test_an_equal_type_is_one_shared_tag() -> None:
    found = similarity(
        joined(
            Candidate(item_id="1", item_type="t", tags=["a", "b"]),
            Candidate(item_id="2", item_type="t", tags=["b", "c"]),
            Candidate(item_id="3", item_type="u", tags=["b", "c"]),
        )
    )
    assert found[0, 1] == (1 + 1) / (3 + 1)
    assert found[0, 2] == 1 / 3
    assert found[1, 2] == 2 / 2


@settings(max_examples=60, deadline=None)
@given(st.lists(candidates, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_row_by_row_and_in_any_order_is_the_same(listed: list[Candidate], random: Random) -> None:
    for place, candidate in enumerate(listed):
        candidate.item_id = str(place)
    found, order = joined(*listed), list(range(len(listed)))
    whole = similarity(found)
    random.shuffle(order)
    order = order[: random.randint(1, len(order))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WHOLE_CELLS", 0)
        patch.setattr(module, "TABLE_CELLS", 0)
        rows = Similarities(found, np.array(order), expected_rows=0)
        for place, one in enumerate(order):
            assert rows.row(place) == pytest.approx(whole[one, order], abs=1e-6)
        every = np.arange(len(order))
        assert rows.among(every) == pytest.approx(whole[np.ix_(order, order)], abs=1e-6)


def test_diversity_is_one_minus_the_mean_of_the_pairs() -> None:
    similarities = np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.9], [0.4, 0.9, 1.0]])
    assert diversity_score(similarities) == pytest.approx(1 - (0.2 + 0.4 + 0.9) / 3)
    assert diversity_score(np.array([[1.0, -0.5], [-0.5, 1.0]])) == 1.0
    assert diversity_score(np.ones((1, 1))) is None
    assert diversity_score(np.ones((0, 0))) is None
