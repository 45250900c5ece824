"""Settings of what every process stands on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.configuration import Section


class MongoSettings(Section):
    """Where the database is, and how it is spoken to."""

    uri: str = ""
    """A MongoDB URI of a replica set or sharded cluster. Empty: `rankloop up` starts an embedded one; other processes need it."""

    database: str = Field("rankloop", min_length=1, max_length=63, pattern=r'^[^/\\. "$*<>:|?]+$')
    """The database's name."""

    driver: Literal["motor", "pymongo"] = "motor"
    """Motor, or PyMongo's own async API."""

    server_selection_timeout_seconds: float = Field(5.0, gt=0, le=120)
    """Longest wait for a node that can take a command."""

    socket_timeout_seconds: float = Field(20.0, gt=0, le=600)
    """Longest wait for a reply on an open connection; frees what hangs on a node that no longer answers."""

    max_concurrent_operations: int = Field(16, ge=1, le=1000)
    """Operations under way at once, per process; further ones wait within their callers' deadlines."""


class LogSettings(Section):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written."""

    calls: bool = False
    """Whether every call is logged; failed ones with a fault of ours always are."""


class MetricsSettings(Section):
    """Where Prometheus scrapes."""

    host: str = "127.0.0.1"
    """The address the metrics ports bind to."""
