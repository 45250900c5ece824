"""Similarity of candidates, and the diversity of a slate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.diversity import similarity as module
from ranker.diversity.similarity import diversity_score, similarity
from ranker.features.columns import Candidates
from ranker.features.decoding import decode
from ranker.features.schema import default_schema
from ranker.state.items import ItemState
from rankloop.v1.ranking_pb2 import Candidate, RankRequest

SCHEMA = default_schema()


def joined(*candidates: Candidate) -> Candidates:
    items = ItemState(SCHEMA.names[SCHEMA.families["request"]], today=0)
    return items.join(decode(RankRequest(candidates=candidates), SCHEMA, 0.0))


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


@settings(max_examples=200, deadline=None)
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


def test_many_tags_give_the_same_through_the_sparse_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    listed = [Candidate(item_id=str(n), tags=[f"t{tag}" for tag in rng.integers(0, 30, 6)], item_type=str(n % 3)) for n in range(40)]
    dense = similarity(joined(*listed))
    monkeypatch.setattr(module, "DENSE_CELLS", 0)
    assert np.array_equal(similarity(joined(*listed)), dense)


def test_diversity_is_one_minus_the_mean_of_the_pairs() -> None:
    similarities = np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.9], [0.4, 0.9, 1.0]])
    assert diversity_score(similarities) == pytest.approx(1 - (0.2 + 0.4 + 0.9) / 3)
    assert diversity_score(np.array([[1.0, -0.5], [-0.5, 1.0]])) == 1.0
    assert diversity_score(np.ones((1, 1))) is None
    assert diversity_score(np.ones((0, 0))) is None
