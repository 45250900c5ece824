"""Gives every call an end: a little before its caller stops waiting, so that the caller hears why."""

from __future__ import annotations

import asyncio
from typing import Any

from runtime.errors import Unavailable
from runtime.rpc.layers import Context, Method, StreamCall, UnaryCall

MARGIN_SECONDS = 0.25
"""How long before the caller's deadline the answer leaves, at most; of short deadlines a fifth."""


class Bounded:
    """UNAVAILABLE when what the call waits for (the database, mostly) did not come in time. Streams end by their own rules."""

    def __init__(self, *, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds

    def around_unary(self, method: Method, call: UnaryCall) -> UnaryCall:
        async def bounded(request: Any, context: Context) -> Any:
            limit = time_limit(context, self._longest_seconds)
            try:
                async with asyncio.timeout(limit) as timeout:
                    return await call(request, context)
            except TimeoutError as error:
                if not timeout.expired():
                    raise
                raise Unavailable(
                    "no answer within the deadline; what was written is unknown: try again with the same ids", reason="TOO_SLOW"
                ) from error

        return bounded

    def around_stream(self, method: Method, call: StreamCall) -> StreamCall:
        return call


def time_limit(context: Context, longest_seconds: float) -> float:
    """Seconds that work for this call may take."""
    remaining: float | None = context.time_remaining()
    if remaining is None:
        return longest_seconds
    return min(longest_seconds, max(0.0, remaining - min(MARGIN_SECONDS, remaining / 5)))
