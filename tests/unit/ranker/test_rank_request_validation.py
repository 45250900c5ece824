"""Bad ranking requests: each wrong field is named, and right ones pass."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ranker.validation import MAX_VIOLATIONS, check
from rankloop.v1.ranking_pb2 import Candidate, FeatureMatrix, RankRequest
from runtime.errors import InvalidInput

INF, NAN = float("inf"), float("nan")


def fine() -> RankRequest:
    return RankRequest(
        user_id="u",
        candidates=[
            Candidate(
                item_id=f"i{place}",
                prior_score=0.5,
                features={"x": 1.0},
                tags=["a"],
                embedding=[0.1, 0.2],
                create_time=Timestamp(seconds=9),
            )
            for place in range(4)
        ],
        context_numbers={"y": 2.0},
        mmr_lambda=0.0,
        top_k=2,
        feature_matrix=FeatureMatrix(names=["p", "q"], values=struct.pack("<8d", *range(7), NAN)),
    )


def faults(request: RankRequest, embedding_size: int | None = None) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        check(request, embedding_size=embedding_size)
    return {violation.field: violation.reason for violation in caught.value.violations}


def test_a_right_request_passes() -> None:
    check(fine())
    check(fine(), embedding_size=2)
    check(RankRequest(candidates=[Candidate(item_id="i")]))


def test_the_longest_id_and_the_largest_numbers_pass() -> None:
    check(RankRequest(user_id="é" * 128, candidates=[Candidate(item_id="é" * 128)]))
    huge = {"a": 1.7e308, "b": 1.7e308}
    check(RankRequest(candidates=[Candidate(item_id="i", prior_score=1.7e308, features=huge), Candidate(item_id="j", features=huge)]))


def _set(path: str, value: object) -> Callable[[RankRequest], None]:
    return lambda request: setattr(request, path, value)


def _candidate(place: int, change: Callable[[Candidate], object]) -> Callable[[RankRequest], None]:
    def changed(request: RankRequest) -> None:
        change(request.candidates[place])

    return changed


CASES: list[tuple[Callable[[RankRequest], object], str, str]] = [
    (lambda r: r.ClearField("candidates"), "candidates", "MISSING"),
    (lambda r: r.candidates.extend([Candidate(item_id=f"x{place}") for place in range(1000)]), "candidates", "OUT_OF_RANGE"),
    (_candidate(3, lambda c: c.ClearField("item_id")), "candidates[3].item_id", "MISSING"),
    (_candidate(3, lambda c: setattr(c, "item_id", "i1")), "candidates[3].item_id", "DUPLICATE"),
    (_candidate(1, lambda c: setattr(c, "item_id", "é" * 129)), "candidates[1].item_id", "TOO_LONG"),
    (_candidate(1, lambda c: setattr(c, "item_type", "t" * 257)), "candidates[1].item_type", "TOO_LONG"),
    (_candidate(2, lambda c: setattr(c, "prior_score", NAN)), "candidates[2].prior_score", "NOT_FINITE"),
    (_candidate(2, lambda c: setattr(c, "prior_score", -INF)), "candidates[2].prior_score", "NOT_FINITE"),
    (_candidate(2, lambda c: c.features.update({"x": NAN})), 'candidates[2].features["x"]', "NOT_FINITE"),
    (_candidate(2, lambda c: c.features.update({str(n): 0.0 for n in range(256)})), "candidates[2].features", "TOO_MANY"),
    (_candidate(0, lambda c: c.tags.extend(["t"] * 64)), "candidates[0].tags", "TOO_MANY"),
    (_candidate(0, lambda c: c.attributes.update({str(n): "" for n in range(65)})), "candidates[0].attributes", "TOO_MANY"),
    (_candidate(2, lambda c: c.embedding.append(1.0)), "candidates[2].embedding", "WRONG_SIZE"),
    (_candidate(2, lambda c: c.embedding.__setitem__(0, INF)), "candidates[2].embedding", "NOT_FINITE"),
    (_candidate(2, lambda c: setattr(c.create_time, "nanos", -1)), "candidates[2].create_time", "OUT_OF_RANGE"),
    (_candidate(2, lambda c: setattr(c.create_time, "seconds", 10**12)), "candidates[2].create_time", "OUT_OF_RANGE"),
    (_set("user_id", "u" * 257), "user_id", "TOO_LONG"),
    (_set("session_id", "u" * 257), "session_id", "TOO_LONG"),
    (_set("request_id", "u" * 257), "request_id", "TOO_LONG"),
    (_set("surface", "u" * 257), "surface", "TOO_LONG"),
    (_set("model_version", "u" * 257), "model_version", "TOO_LONG"),
    (_set("top_k", -1), "top_k", "OUT_OF_RANGE"),
    (_set("mmr_lambda", 1.01), "mmr_lambda", "OUT_OF_RANGE"),
    (_set("mmr_lambda", NAN), "mmr_lambda", "OUT_OF_RANGE"),
    (lambda r: r.context_numbers.update({"y": INF}), 'context_numbers["y"]', "NOT_FINITE"),
    (lambda r: r.context.update({str(n): "" for n in range(65)}), "context", "TOO_MANY"),
    (lambda r: r.context_numbers.update({str(n): 0.0 for n in range(65)}), "context_numbers", "TOO_MANY"),
    (lambda r: setattr(r.feature_matrix, "values", b"1234567"), "feature_matrix.values", "WRONG_SIZE"),
    (lambda r: r.feature_matrix.ClearField("names"), "feature_matrix.values", "WRONG_SIZE"),
    (lambda r: r.feature_matrix.names.__setitem__(1, "p"), "feature_matrix.names[1]", "DUPLICATE"),
    (
        lambda r: setattr(r.feature_matrix, "values", struct.pack("<8d", *[0.0] * 5, INF, 0.0, 0.0)),
        'feature_matrix.values[2]["q"]',
        "NOT_FINITE",
    ),
]


@pytest.mark.parametrize(("change", "field", "reason"), CASES, ids=[f"{field} {reason}" for _, field, reason in CASES])
def test_the_field_at_fault_is_named(change: Callable[[RankRequest], object], field: str, reason: str) -> None:
    request = fine()
    change(request)
    assert faults(request) == {field: reason}


def test_embeddings_of_another_size_than_the_deployments_are_refused() -> None:
    assert faults(fine(), embedding_size=3) == {f"candidates[{place}].embedding": "WRONG_SIZE" for place in range(4)}


def test_all_faults_are_told_at_once() -> None:
    request = fine()
    request.top_k = -1
    request.candidates[1].item_id = "i0"
    request.candidates[2].features["x"] = INF
    assert set(faults(request)) == {"top_k", "candidates[1].item_id", 'candidates[2].features["x"]'}


def test_a_thousand_faults_are_not() -> None:
    assert len(faults(RankRequest(candidates=[Candidate() for _ in range(1000)]))) == MAX_VIOLATIONS
