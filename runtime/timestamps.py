"""Between protobuf's timestamps and datetimes: UTC, at the millisecond that MongoDB keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""Years 1 to 9999, as protobuf has it."""


def is_valid(stamp: Timestamp) -> bool:
    """Whether it lies in years 1 to 9999 and its nanoseconds are a fraction of a second."""
    return MIN_SECONDS <= stamp.seconds <= MAX_SECONDS and 0 <= stamp.nanos < 1_000_000_000


def to_datetime(stamp: Timestamp) -> datetime:
    """The moment, at full milliseconds. `is_valid` must hold."""
    return EPOCH + timedelta(seconds=stamp.seconds, milliseconds=stamp.nanos // 1_000_000)


def to_timestamp(moment: datetime) -> Timestamp:
    """The moment as protobuf has it."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def to_duration(seconds: float) -> Duration:
    """A span as protobuf has it."""
    span = Duration()
    span.FromMicroseconds(round(seconds * 1e6))
    return span


def at_millisecond(moment: datetime) -> datetime:
    """The moment as MongoDB keeps it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
