"""Turns failures into statuses. A security control: an exception that escapes a handler would reach the caller with its text."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc

from runtime.errors import RankloopError
from runtime.logs import get_logger
from runtime.rpc.layers import Context, Method, StreamCall, UnaryCall
from runtime.rpc.status import DETAILS_KEY, details_of, internal_details, shortened, status_of

log = get_logger("rpc")


class Translated:
    """Failures of the tree by the table; anything else is INTERNAL with a reference, and its traceback stays in the log."""

    def around_unary(self, method: Method, call: UnaryCall) -> UnaryCall:
        async def translated(request: Any, context: Context) -> Any:
            try:
                return await call(request, context)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 - the edge of the process
                await _abort(method, context, error)

        return translated

    def around_stream(self, method: Method, call: StreamCall) -> StreamCall:
        async def translated(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async for response in call(request, context):
                    yield response
            except (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit):
                raise
            except Exception as error:  # noqa: BLE001 - the edge of the process
                await _abort(method, context, error)

        return translated


async def _abort(method: Method, context: Context, error: Exception) -> NoReturn:
    code = status_of(error) if isinstance(error, RankloopError) else None
    if code is not None:
        assert isinstance(error, RankloopError)
        if code is grpc.StatusCode.UNAVAILABLE:
            log.warning("unavailable", method=method.path, cause=type(error.__cause__ or error).__name__)
        await context.abort(code, shortened(error.message), trailing_metadata=((DETAILS_KEY, details_of(error, code)),))
    reference = uuid.uuid4().hex[:12]
    log.error("call failed", method=method.path, reference=reference, exc_info=error)
    message, details = internal_details(reference)
    await context.abort(grpc.StatusCode.INTERNAL, message, trailing_metadata=((DETAILS_KEY, details),))
    raise AssertionError("abort returns never")
