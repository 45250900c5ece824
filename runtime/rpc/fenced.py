"""Keeps out what there is no room or no time for."""

from __future__ import annotations

from typing import Any, Final

from prometheus_client import Counter

from runtime.errors import DeadlineExceeded, Overloaded
from runtime.rpc.layers import Context, Method, StreamCall, UnaryCall

RETRY_AFTER_SECONDS: Final = 0.25
OPEN_TO_ALL: Final = "grpc.health.v1.Health"
"""Probes are let in always: a process that has much to do is not a dead one."""

SHED = Counter(
    "rankloop_calls_shed",
    "Calls refused before any work: as many are under way as may be (full), or the caller's time was over (late).",
    ("grpc_service", "grpc_method", "reason"),
)


class Fenced:
    """So many calls at once, and none whose caller has gone. Further ones hear RESOURCE_EXHAUSTED at once, and when to come again."""

    def __init__(self, *, most_calls: int) -> None:
        self._most_calls = most_calls
        self._under_way = 0

    def around_unary(self, method: Method, call: UnaryCall) -> UnaryCall:
        if method.service == OPEN_TO_ALL:
            return call
        full, late = (SHED.labels(method.service, method.name, reason) for reason in ("full", "late"))

        async def fenced(request: Any, context: Context) -> Any:
            if self._under_way >= self._most_calls:
                full.inc()
                raise Overloaded(
                    f"{self._most_calls} calls are under way, and more are not taken (max_concurrent_calls); try again shortly",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            remaining: float | None = context.time_remaining()
            if remaining is not None and remaining <= 0.0:
                late.inc()
                raise DeadlineExceeded("the deadline passed before the call was begun")
            self._under_way += 1
            try:
                return await call(request, context)
            finally:
                self._under_way -= 1

        return fenced

    def around_stream(self, method: Method, call: StreamCall) -> StreamCall:
        return call
