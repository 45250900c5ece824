"""The overview as a stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from rankloop.v1 import stats_pb2 as pb
from runtime.errors import InvalidInput, Overloaded
from server.statistics.statistics import Statistics

DEFAULT_INTERVAL, SHORTEST_INTERVAL, LONGEST_INTERVAL = timedelta(seconds=2), timedelta(seconds=1), timedelta(minutes=1)
LONGEST_LIFETIME = timedelta(hours=1)
MOST_WATCHERS = 64


class Watching:
    """Streams of one server; all of them end when it is told to stop."""

    def __init__(self, statistics: Statistics, stop: asyncio.Event) -> None:
        self._statistics = statistics
        self._stop = stop
        self._watchers = 0

    async def overview(self, request: pb.WatchOverviewRequest) -> AsyncIterator[pb.WatchOverviewResponse]:
        """The overview at once, and then whenever it has changed.

        Raises:
            InvalidInput: a time or a span is wrong.
            Overloaded: too many watch already.
        """
        interval = _span(request, "interval", DEFAULT_INTERVAL, SHORTEST_INTERVAL, LONGEST_INTERVAL)
        lifetime = _span(request, "lifetime", LONGEST_LIFETIME, SHORTEST_INTERVAL, LONGEST_LIFETIME)
        asked = pb.GetOverviewRequest()
        for name in ("start_time", "end_time"):
            if request.HasField(name):
                getattr(asked, name).CopyFrom(getattr(request, name))
        if self._watchers >= MOST_WATCHERS:
            raise Overloaded(f"{MOST_WATCHERS} streams watch the overview already; ask GetOverview now and then", retry_after_seconds=30)
        self._watchers += 1
        try:
            end = asyncio.get_running_loop().time() + lifetime.total_seconds()
            told: pb.GetOverviewResponse | None = None
            while True:
                answer = await self._statistics.overview(asked)
                if told is None or _timeless(answer) != _timeless(told):
                    told = answer
                    yield pb.WatchOverviewResponse(overview=answer)
                left = end - asyncio.get_running_loop().time()
                if left <= 0 or self._stop.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), min(left, interval.total_seconds()))
        finally:
            self._watchers -= 1


def _timeless(answer: pb.GetOverviewResponse) -> pb.GetOverviewResponse:
    copy = pb.GetOverviewResponse()
    copy.CopyFrom(answer)
    copy.ClearField("as_of_time")
    return copy


def _span(request: Any, name: str, absent: timedelta, least: timedelta, most: timedelta) -> timedelta:
    if not request.HasField(name):
        return absent
    stated = getattr(request, name)
    seconds = stated.seconds + stated.nanos / 1e9
    if not least.total_seconds() <= seconds <= most.total_seconds():
        raise InvalidInput.of(
            name, "OUT_OF_RANGE", f"is {seconds:g} s; expected {least.total_seconds():g} to {most.total_seconds():g} seconds"
        )
    return timedelta(seconds=seconds)
