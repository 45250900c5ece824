"""Settings of the server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from runtime.rpc.server import RpcSettings
from server.surfaces import SurfaceSettings

MAX_PORT = 65535
MAX_PORTS = 256
"""In one range."""

ServiceName = Literal["tracking", "ranking", "catalog", "stats", "models", "experiments", "export"]


def worker_addresses(text: str) -> tuple[str, ...]:
    """The addresses in host:port or host:first-last.

    Raises:
        ValueError: it is neither.
    """
    host, _, ports = text.strip().rpartition(":")
    first, dash, last = ports.partition("-")
    if host and first.isdecimal() and (last.isdecimal() if dash else not last):
        numbers = range(int(first), int(last or first) + 1)
        if numbers and numbers[0] > 0 and numbers[-1] <= MAX_PORT and len(numbers) <= MAX_PORTS:
            return tuple(f"{host}:{number}" for number in numbers)
    raise ValueError(f"{text.strip()}: expected host:port, as in 127.0.0.1:50052, or host:first-last, as in 127.0.0.1:50052-50055")


class ServerSettings(RpcSettings):
    """The front door."""

    services: tuple[ServiceName, ...] = ("tracking", "ranking", "catalog", "stats", "models", "experiments", "export")
    """The services it answers. Leave out `tracking` where `rankloop collector` takes it in, so that a burst of it cannot slow ranking."""

    experiment_poll_seconds: float = Field(1.0, gt=0, le=60)
    """How often the server looks for experiments that others started, changed or stopped."""

    experiment_watch_seconds: float = Field(600.0, gt=0, le=86_400)
    """How often running experiments that stop on a breach are read out, by one server for all. A bandit that had too little to go by, or
    whose weights would hardly have moved, is asked again after as long, or after its interval if that is shorter."""

    experiment_digest_seconds: float = Field(30.0, gt=0, le=3600)
    """How often the digests are brought up to date that experiments are read out from. One server does so for all."""

    experiment_digest_lease_seconds: float = Field(60.0, ge=5, le=3600)
    """How long a server that kept the digests and no longer answers keeps others from it."""

    surfaces: dict[str, SurfaceSettings] = Field(default_factory=dict, max_length=1000)
    """How slates of a surface are made where the request does not say, as in `[server.surfaces.home]`; `"*"`: of any other surface."""

    port: int = Field(50051, ge=0, le=65535)
    """The public port; 0: any free one."""

    rankers: tuple[str, ...] = ()
    """Addresses of ranking workers, host:port or host:first-last. Without any, every ranking is by `prior_score`."""

    rank_timeout_seconds: float = Field(0.5, gt=0, le=60)
    """Longest wait for a ranking worker; after it, or after two thirds of the caller's time, candidates go back by `prior_score`."""

    explain_timeout_seconds: float = Field(5.0, gt=0, le=60)
    """The same for requests that want an explanation, which takes longer."""

    ranker_rest_seconds: float = Field(0.5, ge=0, le=60)
    """How long a worker that failed several calls in a row is left alone; twice as long each time it does so again, eight times at most."""

    ranker_in_flight: int = Field(32, ge=1, le=10_000)
    """Rankings that one worker is given by this server at once; further ones go to others, or wait in line."""

    rank_queue_capacity: int = Field(256, ge=0, le=100_000)
    """Rankings that wait in line at most when all workers have enough to do; further ones go back by `prior_score` at once."""

    slate_linger_seconds: float = Field(0.02, ge=0, le=10)
    """How long a ranked slate waits for others, so that one write takes several. The answer does not wait."""

    slate_capacity: int = Field(10_000, ge=1)
    """Slates waiting to be recorded at most; beyond it the oldest is dropped and counted."""

    news_capacity: int = Field(100_000, ge=0)
    """Users whose newest interactions were taken in here, kept in memory: their histories are read anew for their next ranking."""

    repeat_capacity: int = Field(10_000, ge=0)
    """Answers kept in memory for repeated request ids; older ones are read from the ledger."""

    @field_validator("rankers")
    @classmethod
    def _addresses(cls, listed: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(address for text in listed for address in worker_addresses(text)))
