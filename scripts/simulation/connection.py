"""A connection to the public API that bears with a server which is away for a while."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from rankloop.v1 import catalog_pb2_grpc, ranking_pb2_grpc, stats_pb2_grpc, tracking_pb2_grpc

Request = TypeVar("Request")
Response = TypeVar("Response")

PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Failures after which the same call with the same ids is sent again; it never counts twice."""


class Failed(Exception):
    """The run cannot go on; the message is one sentence that says why and what to do."""


class Connection:
    """Stubs over one channel. Close it, or use it as an async context."""

    def __init__(self, address: str, *, deadline_seconds: float = 10.0, patience_seconds: float = 60.0) -> None:
        """
        Args:
            address: `host:port`.
            deadline_seconds: what one attempt may take.
            patience_seconds: how long a call that fails in passing is sent again before the run gives up.
        """
        self.address = address
        self._deadline_seconds = deadline_seconds
        self._patience_seconds = patience_seconds
        self._channel = grpc.aio.insecure_channel(address)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(self._channel)
        self.ranking = ranking_pb2_grpc.RankingServiceStub(self._channel)
        self.stats = stats_pb2_grpc.StatsServiceStub(self._channel)
        self.tracking = tracking_pb2_grpc.TrackingServiceStub(self._channel)
        self.retry_count = 0
        """Calls sent again so far."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        await self._channel.close(None)

    async def wait_reached(self, timeout_seconds: float = 5.0) -> None:
        """Waits until the server takes connections; Failed when it does not in time."""
        try:
            await asyncio.wait_for(self._channel.channel_ready(), timeout_seconds)
        except TimeoutError:
            raise Failed(f"no server answers at {self.address}; start one with `rankloop up`, or name another with --server") from None

    async def call(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Calls; sends the very same request again while the failure is a passing one; Failed when it is not, or stays."""
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + self._patience_seconds, 0.05
        while True:
            try:
                return await method(request, timeout=self._deadline_seconds)
            except grpc.aio.AioRpcError as error:
                code = error.code()
                if code not in PASSING or loop.time() + pause > give_up:
                    raise Failed(f"the server at {self.address} answered {code.name}: {error.details()}") from error
            self.retry_count += 1
            await asyncio.sleep(pause * (0.5 + random.random()))  # spreads the callers; no figure depends on it
            pause = min(2 * pause, 2.0)
