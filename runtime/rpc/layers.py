"""The layers around every handler: a list, outermost first, that one can print.

One interceptor carries them all. It wraps a method's handler once and keeps it by method name; unknown methods, whose names strangers
choose, are not kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from runtime.errors import InvalidInput
from runtime.rpc.density import too_dense

Context = grpc.aio.ServicerContext[Any, Any]
UnaryCall = Callable[[Any, Context], Awaitable[Any]]
StreamCall = Callable[[Any, Context], AsyncIterator[Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service."""

    service: str
    name: str
    kind: str
    """`unary` or `server_stream`."""

    @property
    def path(self) -> str:
        """As it stands on the wire."""
        return f"/{self.service}/{self.name}"


class Layer(Protocol):
    """One job around every call."""

    def around_unary(self, method: Method, call: UnaryCall) -> UnaryCall:
        """The call with this layer around it."""
        ...

    def around_stream(self, method: Method, call: StreamCall) -> StreamCall:
        """The stream with this layer around it."""
        ...


class Layers(grpc.aio.ServerInterceptor):
    """Puts layers around handlers, outermost first."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def __repr__(self) -> str:
        return " → ".join(type(layer).__name__.lower() for layer in self._layers)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        path = str(handler_call_details.method)
        kept = self._handlers.get(path)
        if kept is not None:
            return kept
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        wrapped = self._wrap(path, handler)
        self._handlers[path] = wrapped
        return wrapped

    def _wrap(self, path: str, handler: Any) -> Any:
        service, _, name = path.lstrip("/").rpartition("/")
        if handler.request_streaming:
            return handler  # only health and reflection stream requests, and they bring their own manners
        if handler.response_streaming:
            stream: StreamCall = _decoded_stream(handler.unary_stream, handler.request_deserializer)
            for layer in reversed(self._layers):
                stream = layer.around_stream(Method(service, name, "server_stream"), stream)
            return grpc.unary_stream_rpc_method_handler(stream, response_serializer=handler.response_serializer)
        call: UnaryCall = _decoded_unary(handler.unary_unary, handler.request_deserializer)
        for layer in reversed(self._layers):
            call = layer.around_unary(Method(service, name, "unary"), call)
        return grpc.unary_unary_rpc_method_handler(call, response_serializer=handler.response_serializer)


def _decoded_unary(call: UnaryCall, decode: Callable[[bytes], Any]) -> UnaryCall:
    async def decoded(request: bytes, context: Context) -> Any:
        return await call(_decoded(request, decode), context)

    return decoded


def _decoded_stream(call: StreamCall, decode: Callable[[bytes], Any]) -> StreamCall:
    async def decoded(request: bytes, context: Context) -> AsyncIterator[Any]:
        async for response in call(_decoded(request, decode), context):
            yield response

    return decoded


def _decoded(request: bytes, decode: Callable[[bytes], Any]) -> Any:
    """The message. Decoded inside the layers, so that bytes that are none are the caller's fault, told and counted like any other."""
    if too_dense(request):
        raise InvalidInput.of("", "TOO_MANY", "the message has too many parts; lists hold 1,000 entries at most, so split what is more")
    try:
        return decode(request)
    except DecodeError as error:
        raise InvalidInput.of("", "INVALID", "the bytes are no message of this method; is the caller's contract the server's?") from error
