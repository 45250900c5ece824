"""Counts and times every call, under the metric names of the Go ecosystem."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from prometheus_client import Counter, Histogram

from runtime.metrics import LATENCY_BUCKETS
from runtime.rpc.layers import Context, Method, StreamCall, UnaryCall

LABELS = ("grpc_type", "grpc_service", "grpc_method")
STARTED = Counter("grpc_server_started", "Calls that arrived.", LABELS)
HANDLED = Counter("grpc_server_handled", "Calls that ended, by their status.", (*LABELS, "grpc_code"))
SECONDS = Histogram("grpc_server_handling_seconds", "Time from a call's arrival to its answer.", LABELS, buckets=LATENCY_BUCKETS)

CODE_NAMES = {code: "".join(part.capitalize() for part in code.name.split("_")) for code in grpc.StatusCode} | {grpc.StatusCode.OK: "OK"}


class Measured:
    """The outermost layer: what it does not see did not happen."""

    def __init__(self, methods: list[Method]) -> None:
        # All label sets exist from the start, so that a rate over a method never called is 0 and not missing.
        for method in methods:
            labels = (method.kind, method.service, method.name)
            STARTED.labels(*labels)
            SECONDS.labels(*labels)
            HANDLED.labels(*labels, "OK")

    def around_unary(self, method: Method, call: UnaryCall) -> UnaryCall:
        labels = (method.kind, method.service, method.name)
        started, seconds = STARTED.labels(*labels), SECONDS.labels(*labels)
        handled = {code: HANDLED.labels(*labels, "OK") if code is grpc.StatusCode.OK else None for code in grpc.StatusCode}

        async def measured(request: Any, context: Context) -> Any:
            started.inc()
            begin = time.perf_counter()
            code = grpc.StatusCode.UNKNOWN
            try:
                response = await call(request, context)
                code = _code(context) or grpc.StatusCode.OK
                return response
            except asyncio.CancelledError:
                code = _cancellation(context)
                raise
            except grpc.aio.AbortError:
                code = _code(context) or grpc.StatusCode.UNKNOWN
                raise
            finally:
                seconds.observe(time.perf_counter() - begin)
                (handled[code] or HANDLED.labels(*labels, CODE_NAMES[code])).inc()

        return measured

    def around_stream(self, method: Method, call: StreamCall) -> StreamCall:
        labels = (method.kind, method.service, method.name)

        async def measured(request: Any, context: Context) -> AsyncIterator[Any]:
            STARTED.labels(*labels).inc()
            begin = time.perf_counter()
            code = grpc.StatusCode.UNKNOWN
            try:
                async for response in call(request, context):
                    yield response
                code = _code(context) or grpc.StatusCode.OK
            except asyncio.CancelledError:
                code = _cancellation(context)
                raise
            except grpc.aio.AbortError:
                code = _code(context) or grpc.StatusCode.UNKNOWN
                raise
            finally:
                SECONDS.labels(*labels).observe(time.perf_counter() - begin)
                HANDLED.labels(*labels, CODE_NAMES[code]).inc()

        return measured


def _code(context: Context) -> grpc.StatusCode | None:
    """The status set on the context, as the enum: grpc hands back a number or the enum, and None (or 0) after success."""
    code: Any = context.code()
    if code is None or isinstance(code, grpc.StatusCode):
        return code
    return next((known for known in grpc.StatusCode if known.value[0] == int(code)), grpc.StatusCode.UNKNOWN)


def _cancellation(context: Context) -> grpc.StatusCode:
    remaining: float | None = context.time_remaining()
    return grpc.StatusCode.DEADLINE_EXCEEDED if remaining is not None and remaining <= 0.001 else grpc.StatusCode.CANCELLED
