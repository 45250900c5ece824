"""The life of a process: told to stop by a signal, tells others when it is ready."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import Misconfigured
from runtime.logs import configure_logs
from runtime.metrics import MetricsPort
from runtime.mongo import Mongo
from runtime.schema import migrate
from runtime.settings import LogSettings, MetricsSettings, MongoSettings


@dataclass(frozen=True, slots=True)
class Ground:
    """What a process stands on while it runs."""

    mongo: Mongo
    """Connected, and at the newest schema."""
    stop: asyncio.Event
    """Set by SIGTERM and SIGINT."""
    metrics: str
    """Where Prometheus scrapes."""

    def tell_ready(self, path: Path | None, address: str) -> None:
        """Tells whoever waits for this process that it answers at `address`."""
        write_ready_file(path, {"address": address, "metrics": self.metrics, "pid": os.getpid()})
        settle_memory()


@asynccontextmanager
async def ground(
    process: str, *, mongo: MongoSettings, log_settings: LogSettings, metrics: MetricsSettings, metrics_port: int
) -> AsyncIterator[Ground]:
    """Logs, signals, the metrics port and the database of a process; closed in reverse.

    Raises:
        Misconfigured: it cannot start like this.
        Unavailable: the database does not answer.
    """
    configure_logs(log_settings, process=process)
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        scraped = MetricsPort(metrics.host, metrics_port)
        stack.callback(scraped.close)
        opened = await Mongo.open(mongo)
        stack.push_async_callback(opened.close)
        await migrate(opened)
        yield Ground(opened, stop, scraped.address)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set. A second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    return stop


def write_ready_file(path: Path | None, content: Mapping[str, Any]) -> None:
    """Writes JSON for whoever waits for this process; the file is whole from the moment it is there, and its owner's alone."""
    if path is None:
        return
    passing = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        passing.touch(mode=0o600)
        passing.write_text(json.dumps(content))
        passing.replace(path)
    except OSError as error:
        raise Misconfigured(
            f"the ready file {path} cannot be written ({error.strerror}); name a writable place with --ready-file"
        ) from error


def settle_memory() -> None:
    """Takes what start-up left out of the garbage collector's rounds: its pauses show in the 99th percentile."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
