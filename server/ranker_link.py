"""One ranking worker as a server sees it: how much it has to do, what is thought of it, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import Counter

from rankloop.v1.ranking_pb2 import RankRequest
from rankloop.worker.v1 import worker_pb2, worker_pb2_grpc
from runtime.errors import InvalidInput, NotFound
from runtime.logs import get_logger
from runtime.rpc.channel import open_channel
from runtime.rpc.status import info_in, violations_in
from server.standing import Opinion, Standing

log = get_logger("server")

PROBE_SECONDS = 1.0
PROBE_PAUSE_SECONDS = 0.1
FEATURE_BYTES = 8
SERVICE = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
RANK = "/rankloop.worker.v1.WorkerService/Rank"

FAILED = Counter("rankloop_ranker_calls_failed", "Calls to ranking workers that brought no slate.", ["reason"])


class NotRanked(Exception):
    """A worker brought no slate; `reason` is RANKER_UNAVAILABLE, RANKER_TIMEOUT, RANKER_OVERLOADED or RANKER_FAILED."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RankAsked(Protocol):
    """A `worker.v1.RankRequest`, or what is one on the wire."""

    @property
    def request(self) -> RankRequest:
        """As the caller sent it."""

    @property
    def ranking_id(self) -> str:
        """The id the slate shall have."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - as messages have it
        """The message."""


def _serialized(asked: RankAsked) -> bytes:
    return asked.SerializeToString()


class RankerLink:
    """A channel to a worker. Belongs to one event loop."""

    def __init__(self, address: str, *, rest_seconds: float, changed: Callable[[], None]) -> None:
        """`changed` is called whenever another opinion of it is held."""
        self.address = address
        self.in_flight = 0
        """Calls of this server that it works on, or that wait there."""
        self.asked_last = 0.0
        """When it was last asked, by the monotonic clock."""
        self._channel = open_channel(address)
        self._stub = worker_pb2_grpc.WorkerServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._rank: Any = self._channel.unary_unary(
            RANK, request_serializer=_serialized, response_deserializer=worker_pb2.RankResponse.FromString
        )
        self._opinion = Opinion(rest_seconds=rest_seconds)
        self._unwell = asyncio.Event()
        self._changed = changed

    @property
    def standing(self) -> Standing:
        """What is thought of it."""
        return self._opinion.standing

    @property
    def reason(self) -> str:
        """Why it is not well."""
        return self._opinion.reason

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def keep(self) -> None:
        """Looks after it until cancelled: finds out when one that is not well answers again."""
        self._channel.get_state(try_to_connect=True)
        while True:
            await self._unwell.wait()
            await asyncio.sleep(self._opinion.rest_seconds)
            while self.standing is not Standing.WELL and not await self._answers():
                await asyncio.sleep(PROBE_PAUSE_SECONDS)
            self._unwell.clear()
            self._learned(self._opinion.answered_probe())

    async def rank(self, request: RankAsked, *, timeout_seconds: float) -> worker_pb2.RankResponse:
        """Asks it for a slate.

        Raises:
            InvalidInput, NotFound: the request is wrong, as the worker says.
            NotRanked: it brought none.
        """
        spell = self._opinion.spell
        self.in_flight += 1
        try:
            response: worker_pb2.RankResponse | None = await self._rank(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            reason = self._judge(error, spell)
            FAILED.labels(reason).inc()
            raise NotRanked(reason) from None
        finally:
            self.in_flight -= 1
        # Bytes that are no message come as None.
        if response is None or not is_sound(request, response):
            FAILED.labels("RANKER_FAILED").inc()
            self._learned(self._opinion.failed("RANKER_FAILED", spell, nonsense=True))
            raise NotRanked("RANKER_FAILED")
        self._learned(self._opinion.answered())
        return response

    def _judge(self, error: grpc.aio.AioRpcError, spell: int) -> str:
        """The fallback reason for a call that failed; remembered where it says something of the worker.

        Raises:
            InvalidInput, NotFound: the worker says that the request is wrong.
        """
        code, info = error.code(), info_in(error)
        if info is not None:  # a worker of ours is there, and says so itself
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                raise InvalidInput(violations_in(error)) from None
            if code is grpc.StatusCode.NOT_FOUND:
                raise NotFound(error.details() or "there is no such model", reason="MODEL_NOT_FOUND") from None
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return "RANKER_OVERLOADED"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._learned(self._opinion.failed("RANKER_TIMEOUT", spell))
            return "RANKER_TIMEOUT"
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            if info is None:  # said by the channel: nobody is there, or it is leaving
                self._learned(self._opinion.unreachable())
            return "RANKER_UNAVAILABLE"
        self._learned(self._opinion.failed("RANKER_FAILED", spell, nonsense=info is None))
        return "RANKER_FAILED"

    def _learned(self, changed: bool) -> None:
        if self.standing is not Standing.WELL:
            self._unwell.set()
        if changed:
            if self.standing is Standing.WELL:
                log.info("a ranker answers again", address=self.address)
            else:
                log.warning("a ranker does not answer", address=self.address, standing=self.standing.value, reason=self.reason)
            self._changed()

    async def _answers(self) -> bool:
        """Whether a worker is there and ready: one that has just started answers before it has its model, but its health says so.

        It waits for a connection, so that who comes back is found the moment it is.
        """
        asked = health_pb2.HealthCheckRequest(service=SERVICE)
        try:
            answer = await self._health.Check(asked, timeout=PROBE_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError:
            return False
        return answer is not None and answer.status == health_pb2.HealthCheckResponse.SERVING


def is_sound(request: RankAsked, response: worker_pb2.RankResponse) -> bool:
    """Whether a slate is one that can be handed on and recorded: the one asked for, of the candidates offered."""
    slate, served, candidates = response.response, response.served, request.request.candidates
    count = len(slate.items)
    if slate.ranking_id != request.ranking_id or not (
        len(served.item_types) == len(served.tiers) == len(served.candidate_indexes) == count
    ):
        return False
    if len(served.features) % (FEATURE_BYTES * count or FEATURE_BYTES):
        return False
    places = set(served.candidate_indexes)
    if len(places) != count or (places and not 0 <= min(places) <= max(places) < len(candidates)):
        return False
    return all(candidates[place].item_id == item.item_id for place, item in zip(served.candidate_indexes, slate.items, strict=True))
