"""Calls of ModelService, as the commands about models make them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from rankloop.v1 import model_pb2, model_pb2_grpc
from scripts.connection import Connection

PAGE_SIZE = 200
CALL_SECONDS = 60.0

Server = Annotated[str, typer.Option(envvar="RANKLOOP_ADDRESS", help="The server, as host:port.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, as the API's messages.")]
Result = TypeVar("Result")
Stub = model_pb2_grpc.ModelServiceStub


def ask(server: str, question: Callable[[Connection, Stub], Awaitable[Result]]) -> Result:
    """Asks a server, and waits a moment for one that is not there yet."""

    async def run() -> Result:
        async with Connection(server, deadline_seconds=CALL_SECONDS, patience_seconds=10) as connection:
            await connection.reach()
            return await question(connection, Stub(connection.channel))

    return asyncio.run(run())


def figure(metric: model_pb2.Metric) -> str:
    """A measured value with its interval."""
    interval = f" ({metric.low:.4f} to {metric.high:.4f})" if metric.HasField("low") and metric.HasField("high") else ""
    return f"{metric.value:.4f}{interval}"


def moment(time: Timestamp) -> str:
    """A moment, to the second."""
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")
