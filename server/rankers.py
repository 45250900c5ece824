"""The ranking workers a server knows, and how it spreads over them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import grpc
from prometheus_client import Counter

from rankloop.worker.v1 import worker_pb2, worker_pb2_grpc
from runtime.errors import InvalidInput, NotFound, RankloopError
from runtime.rpc.channel import open_channel
from runtime.rpc.status import violations_in

TIMEOUTS_IN_A_ROW = 3
"""Calls that a worker leaves unanswered before it rests; one slow call says nothing of a worker."""

FAILED = Counter("rankloop_ranker_calls_failed", "Calls to ranking workers that brought no slate.", ["reason"])


class NoRanker(RankloopError):
    """No worker ranked; `reason` is RANKER_UNAVAILABLE, RANKER_TIMEOUT or RANKER_FAILED."""


class _Ranker:
    def __init__(self, address: str) -> None:
        self.channel = open_channel(address)
        self.stub = worker_pb2_grpc.WorkerServiceStub(self.channel)
        self.timeouts = 0
        """In a row."""
        self.rests_until = 0.0


class RankerPool:
    """Takes turns over the workers. Belongs to one event loop.

    A worker that is away refuses at once, so it is asked again with every call and is found the moment it is back. One that is there and
    does not answer costs its callers their time: after a few such calls in a row it rests for a while.
    """

    def __init__(self, addresses: Sequence[str], *, rest_seconds: float) -> None:
        self._rankers = [_Ranker(address) for address in addresses]
        self._turn = itertools.count()
        self._rest_seconds = rest_seconds

    async def close(self) -> None:
        """Closes the channels."""
        for ranker in self._rankers:
            await ranker.channel.close()

    async def rank(self, request: worker_pb2.RankRequest, *, timeout_seconds: float) -> worker_pb2.RankResponse:
        """Asks one worker, and others within the time if it is away.

        Raises:
            InvalidInput, NotFound: the request is wrong, as the worker says.
            NoRanker: nobody ranked it.
        """
        deadline = time.monotonic() + timeout_seconds
        awake = self._in_turn()
        reason = "RANKER_TIMEOUT" if self._rankers and not awake else "RANKER_UNAVAILABLE"
        for ranker in awake:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            try:
                response: worker_pb2.RankResponse = await ranker.stub.Rank(request, timeout=remaining)
            except grpc.aio.AioRpcError as error:
                code = error.code()
                if code is grpc.StatusCode.INVALID_ARGUMENT:
                    raise InvalidInput(violations_in(error)) from None
                if code is grpc.StatusCode.NOT_FOUND:
                    raise NotFound(error.details() or "there is no such model", reason="MODEL_NOT_FOUND") from None
                reason = _REASONS.get(code, "RANKER_FAILED")
                FAILED.labels(reason).inc()
                if reason == "RANKER_TIMEOUT":
                    ranker.timeouts += 1
                    if ranker.timeouts >= TIMEOUTS_IN_A_ROW:
                        ranker.rests_until = time.monotonic() + self._rest_seconds
            else:
                ranker.timeouts = 0
                return response
        raise NoRanker("no ranking worker answered", reason=reason)

    def _in_turn(self) -> list[_Ranker]:
        """Every worker that does not rest, beginning with another one each time."""
        now = time.monotonic()
        awake = [ranker for ranker in self._rankers if ranker.rests_until <= now]
        start = next(self._turn) % len(awake) if awake else 0
        return awake[start:] + awake[:start]


_REASONS = {
    grpc.StatusCode.UNAVAILABLE: "RANKER_UNAVAILABLE",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "RANKER_UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "RANKER_TIMEOUT",
}
