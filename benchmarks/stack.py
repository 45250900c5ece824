"""The processes that a benchmark measures: an embedded MongoDB and one process of ours, as they run in production."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.child import Child
from runtime.embedded import EmbeddedMongo, EmbeddedSettings


@dataclass(frozen=True, slots=True)
class Running:
    """Where they are."""

    mongo_uri: str
    address: str
    """Of the server; empty: none was started."""
    pid: int
    """Of the server; 0: none was started."""


@asynccontextmanager
async def running(directory: Path, *, server: bool, cache_gigabytes: float = 0.5) -> AsyncIterator[Running]:
    """A fresh MongoDB below `directory`, and a server on it if asked for. No collector: nothing folds unless the benchmark does."""
    mongo = await EmbeddedMongo.start(directory / "mongo", EmbeddedSettings(cache_gigabytes=cache_gigabytes))
    try:
        if not server:
            yield Running(mongo.uri, "", 0)
            return
        async with _process(directory, "server", mongo.uri) as (child, ready):
            yield Running(mongo.uri, ready["address"], child.pid)
    finally:
        await mongo.stop()


@asynccontextmanager
async def collector_beside(stack: Running, directory: Path) -> AsyncIterator[None]:
    """A collector on the same database, which folds."""
    async with _process(directory, "collector", stack.mongo_uri):
        yield


@asynccontextmanager
async def _process(directory: Path, name: str, mongo_uri: str) -> AsyncIterator[tuple[Child, dict[str, Any]]]:
    ready, log = directory / f"{name}.json", directory / f"{name}.log"
    ready.unlink(missing_ok=True)  # a directory that is kept has that of the run before
    command = [sys.executable, "-m", "scripts.cli", name, "--port", "0", "--ready-file", str(ready)]
    child = Child.start(command, output=log, environment={**os.environ, "RANKLOOP_MONGO_URI": mongo_uri})
    try:
        async with asyncio.timeout(60):
            while not ready.exists():
                if child.exit_code is not None:
                    raise RuntimeError(f"the {name} ended: {log.read_text()[-2000:]}")
                await asyncio.sleep(0.05)
        yield child, json.loads(ready.read_text())
    finally:
        await child.stop(grace_seconds=20)


def resident_bytes(pid: int) -> int:
    """Of a process, as the kernel counts it."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def reset_peak(pid: int) -> None:
    """Lets the kernel forget how much a process had resident at most."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """The most that a process had resident since it began, or since `reset_peak`."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
