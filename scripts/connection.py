"""A command's connection to the server: the public API, with patience for a server that is away for a moment."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from runtime.errors import RankloopError, Unavailable

Request = TypeVar("Request")
Response = TypeVar("Response")

DEFAULT_ADDRESS = "127.0.0.1:50051"
PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Failures after which the same call, with the same ids, is sent again; it never counts twice."""


class CallFailed(RankloopError):
    """A call failed for good: it was refused, or the server stayed away."""

    def __init__(self, address: str, error: grpc.aio.AioRpcError) -> None:
        self.code: grpc.StatusCode = error.code()
        self.description = error.details() or ""
        super().__init__(f"the server at {address} answered {self.code.name}: {self.description}")

    @property
    def is_too_large(self) -> bool:
        """Whether the message was larger than the server takes; sending it again would not help."""
        return self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in self.description


class Connection:
    """One channel to a server. An async context; belongs to the event loop it is made in."""

    def __init__(self, address: str, *, deadline_seconds: float = 10.0, patience_seconds: float = 60.0) -> None:
        """`deadline_seconds` bounds one attempt, `patience_seconds` all attempts at one call."""
        self.address = address
        self._deadline_seconds = deadline_seconds
        self._patience_seconds = patience_seconds
        self.channel = grpc.aio.insecure_channel(
            address, options=(("grpc.max_receive_message_length", 64 * 2**20), ("grpc.max_reconnect_backoff_ms", 1000))
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.channel.close(None)

    async def reach(self, timeout_seconds: float = 5.0) -> None:
        """Waits until the server takes connections. Raises Unavailable if it does not in time."""
        try:
            await asyncio.wait_for(self.channel.channel_ready(), timeout_seconds)
        except TimeoutError:
            raise Unavailable(f"no server answers at {self.address}; start one with `rankloop up`, or name another with --server") from None

    async def call(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, once: bool = False) -> Response:
        """Calls, and sends the very same request again while the failure is a passing one. Raises CallFailed.

        `once` is for what does more when it is done twice: the first failure counts, and may come of a call that was done.
        """
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + self._patience_seconds, 0.05
        while True:
            try:
                return await method(request, timeout=self._deadline_seconds)
            except grpc.aio.AioRpcError as error:
                failed = CallFailed(self.address, error)
                if once or failed.code not in PASSING or failed.is_too_large or loop.time() + pause > give_up:
                    raise failed from error
            await asyncio.sleep(pause * (0.5 + random.random()))  # spreads the callers
            pause = min(2 * pause, 2.0)
