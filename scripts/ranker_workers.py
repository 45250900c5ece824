"""`rankloop ranker --workers N`: several ranking workers of one machine under one parent, each with ports of its own."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import Misconfigured
from runtime.logs import configure_logs, get_logger
from runtime.process import stop_on_signals, write_ready_file
from runtime.rpc.server import RpcSettings
from runtime.settings import LogSettings
from scripts.supervision import Worker, unless

SPARE_SECONDS = 5.0
"""What a worker may take to stop beyond the calls it finishes."""
MAX_PORT = 65535

log = get_logger("workers")


class Workers:
    """Ranking workers that are started again when they end, and drained together."""

    def __init__(self, count: int, settings: RpcSettings, shared: Sequence[str], ready_file: Path | None, folder: Path) -> None:
        """`shared` is said to each on its command line. With a port in the settings they take that one and those that follow it.

        Raises:
            Misconfigured: there are not so many ports.
        """
        for name, first in (("--port", settings.port), ("--metrics-port", settings.metrics_port)):
            if first and first + count - 1 > MAX_PORT:
                raise Misconfigured(f"{count} workers from {name} {first} on would need ports beyond {MAX_PORT}; begin lower")
        self._ready_file = ready_file
        self._workers = [
            Worker(
                f"ranker-{number + 1}",
                "ranker",
                [*shared, *ports_of(settings, number)],
                folder,
                grace_seconds=settings.drain_seconds + SPARE_SECONDS,
                own_log=False,
            )
            for number in range(count)
        ]

    async def run(self) -> None:
        """Runs until a signal says stop. Raises Misconfigured if one of them does not start."""
        stop = stop_on_signals()
        try:
            await unless(stop, self._start())
            if not stop.is_set():
                self._tell()
                log.info("ranking workers ready", addresses=[worker.address for worker in self._workers])
                await unless(stop, self._keep())
        finally:
            if self._ready_file is not None:
                self._ready_file.unlink(missing_ok=True)
            await asyncio.gather(*(worker.stop() for worker in self._workers))
        log.info("ranking workers stopped")

    async def _start(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self._workers:
                    group.create_task(worker.start(os.environ))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(worker.keep(os.environ, self._tell, log.warning))

    def _tell(self) -> None:
        """Writes the ready file."""
        first = self._workers[0]
        content = {
            "address": first.address,
            "addresses": [worker.address for worker in self._workers],
            "metrics": first.metrics,
            "pid": os.getpid(),
            "workers": [{"address": worker.address, "metrics": worker.metrics, "pid": worker.pid} for worker in self._workers],
        }
        write_ready_file(self._ready_file, content)


def ports_of(settings: RpcSettings, number: int) -> list[str]:
    """What the worker of that number, from 0, is told of its ports: of a port that is set it takes the number-th after it."""
    ports = {"--port": settings.port, "--metrics-port": settings.metrics_port}
    return [word for option, first in ports.items() for word in (option, str(first and first + number))]


def run_workers(count: int, settings: RpcSettings, logs: LogSettings, config: Path | None, ready_file: Path | None) -> None:
    """Runs `count` ranking workers until a signal says stop. Raises Misconfigured if they cannot start."""
    configure_logs(logs, process="ranker workers")
    shared = ["--host", settings.host, *(["--config", str(config.absolute())] if config is not None else [])]
    with tempfile.TemporaryDirectory(prefix="rankloop-workers-") as folder:
        asyncio.run(Workers(count, settings, shared, ready_file, Path(folder)).run())
