"""Logs calls: every one if the settings ask for it, else those that failed through a fault of ours."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from runtime.logs import get_logger
from runtime.rpc.layers import Context, Method, StreamCall, UnaryCall

log = get_logger("rpc")


class Logged:
    """Writes what happened, never what was in it."""

    def __init__(self, *, calls: bool) -> None:
        self._calls = calls

    def around_unary(self, method: Method, call: UnaryCall) -> UnaryCall:
        if not self._calls:
            return call

        async def logged(request: Any, context: Context) -> Any:
            begin = time.perf_counter()
            try:
                response = await call(request, context)
            except (grpc.aio.AbortError, Exception):
                self._write(method, begin, failed=True)
                raise
            self._write(method, begin, failed=False)
            return response

        return logged

    def around_stream(self, method: Method, call: StreamCall) -> StreamCall:
        if not self._calls:
            return call

        async def logged(request: Any, context: Context) -> AsyncIterator[Any]:
            begin = time.perf_counter()
            failed = True
            try:
                async for response in call(request, context):
                    yield response
                failed = False
            finally:
                self._write(method, begin, failed=failed)

        return logged

    @staticmethod
    def _write(method: Method, begin: float, *, failed: bool) -> None:
        log.info("call", method=method.path, failed=failed, milliseconds=round((time.perf_counter() - begin) * 1000, 3))
