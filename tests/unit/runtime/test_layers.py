"""The layers around every call, on a real server and channel: what escapes a handler never reaches the caller as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import prometheus_client
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2

from runtime.errors import InvalidInput, NotFound
from runtime.rpc.bounded import Bounded
from runtime.rpc.fenced import Fenced
from runtime.rpc.layers import Layers, Method
from runtime.rpc.logged import Logged
from runtime.rpc.measured import Measured
from runtime.rpc.translated import Translated

SERVICE = "test.Echo"
SECRET = "mongodb://admin:hunter2@db"


class Echo:
    """Does what it is told."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.begun_count = 0
        self.cancelled = asyncio.Event()

    async def call(self, request: StringValue, context: Any) -> StringValue:
        match request.value:
            case "secret":
                raise RuntimeError(SECRET)
            case "missing":
                raise NotFound("there is none")
            case "wrong":
                raise InvalidInput.of("value", "MISSING", "is required")
            case "abort":
                await context.abort(grpc.StatusCode.ALREADY_EXISTS, "by hand")
            case "timeout":
                raise TimeoutError(SECRET)
            case "wait":
                self.begun.set()
                self.begun_count += 1
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
        return StringValue(value=request.value)

    async def stream(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        yield StringValue(value="first")
        if request.value == "secret":
            raise RuntimeError(SECRET)
        yield StringValue(value="second")


Call = Callable[..., Awaitable[StringValue]]


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def channel(echo: Echo) -> AsyncIterator[grpc.aio.Channel]:
    methods = [Method(SERVICE, "Call", "unary"), Method(SERVICE, "Stream", "server_stream")]
    layers = Layers([Measured(methods), Logged(calls=True), Translated(), Fenced(most_calls=2), Bounded(longest_seconds=0.2)])
    assert repr(layers) == "measured → logged → translated → fenced → bounded"
    server = grpc.aio.server(interceptors=(layers,), options=(("grpc.so_reuseport", 0),))
    decode, encode = StringValue.FromString, StringValue.SerializeToString
    handlers = {
        "Call": grpc.unary_unary_rpc_method_handler(echo.call, decode, encode),
        "Stream": grpc.unary_stream_rpc_method_handler(echo.stream, decode, encode),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(None)


def caller(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(f"/{SERVICE}/Call", StringValue.SerializeToString, StringValue.FromString)


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


def reason_of(error: grpc.aio.AioRpcError) -> str:
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    return str(info.reason)


def handled(method: str, code: str) -> float:
    labels = {"grpc_type": "unary" if method == "Call" else "server_stream", "grpc_service": SERVICE, "grpc_method": method}
    return prometheus_client.REGISTRY.get_sample_value("grpc_server_handled_total", {**labels, "grpc_code": code}) or 0.0


async def counted(method: str, code: str, count: float) -> None:
    """Waits until so many calls are counted: an answer may arrive a moment before its count."""
    async with asyncio.timeout(30):
        while handled(method, code) < count:
            await asyncio.sleep(0.01)
    assert handled(method, code) == count


async def test_an_answer_goes_through(channel: grpc.aio.Channel) -> None:
    before = handled("Call", "OK")
    assert (await caller(channel)(StringValue(value="x"))).value == "x"
    await counted("Call", "OK", before + 1)


@pytest.mark.parametrize("unforeseen", ["secret", "timeout"])
async def test_the_text_of_an_unforeseen_failure_stays_in_the_log(
    channel: grpc.aio.Channel, capsys: pytest.CaptureFixture[str], unforeseen: str
) -> None:
    before = handled("Call", "Internal")
    error = await failure(caller(channel)(StringValue(value=unforeseen)))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert reason_of(error) == "INTERNAL"
    assert "hunter2" not in repr(error) + repr(error.trailing_metadata())
    reference = str(error.details()).rpartition(" ")[2]
    said = capsys.readouterr()
    assert reference in said.out + said.err
    await counted("Call", "Internal", before + 1)


@pytest.mark.parametrize(
    ("told", "code", "name"),
    [
        ("missing", grpc.StatusCode.NOT_FOUND, "NotFound"),
        ("wrong", grpc.StatusCode.INVALID_ARGUMENT, "InvalidArgument"),
        ("abort", grpc.StatusCode.ALREADY_EXISTS, "AlreadyExists"),
    ],
)
async def test_failures_that_are_known_are_told_and_counted(channel: grpc.aio.Channel, told: str, code: grpc.StatusCode, name: str) -> None:
    before = handled("Call", name)
    assert (await failure(caller(channel)(StringValue(value=told)))).code() is code
    await counted("Call", name, before + 1)


async def test_bytes_that_are_no_message_are_the_callers_fault(channel: grpc.aio.Channel) -> None:
    before = handled("Call", "InvalidArgument")
    raw: Any = channel.unary_unary(f"/{SERVICE}/Call")
    error = await failure(raw(b"\xff\xff"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    await counted("Call", "InvalidArgument", before + 1)


@pytest.mark.parametrize("deadline", [None, 60.0])
async def test_a_call_that_takes_too_long_hears_why(channel: grpc.aio.Channel, echo: Echo, deadline: float | None) -> None:
    error = await failure(caller(channel)(StringValue(value="wait"), timeout=deadline))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "TOO_SLOW")
    await asyncio.wait_for(echo.cancelled.wait(), 30)


async def test_a_caller_who_goes_ends_the_work(channel: grpc.aio.Channel, echo: Echo) -> None:
    before = handled("Call", "Cancelled")
    call = caller(channel)(StringValue(value="wait"))
    await asyncio.wait_for(echo.begun.wait(), 30)
    call.cancel()
    await asyncio.wait_for(echo.cancelled.wait(), 30)
    await counted("Call", "Cancelled", before + 1)


async def test_a_stream_that_breaks_off_tells_as_little(channel: grpc.aio.Channel) -> None:
    stream: Any = channel.unary_stream(f"/{SERVICE}/Stream", StringValue.SerializeToString, StringValue.FromString)
    assert [one.value async for one in stream(StringValue(value="x"))] == ["first", "second"]
    breaking = stream(StringValue(value="secret"))
    assert (await breaking.read()).value == "first"
    error = await failure(breaking.read())
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in repr(error) + repr(error.trailing_metadata())
    raw: Any = channel.unary_stream(f"/{SERVICE}/Stream", None, StringValue.FromString)
    assert (await failure(raw(b"\xff\xff").read())).code() is grpc.StatusCode.INVALID_ARGUMENT


def shed(reason: str) -> float:
    labels = {"grpc_service": SERVICE, "grpc_method": "Call", "reason": reason}
    return prometheus_client.REGISTRY.get_sample_value("rankloop_calls_shed_total", labels) or 0.0


async def test_more_calls_than_there_is_room_for_hear_at_once_when_to_come_again(channel: grpc.aio.Channel, echo: Echo) -> None:
    before = shed("full")
    within = [asyncio.ensure_future(caller(channel)(StringValue(value="wait"))) for _ in range(2)]
    async with asyncio.timeout(30):
        while echo.begun_count < 2:
            await asyncio.sleep(0.01)
    error = await failure(caller(channel)(StringValue(value="x")))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    details = status_pb2.Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"]).details
    retry = error_details_pb2.RetryInfo()
    assert details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() > 0
    assert shed("full") == before + 1
    for call in within:
        await failure(call)  # they take too long
    assert (await caller(channel)(StringValue(value="x"))).value == "x", "there is room again"
