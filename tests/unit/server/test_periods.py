"""Periods: what of them lies in full hours, what at their edges, and what is no period."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from rankloop.v1.stats_pb2 import GetOverviewRequest
from runtime.errors import InvalidInput
from server.statistics.period import DAY, HOUR, Period, period_of

NOW = datetime(2024, 3, 1, 0, 30, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(2023, 12, 30), datetime(2024, 3, 2), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
HOURS = MOMENTS.map(lambda moment: moment.replace(minute=0, second=0))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def stretches(period: Period) -> list[tuple[datetime, datetime]]:
    """Full hours and edges as stretches of time, in order."""
    hours = [(day + hour * HOUR, day + (hour + 1) * HOUR) for day, of_day in period.days() for hour in of_day]
    return sorted([*hours, *((edge.start, edge.end) for edge in period.edges())])


@given(st.one_of(MOMENTS, HOURS), st.one_of(MOMENTS, HOURS))
def test_full_hours_and_edges_are_the_period_without_gap_or_overlap(one: datetime, other: datetime) -> None:
    start, end = sorted([one, other])
    if start == end:
        return
    period = Period(start, end)
    parts = stretches(period)
    assert parts[0][0] == start
    assert parts[-1][1] == end
    assert all(earlier[1] == later[0] for earlier, later in itertools.pairwise(parts))
    assert len(period.edges()) <= 2
    assert all(edge.end - edge.start < HOUR for edge in period.edges())


@pytest.mark.parametrize(
    ("start", "end", "days", "edges"),
    [
        ("2024-02-29 00:00", "2024-03-01 00:00", [("2024-02-29", range(24))], []),
        ("2024-02-28 23:00", "2024-03-01 01:00", [("2024-02-28", range(23, 24)), ("2024-02-29", range(24)), ("2024-03-01", range(1))], []),
        ("2024-02-29 10:20", "2024-02-29 10:40", [], [("2024-02-29 10:20", "2024-02-29 10:40")]),
        ("2024-02-29 10:00", "2024-02-29 10:40", [], [("2024-02-29 10:00", "2024-02-29 10:40")]),
        ("2024-02-29 10:20", "2024-02-29 11:00", [], [("2024-02-29 10:20", "2024-02-29 11:00")]),
        (
            "2024-02-29 23:59",
            "2024-03-01 00:01",
            [],
            [("2024-02-29 23:59", "2024-03-01 00:00"), ("2024-03-01 00:00", "2024-03-01 00:01")],
        ),
        (
            "2024-02-29 09:30",
            "2024-02-29 12:15",
            [("2024-02-29", range(10, 12))],
            [("2024-02-29 09:30", "2024-02-29 10:00"), ("2024-02-29 12:00", "2024-02-29 12:15")],
        ),
        ("2023-02-28 23:30", "2023-03-01 00:00", [], [("2023-02-28 23:30", "2023-03-01 00:00")]),
    ],
)
def test_known_periods(start: str, end: str, days: list[tuple[str, range]], edges: list[tuple[str, str]]) -> None:
    period = Period(moment(start), moment(end))
    assert list(period.days()) == [(moment(day), hours) for day, hours in days]
    assert period.edges() == [Period(moment(since), moment(until)) for since, until in edges]


def test_the_calendars_last_day_has_no_day_behind_it() -> None:
    period = Period(moment("9999-12-30 22:00"), moment("9999-12-31 23:30"))
    assert list(period.days()) == [(moment("9999-12-30"), range(22, 24)), (moment("9999-12-31"), range(23))]
    assert period.edges() == [Period(moment("9999-12-31 23:00"), moment("9999-12-31 23:30"))]


def asked(**times: Any) -> GetOverviewRequest:
    request = GetOverviewRequest()
    for name, value in times.items():
        stamp = value if isinstance(value, Timestamp) else Timestamp()
        if isinstance(value, str):
            stamp.FromDatetime(moment(value))
        getattr(request, name).CopyFrom(stamp)
    return request


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        # The running hour counts as a whole, so that what happens now is in the answer.
        ({}, "2024-01-31 01:00", "2024-03-01 01:00"),
        ({"end_time": "2024-03-01 00:10"}, "2024-01-31 00:10", "2024-03-01 00:10"),
        ({"start_time": "2024-02-29 00:00"}, "2024-02-29 00:00", "2024-03-01 01:00"),
        ({"start_time": "2024-02-29 00:00", "end_time": "2024-02-29 00:01"}, "2024-02-29 00:00", "2024-02-29 00:01"),
        ({"end_time": "0001-01-10 00:00"}, "0001-01-01 00:00", "0001-01-10 00:00"),
    ],
)
def test_what_is_left_out_is_the_last_thirty_days(times: dict[str, str], start: str, end: str) -> None:
    assert period_of(asked(**times), NOW) == Period(moment(start), moment(end))


def test_an_open_ended_period_has_all_of_time() -> None:
    period = period_of(asked(), NOW, open_ended=True)
    assert period.start.year == 1
    assert period.end.year == 9999
    later = period_of(asked(start_time="2024-02-29 00:00"), NOW, open_ended=True)
    assert (later.start, later.end) == (moment("2024-02-29"), period.end)


@pytest.mark.parametrize(
    ("times", "field", "reason"),
    [
        ({"start_time": "2024-02-02 00:00", "end_time": "2024-02-01 00:00"}, "end_time", "OUT_OF_RANGE"),
        ({"start_time": "2024-02-02 00:00", "end_time": "2024-02-02 00:00"}, "end_time", "OUT_OF_RANGE"),
        ({"start_time": "2024-03-01 02:00"}, "end_time", "OUT_OF_RANGE"),
        ({"start_time": "2024-03-05 00:00", "end_time": "2024-03-06 00:00"}, "start_time", "IN_THE_FUTURE"),
        ({"start_time": Timestamp(seconds=10**15)}, "start_time", "OUT_OF_RANGE"),
        ({"end_time": Timestamp(seconds=0, nanos=-1)}, "end_time", "OUT_OF_RANGE"),
        ({"end_time": "0001-01-01 00:00"}, "end_time", "OUT_OF_RANGE"),
    ],
)
def test_what_is_no_period_is_refused_by_its_field(times: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        period_of(asked(**times), NOW)
    assert [(one.field, one.reason) for one in refusal.value.violations] == [(field, reason)]


def test_a_day_is_a_day() -> None:
    assert 24 * HOUR == DAY == timedelta(days=1)
