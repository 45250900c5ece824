"""A period of time, as figures are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runtime.errors import InvalidInput
from runtime.timestamps import is_valid, to_datetime

DEFAULT_SPAN = timedelta(days=30)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Period:
    """`[start, end)`, UTC, at full milliseconds."""

    start: datetime
    end: datetime

    def days(self) -> Iterator[tuple[datetime, range]]:
        """Every day that the period has full hours of, with those hours; `range(24)` is the whole day."""
        last = _hour_down(self.end)
        day = _hour_up(self.start).replace(hour=0)
        while day < last:
            if hours := self.hours_of(day):
                yield day, hours
            if last - day <= DAY:  # there may be no day behind it: time ends with the year 9999
                return
            day += DAY

    def hours_of(self, day: datetime) -> range:
        """The full hours that the period has of a day; `range(24)` is the whole day."""
        first, last = _hour_up(self.start), _hour_down(self.end)
        begin = 0 if first <= day else 24 if first - day >= DAY else first.hour
        end = 0 if last <= day else 24 if last - day >= DAY else last.hour
        return range(begin, max(begin, end))

    def edges(self) -> list[Period]:
        """What lies outside full hours: at most two stretches shorter than an hour."""
        first, last = _hour_up(self.start), _hour_down(self.end)
        if first > last:  # within one hour
            return [self]
        return [edge for edge in (Period(self.start, first), Period(last, self.end)) if edge.start < edge.end]


def period_of(request: Any, now: datetime, *, open_ended: bool = False) -> Period:
    """The period of a request with `start_time` and `end_time`. Open-ended: absent ends are the ends of time.

    Raises:
        InvalidInput: a time is not valid, or the end does not lie behind the start.
    """
    for name in ("start_time", "end_time"):
        if request.HasField(name) and not is_valid(getattr(request, name)):
            raise InvalidInput.of(name, "OUT_OF_RANGE", "is not a time between the years 1 and 9999")
    if request.HasField("end_time"):
        end = to_datetime(request.end_time)
    else:
        end = datetime.max.replace(microsecond=0, tzinfo=now.tzinfo) if open_ended else _hour_down(now) + HOUR
    if request.HasField("start_time"):
        start = to_datetime(request.start_time)
    elif open_ended:
        start = datetime.min.replace(tzinfo=now.tzinfo)
    else:
        beginning = datetime.min.replace(tzinfo=now.tzinfo)
        start = end - DEFAULT_SPAN if end - beginning > DEFAULT_SPAN else beginning
    if end <= start:
        raise InvalidInput.of(
            "end_time", "OUT_OF_RANGE", f"is not after start_time ({start.isoformat()}); periods are [start_time, end_time)"
        )
    if not open_ended and request.HasField("start_time") and start > now + DAY:
        raise InvalidInput.of("start_time", "IN_THE_FUTURE", "is more than a day ahead of the server's clock")
    return Period(start, end)


def _hour_down(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _hour_up(moment: datetime) -> datetime:
    down = _hour_down(moment)
    return down if down == moment else down + HOUR
