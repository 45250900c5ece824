"""Settings of the server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.rpc.server import RpcSettings
from server.surfaces import SurfaceSettings

ServiceName = Literal["tracking", "ranking", "catalog", "stats", "models"]


class ServerSettings(RpcSettings):
    """The front door."""

    services: tuple[ServiceName, ...] = ("tracking", "ranking", "catalog", "stats", "models")
    """The services it answers. Leave out `tracking` where `rankloop collector` takes it in, so that a burst of it cannot slow ranking."""

    surfaces: dict[str, SurfaceSettings] = Field(default_factory=dict, max_length=1000)
    """How slates of a surface are made where the request does not say, as in `[server.surfaces.home]`; `"*"`: of any other surface."""

    port: int = Field(50051, ge=0, le=65535)
    """The public port; 0: any free one."""

    rankers: tuple[str, ...] = ()
    """Addresses of ranking workers, host:port. Without any, every ranking is by `prior_score`."""

    rank_timeout_seconds: float = Field(0.5, gt=0, le=60)
    """Longest wait for a ranking worker; after it, or after two thirds of the caller's time, candidates go back by `prior_score`."""

    explain_timeout_seconds: float = Field(5.0, gt=0, le=60)
    """The same for requests that want an explanation, which takes longer."""

    ranker_rest_seconds: float = Field(0.5, ge=0, le=60)
    """How long a worker that left several calls in a row unanswered is left alone."""

    slate_capacity: int = Field(10_000, ge=1)
    """Slates waiting to be recorded at most; beyond it the oldest is dropped and counted."""

    repeat_capacity: int = Field(10_000, ge=0)
    """Answers kept in memory for repeated request ids; older ones are read from the ledger."""
