"""A gRPC server of ours: layers, health, reflection, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from pydantic import Field

from runtime.configuration import Section
from runtime.errors import Misconfigured
from runtime.rpc.bounded import Bounded
from runtime.rpc.fenced import Fenced
from runtime.rpc.layers import Layer, Layers, Method
from runtime.rpc.logged import Logged
from runtime.rpc.measured import Measured
from runtime.rpc.translated import Translated

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


class RpcSettings(Section):
    """How a process answers calls."""

    host: str = "127.0.0.1"
    """The address to bind."""

    port: int = Field(0, ge=0, le=65535)
    """The port to bind; 0: any free one."""

    metrics_port: int = Field(0, ge=0, le=65535)
    """The port Prometheus scrapes; 0: any free one."""

    allow_unauthenticated: bool = False
    """Binding beyond loopback needs this said: there is no authentication, so the network must keep strangers out."""

    reflection: bool = True
    """Whether the contract can be asked for (grpcurl and the like)."""

    max_message_bytes: int = Field(16 * 2**20, ge=2**16, le=2**30)
    """The largest message taken, after decompression."""

    max_concurrent_calls: int = Field(512, ge=1, le=100_000)
    """Calls under way at once; further ones hear RESOURCE_EXHAUSTED, and when to come again."""

    longest_call_seconds: float = Field(30.0, gt=0, le=3600)
    """The longest that a call may take when its caller set no deadline."""

    drain_seconds: float = Field(10.0, ge=0, le=3600)
    """How long calls under way may take to finish when the process is told to stop."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service and who answers it."""

    descriptor: ServiceDescriptor
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: Any

    @classmethod
    def of(cls, messages: Any, stubs: Any, name: str, servicer: Any) -> Service:
        """The service `name` of the generated modules x_pb2 and x_pb2_grpc."""
        return cls(messages.DESCRIPTOR.services_by_name[name], getattr(stubs, f"add_{name}Servicer_to_server"), servicer)


class RpcServer:
    """Serves services until it is drained."""

    def __init__(self, settings: RpcSettings, services: Sequence[Service], *, log_calls: bool) -> None:
        if settings.host not in LOOPBACK and not settings.allow_unauthenticated:
            raise Misconfigured(
                f"binding {settings.host} would let anybody on the network in, and there is no authentication; "
                "bind 127.0.0.1, or set allow_unauthenticated = true where the network itself keeps strangers out"
            )
        self._settings = settings
        methods = [
            Method(service.descriptor.full_name, method.name, "server_stream" if method.server_streaming else "unary")
            for service in services
            for method in service.descriptor.methods
        ]
        layers: list[Layer] = [
            Measured(methods),
            Logged(calls=log_calls),
            Translated(),
            Fenced(most_calls=settings.max_concurrent_calls),
            Bounded(longest_seconds=settings.longest_call_seconds),
        ]
        self._server = grpc.aio.server(
            interceptors=(Layers(layers),),
            # Far behind the fence, which says more and lets probes in: for what does not reach it.
            maximum_concurrent_rpcs=2 * settings.max_concurrent_calls + 64,
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ),
        )
        self._health = health_aio.HealthServicer()
        self._names = ["", *(service.descriptor.full_name for service in services)]
        for service in services:
            service.add(service.servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            names = (*self._names[1:], health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self.address = ""

    async def start(self) -> None:
        """Opens the port; healthy only after `set_serving`."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        wanted = f"{self._settings.host}:{self._settings.port}"
        try:
            port = self._server.add_insecure_port(wanted)
        except RuntimeError as error:
            raise Misconfigured(f"the port {wanted} cannot be opened; is it in use? Choose another with --port") from error
        if port == 0:
            raise Misconfigured(f"the port {wanted} cannot be opened; is it in use? Choose another with --port")
        await self._server.start()
        self.address = f"{self._settings.host}:{port}"

    async def set_serving(self) -> None:
        """Tells health probes that calls are welcome."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, *, probe_seconds: float = 0.0) -> None:
        """Tells health probes to stay away, waits one probe, and lets calls under way finish."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        if probe_seconds:
            await asyncio.sleep(probe_seconds)
        await self._server.stop(self._settings.drain_seconds)

    async def _set_health(self, status: Any) -> None:
        for name in self._names:
            await self._health.set(name, status)
