"""Candidates read off the wire are those that Python reads, and whatever is wrong is left to Python to say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.features.decoding import decode
from ranker.features.scanning import CandidateReader
from ranker.features.schema import default_schema
from ranker.validation import MAX_CANDIDATES, check
from rankloop.v1.ranking_pb2 import Candidate, FeatureMatrix, RankRequest
from runtime.errors import InvalidInput

SCHEMA = default_schema(("x", "moonlight"))
READER = CandidateReader(SCHEMA, max_candidates=MAX_CANDIDATES)

names = st.one_of(st.sampled_from(SCHEMA.names), st.sampled_from(["", "unknown", "hour_", "cos", "costs", "ünknown"]), st.text(max_size=8))
numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -0.0, 5e-324]))
odd_numbers = st.sampled_from([math.nan, math.inf, -math.inf])
texts = st.text(max_size=6)
long_texts = st.sampled_from(["", "i" * 256, "i" * 257, "é" * 128, "é" * 129, "t" * 1024, "t" * 1025])
times = st.builds(Timestamp, seconds=st.integers(-62_135_596_800, 253_402_300_799), nanos=st.sampled_from([0, 1, 999_999_999]))
odd_times = st.builds(Timestamp, seconds=st.sampled_from([0, -(2**62), 2**62]), nanos=st.sampled_from([-1, 10**9, 0]))


def candidates(*, odd: bool) -> Any:
    def or_odd(plain: Any, strange: Any) -> Any:
        return st.one_of(plain, plain, plain, strange) if odd else plain

    return st.builds(
        Candidate,
        item_id=or_odd(st.text(min_size=1, max_size=6), long_texts),
        item_type=or_odd(texts, long_texts),
        prior_score=st.one_of(st.none(), or_odd(numbers, odd_numbers)),
        features=st.dictionaries(names, or_odd(numbers, odd_numbers), max_size=12),
        tags=st.lists(or_odd(texts, long_texts), max_size=12),
        embedding=or_odd(st.just([]) | st.just([0.5, -1.0, 3e38]), st.sampled_from([[1.0], [math.nan, 0.0, 0.0], [math.inf] * 3])),
        attributes=st.dictionaries(or_odd(st.sampled_from(["tier", "tier2", "brand"]), long_texts), or_odd(texts, long_texts), max_size=4),
        create_time=st.one_of(st.none(), or_odd(times, odd_times)),
    )


def requests(*, odd: bool) -> Any:
    return st.builds(
        RankRequest,
        user_id=texts,
        candidates=st.lists(candidates(odd=odd), min_size=1, max_size=6, unique_by=None if odd else lambda one: one.item_id),
        context_numbers=st.dictionaries(names, numbers, max_size=3),
        context=st.dictionaries(st.sampled_from(["device", "page"]), texts, max_size=2),
        mmr_lambda=st.one_of(st.none(), st.just(0.5)),
        explain=st.booleans(),
        top_k=st.integers(0, 5),
    )


def is_sound(request: RankRequest, embedding_size: int | None) -> bool:
    try:
        check(request, embedding_size=embedding_size)
    except InvalidInput:
        return False
    return True


@settings(max_examples=150)
@given(request=requests(odd=False), size=st.sampled_from([None, 3]))
def test_the_columns_are_those_that_python_reads(request: RankRequest, size: int | None) -> None:
    scanned = READER.read(request, embedding_size=size)
    assert scanned is not None
    check(request, embedding_size=size)
    assert_same(decode(request, SCHEMA, 5.0, scanned), decode(request, SCHEMA, 5.0))


@settings(max_examples=150)
@given(request=requests(odd=True), size=st.sampled_from([None, 2, 3]))
def test_what_is_wrong_is_not_read(request: RankRequest, size: int | None) -> None:
    scanned = READER.read(request, embedding_size=size)
    if not is_sound(request, size):
        assert scanned is None
    elif scanned is not None:
        assert_same(decode(request, SCHEMA, 5.0, scanned), decode(request, SCHEMA, 5.0))


def assert_same(found: Any, expected: Any) -> None:
    for name in ("item_ids", "item_types", "tiers", "surface", "device", "moment_seconds", "unknown_names"):
        assert getattr(found, name) == getattr(expected, name), name
    assert [list(tags) for tags in found.tags] == [list(tags) for tags in expected.tags]
    np.testing.assert_array_equal(found.priors, expected.priors)
    np.testing.assert_array_equal(found.create_seconds, expected.create_seconds)
    assert (found.embeddings is None) == (expected.embeddings is None)
    if found.embeddings is not None:
        assert found.embeddings.dtype == expected.embeddings.dtype
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)
    assert found.given.keys() == expected.given.keys()
    for name, column in found.given.items():
        np.testing.assert_array_equal(column, expected.given[name], err_msg=name)


def test_a_name_unknown_in_map_and_matrix_counts_once() -> None:
    request = RankRequest(candidates=[Candidate(item_id="a", features={"moon": 1.0, "cost": 2.0})])
    request.feature_matrix.CopyFrom(FeatureMatrix(names=["moon", "tide", "price"], values=np.array([1.0, 2.0, 3.0]).tobytes()))
    found = decode(request, SCHEMA, 5.0, READER.read(request, embedding_size=None))
    assert (found.unknown_names, set(found.given)) == (2, {"cost", "price"})
    assert_same(found, decode(request, SCHEMA, 5.0))


@pytest.mark.parametrize("count", [0, MAX_CANDIDATES + 1])
def test_too_few_and_too_many_are_left_to_python(count: int) -> None:
    request = RankRequest(candidates=[Candidate(item_id=str(number)) for number in range(count)])
    assert READER.read(request, embedding_size=None) is None


def test_many_tags_and_many_unknown_names() -> None:
    tags = [f"t{number}" for number in range(64)]
    request = RankRequest(candidates=[Candidate(item_id=str(number), tags=tags) for number in range(20)])
    scanned = READER.read(request, embedding_size=None)
    assert scanned is not None
    assert [list(own) for own in scanned.tags] == [tags] * 20
    many = [Candidate(item_id=str(place), features={f"n{place}-{name}": 1.0 for name in range(200)}) for place in range(2)]
    counted = READER.read(RankRequest(candidates=many), embedding_size=None)
    assert counted is not None
    assert counted.unknown_names == 400


def test_fields_of_another_release_are_left_to_python() -> None:
    candidate = Candidate(item_id="a").SerializeToString() + b"\xfa\x01\x01x"  # field 31, a text
    wire = b"\x32" + bytes([len(candidate)]) + candidate
    assert READER.read(RankRequest.FromString(wire), embedding_size=None) is None
