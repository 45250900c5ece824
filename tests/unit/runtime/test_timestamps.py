"""Between protobuf's time and ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from runtime.timestamps import EPOCH, MAX_SECONDS, MIN_SECONDS, at_millisecond, is_valid, to_datetime, to_duration, to_timestamp


@given(st.integers(MIN_SECONDS, MAX_SECONDS), st.integers(0, 999_999_999))
def test_every_valid_time_is_one_at_its_millisecond(seconds: int, nanos: int) -> None:
    stamp = Timestamp(seconds=seconds, nanos=nanos)
    assert is_valid(stamp)
    moment = to_datetime(stamp)
    assert moment.tzinfo is UTC
    assert (moment - EPOCH) // timedelta(milliseconds=1) == seconds * 1000 + nanos // 1_000_000
    assert at_millisecond(moment) == moment
    assert to_timestamp(moment) == Timestamp(seconds=seconds, nanos=nanos // 1_000_000 * 1_000_000)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_what_is_not_valid_is_what_protobuf_will_not_print(seconds: int, nanos: int) -> None:
    stamp = Timestamp(seconds=seconds, nanos=nanos)
    try:
        stamp.ToJsonString()
        printable = True
    except ValueError:
        printable = False
    assert is_valid(stamp) == printable


def test_the_ends_of_the_calendar() -> None:
    assert to_datetime(Timestamp(seconds=MIN_SECONDS)) == datetime(1, 1, 1, tzinfo=UTC)
    assert to_datetime(Timestamp(seconds=MAX_SECONDS, nanos=999_999_999)) == datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "micros"), [(0.0, 0), (1.5, 1_500_000), (1e-6, 1), (0.0000004, 0), (86_400.25, 86_400_250_000)])
def test_durations(seconds: float, micros: int) -> None:
    assert to_duration(seconds).ToMicroseconds() == micros
