"""How varied slates are: by hand, and against a pair-by-pair count."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.diversity import slate_diversity

ITEMS = st.lists(
    st.fixed_dictionaries({"item_type": st.sampled_from(["", "x", "y"]), "tags": st.lists(st.sampled_from("abcde"), unique=True)}),
    max_size=8,
)


def similarity(one: dict[str, Any], other: dict[str, Any]) -> float:
    equal = bool(one["item_type"]) and one["item_type"] == other["item_type"]
    shared, either = set(one["tags"]) & set(other["tags"]), set(one["tags"]) | set(other["tags"])
    return (len(shared) + equal) / max(1, len(either) + equal)


@given(ITEMS)
def test_it_is_one_less_the_mean_similarity_of_pairs(items: list[dict[str, Any]]) -> None:
    pairs = list(combinations(items, 2))
    found = slate_diversity({"items": items})
    if pairs:
        assert found == pytest.approx(1 - sum(similarity(*pair) for pair in pairs) / len(pairs))
    else:
        assert found is None


def test_what_the_ranker_said_stands() -> None:
    assert slate_diversity({"items": [{"item_type": "x"}, {"item_type": "x"}], "diversity_score": 0.25}) == 0.25
    # Two shared tags and the type, of three tags and the type: 3/4 alike.
    items = [{"item_type": "x", "tags": ["a", "b"]}, {"item_type": "x", "tags": ["a", "b", "c"]}]
    assert slate_diversity({"items": items}) == pytest.approx(1 - 3 / 4)
