"""The ranking workers a server knows, and how it spreads over them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

from prometheus_client import Counter, Gauge

from rankloop.worker.v1 import worker_pb2
from runtime.admission import MeanSeconds, verdict
from runtime.errors import RankloopError
from server.ranker_link import NotRanked, RankAsked, RankerLink
from server.standing import Standing

SECOND_CALLS: Final = 10.0
"""Second calls after a timeout that may be made before any worker answers again; each answer earns a tenth of one."""

WORKERS = Gauge("rankloop_rank_workers", "Ranking workers this server knows, by what it thinks of them.", ["standing"])
WAITING = Gauge("rankloop_rank_waiting", "Rankings that wait for a worker with room.")
SHED = Counter("rankloop_rank_shed", "Rankings answered without a worker because there was no room or no time to wait.", ["reason"])
for _standing in Standing:
    WORKERS.labels(_standing.value)
for _reason in ("full", "late"):
    SHED.labels(_reason)


class NoRanker(RankloopError):
    """No worker ranked; `reason` is RANKER_UNAVAILABLE, RANKER_TIMEOUT, RANKER_OVERLOADED or RANKER_FAILED."""


class RankerPool:
    """Spreads over the workers: each call goes to the one with the least to do. Belongs to one event loop.

    A worker takes `in_flight_limit` calls of this server at once. Where all have that many, calls wait in line, `queue_capacity` at
    most, and only those that can be answered in time; the others are told at once.
    """

    def __init__(self, addresses: Sequence[str], *, rest_seconds: float, in_flight_limit: int, queue_capacity: int) -> None:
        self._links = [RankerLink(address, rest_seconds=rest_seconds, changed=self._look_again) for address in addresses]
        self._in_flight_limit = in_flight_limit
        self._queue_capacity = queue_capacity
        self._line: deque[asyncio.Event] = deque()
        self._mean = MeanSeconds()
        self._second_calls = SECOND_CALLS
        self._count()

    async def run(self) -> None:
        """Looks after the workers until cancelled."""
        async with asyncio.TaskGroup() as work:
            for link in self._links:
                work.create_task(link.keep())

    async def close(self) -> None:
        """Closes the channels."""
        for link in self._links:
            await link.close()

    async def rank(self, request: RankAsked, *, timeout_seconds: float) -> worker_pb2.RankResponse:
        """Asks one worker, and others within the time if it brings no slate.

        Raises:
            InvalidInput, NotFound: the request is wrong, as a worker says.
            NoRanker: nobody ranked it.
        """
        deadline = time.monotonic() + timeout_seconds
        asked: set[RankerLink] = set()
        reason = ""
        while (remaining := deadline - time.monotonic()) > 0:
            link = await self._with_room(remaining) if not asked else self._free(asked)
            if link is None:
                break
            asked.add(link)
            began = link.asked_last = time.monotonic()
            try:
                response = await link.rank(request, timeout_seconds=self._patience(began, deadline, asked))
            except NotRanked as failure:
                reason = failure.reason
                if reason == "RANKER_TIMEOUT":
                    self._second_calls = max(0.0, self._second_calls - 1)
            else:
                self._mean.observe(time.monotonic() - began)
                self._second_calls = min(SECOND_CALLS, self._second_calls + 0.1)
                return response
            finally:
                self._wake_next()
        raise NoRanker("no ranking worker answered", reason=reason or self._why_nobody())

    def _patience(self, now: float, deadline: float, asked: Collection[RankerLink]) -> float:
        """How long to wait for a worker: half of what is left where another one could be asked after it.

        Not when that was of no use lately: then all are slow, and asking twice makes them slower.
        """
        another = self._second_calls > SECOND_CALLS / 2 and self._free(asked) is not None
        return (deadline - now) / 2 if another else deadline - now

    def _free(self, but: Collection[RankerLink] = ()) -> RankerLink | None:
        """The worker with room that has the least to do, of equal ones the one that was asked longest ago.

        One that is well, or else one that is doubted.
        """
        for standing in (Standing.WELL, Standing.DOUBTED):
            able = [
                link for link in self._links if link.standing is standing and link not in but and link.in_flight < self._in_flight_limit
            ]
            if able:
                return min(able, key=lambda link: (link.in_flight, link.asked_last))
        return None

    async def _with_room(self, remaining_seconds: float) -> RankerLink | None:
        """A worker with room, waited for in line; None: there is none to wait for. Raises NoRanker when it would take too long."""
        if not self._line and (link := self._free()):
            return link
        able = self._able_count()
        if not able:
            return None
        at_once = able * self._in_flight_limit
        if told := verdict(
            waiting=len(self._line),
            capacity=self._queue_capacity,
            at_once=at_once,
            mean_seconds=self._mean.seconds,
            remaining_seconds=remaining_seconds,
        ):
            raise _shed(told)
        looked = asyncio.Event()
        self._line.append(looked)
        WAITING.set(len(self._line))
        try:
            async with asyncio.timeout(remaining_seconds):
                while True:
                    await looked.wait()
                    looked.clear()
                    link = self._free()
                    if link or not self._able_count():
                        return link
        except TimeoutError:
            raise _shed("late") from None
        finally:
            self._line.remove(looked)
            WAITING.set(len(self._line))
            self._wake_next()

    def _wake_next(self) -> None:
        """Lets the first in line look for room."""
        if self._line and self._free():
            self._line[0].set()

    def _look_again(self) -> None:
        """Somebody came or went: everybody in line looks."""
        self._count()
        for looked in self._line:
            looked.set()

    def _able_count(self) -> int:
        return sum(link.standing is not Standing.AWAY for link in self._links)

    def _count(self) -> None:
        for standing in Standing:
            WORKERS.labels(standing.value).set(sum(link.standing is standing for link in self._links))

    def _why_nobody(self) -> str:
        """Why nobody was asked; a worker that is there and does not answer says more than one that is gone."""
        if self._able_count():
            return "RANKER_TIMEOUT"
        reasons = {link.reason for link in self._links}
        return next((reason for reason in ("RANKER_TIMEOUT", "RANKER_FAILED") if reason in reasons), "RANKER_UNAVAILABLE")


def _shed(told: str) -> NoRanker:
    SHED.labels(told).inc()
    return NoRanker("the ranking workers have too much to do", reason="RANKER_OVERLOADED")
