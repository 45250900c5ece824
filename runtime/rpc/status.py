"""The one table from failures to gRPC status codes, and the rich details that go with them."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from runtime import errors

DOMAIN = "rankloop"
DETAILS_KEY = "grpc-status-details-bin"
MAX_VIOLATIONS = 50
"""Fields at fault that one answer names."""
MAX_DETAILS_BYTES = 4096
"""Of the details. They travel with the message as trailing metadata, in base64, and clients refuse more than 8 KiB of that."""
MAX_MESSAGE_BYTES = 512
"""Of the message, which travels twice, once with three bytes for each that is not ASCII."""
MAX_FIELD_BYTES = 200

STATUS_OF: dict[type[errors.RankloopError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DuplicateKey: grpc.StatusCode.ALREADY_EXISTS,
    errors.Misconfigured: grpc.StatusCode.UNAVAILABLE,
}
"""What is not here is INTERNAL with a reference."""


def status_of(error: errors.RankloopError) -> grpc.StatusCode | None:
    """The status of a failure by its nearest ancestor in the table; None if it has none there."""
    for kind in type(error).__mro__:
        if kind in STATUS_OF:
            return STATUS_OF[kind]
    return None


def details_of(error: errors.RankloopError, code: grpc.StatusCode) -> bytes:
    """`google.rpc.Status` in bytes: ErrorInfo always, BadRequest and RetryInfo where they say more."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=shortened(error.message))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if isinstance(error, errors.InvalidInput):
        status.details.add().Pack(_bad_request(error.violations, MAX_DETAILS_BYTES - status.ByteSize()))
    if isinstance(error, errors.Overloaded):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_seconds * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    serialized: bytes = status.SerializeToString()
    return serialized


def shortened(text: str, most_bytes: int = MAX_MESSAGE_BYTES) -> str:
    """The text, cut where it is longer: callers' own words stand in it, and there is no end to those."""
    encoded = text.encode()
    return text if len(encoded) <= most_bytes else encoded[: most_bytes - 3].decode(errors="ignore") + "…"


def _bad_request(violations: Sequence[errors.Violation], most_bytes: int) -> error_details_pb2.BadRequest:
    """The first fields at fault, as many as there is room for."""
    bad = error_details_pb2.BadRequest()
    for violation in violations[:MAX_VIOLATIONS]:
        field, description = shortened(violation.field, MAX_FIELD_BYTES), shortened(violation.description, MAX_FIELD_BYTES)
        bad.field_violations.add(field=field, description=description, reason=violation.reason)
        if bad.ByteSize() > most_bytes - 100:
            bad.field_violations.pop()
            break
    return bad


def internal_details(reference: str) -> tuple[str, bytes]:
    """Message and details of a failure that nobody foresaw: a reference to the log, and nothing else."""
    message = f"something went wrong on our side; the log has it under {reference}"
    status = status_pb2.Status(code=code_pb2.INTERNAL, message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"reference": reference}))
    return message, status.SerializeToString()


def info_in(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    """What another process of ours said of a failure; None: it was not one of ours that said it, but gRPC or a stranger."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                return None
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
                    return info
    return None


def violations_in(error: grpc.aio.AioRpcError) -> list[errors.Violation]:
    """The fields at fault that another process of ours named in its refusal."""
    violations: list[errors.Violation] = []
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                bad = error_details_pb2.BadRequest()
                if detail.Unpack(bad):
                    violations += [
                        errors.Violation(field=one.field, reason=one.reason, description=one.description) for one in bad.field_violations
                    ]
    return violations or [errors.Violation(field="", reason="INVALID", description=error.details() or "is not valid")]
