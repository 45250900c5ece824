"""From failures to statuses: the table is whole, the details fit, and nothing of ours leaks."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from runtime import errors
from runtime.errors import InvalidInput, Overloaded, RankloopError, Violation
from runtime.rpc.status import MAX_DETAILS_BYTES, MAX_MESSAGE_BYTES, STATUS_OF, details_of, internal_details, shortened, status_of

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=3000)


def family(kind: type[RankloopError]) -> set[type[RankloopError]]:
    """A class and all below it."""
    return {kind, *(one for below in kind.__subclasses__() for one in family(below))}


def test_every_failure_of_the_tree_has_a_status() -> None:
    # A storage error without a kind, and the root, are nobody's: INTERNAL with a reference.
    nobody = {RankloopError, errors.StorageError}
    for kind in family(RankloopError) - nobody:
        if kind.__module__ == "runtime.errors":
            assert any(one in STATUS_OF for one in kind.__mro__), kind
    assert status_of(RankloopError("x")) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("x"), grpc.StatusCode.NOT_FOUND),
        (errors.Unavailable("x"), grpc.StatusCode.UNAVAILABLE),
        (errors.Overloaded("x", retry_after_seconds=1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.FailedPrecondition("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.Aborted("x"), grpc.StatusCode.ABORTED),
        (errors.AlreadyExists("x"), grpc.StatusCode.ALREADY_EXISTS),
        (errors.DeadlineExceeded("x"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (InvalidInput.of("f", "MISSING", "x"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_the_table(error: RankloopError, code: grpc.StatusCode) -> None:
    assert status_of(error) is code
    status = status_pb2.Status.FromString(details_of(error, code))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, info.domain, info.reason) == (code.value[0], "rankloop", error.reason)


def test_overload_says_when_to_come_back() -> None:
    status = status_pb2.Status.FromString(details_of(Overloaded("x", retry_after_seconds=0.25), grpc.StatusCode.RESOURCE_EXHAUSTED))
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 250


@given(
    st.lists(st.builds(Violation, field=TEXT, reason=st.sampled_from(["MISSING", "TOO_LONG"]), description=TEXT), min_size=1, max_size=120)
)
def test_details_fit_into_metadata_whatever_callers_wrote(violations: list[Violation]) -> None:
    error = InvalidInput(violations)
    details = details_of(error, grpc.StatusCode.INVALID_ARGUMENT)
    # In base64, beside the message with three bytes for each: less than the 8 KiB that clients take.
    assert len(details) <= MAX_DETAILS_BYTES
    assert 4 * len(details) / 3 + 3 * MAX_MESSAGE_BYTES < 8192 - 500
    status = status_pb2.Status.FromString(details)
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert 1 <= len(bad.field_violations) <= len(violations)
    assert bad.field_violations[0].reason == violations[0].reason
    assert len(shortened(error.message).encode()) <= MAX_MESSAGE_BYTES


@given(TEXT, st.integers(3, 50))
def test_a_shortened_text_is_a_beginning(text: str, most: int) -> None:
    found = shortened(text, most)
    assert len(found.encode()) <= most
    assert found == text or (found.endswith("…") and text.startswith(found[:-1]))


def test_an_unforeseen_failure_is_a_reference_and_nothing_else() -> None:
    message, details = internal_details("abc")
    status = status_pb2.Status.FromString(details)
    assert status.message == message
    assert "abc" in message
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert dict(info.metadata) == {"reference": "abc"}
