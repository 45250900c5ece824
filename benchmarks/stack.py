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

from runtime.child import Child
from runtime.embedded import EmbeddedMongo


@dataclass(frozen=True, slots=True)
class Running:
    """Where they are."""

    mongo_uri: str
    address: str
    """Of the server; empty: none was started."""
    pid: int
    """Of the server; 0: none was started."""


@asynccontextmanager
async def running(directory: Path, *, server: bool) -> AsyncIterator[Running]:
    """A fresh MongoDB below `directory`, and a server on it if asked for. No collector: nothing folds unless the benchmark does."""
    mongo = await EmbeddedMongo.start(directory / "mongo")
    try:
        if not server:
            yield Running(mongo.uri, "", 0)
            return
        ready = directory / "server.json"
        command = [sys.executable, "-m", "scripts.cli", "server", "--port", "0", "--ready-file", str(ready)]
        child = Child.start(command, output=directory / "server.log", environment={**os.environ, "RANKLOOP_MONGO_URI": mongo.uri})
        try:
            async with asyncio.timeout(60):
                while not ready.exists():
                    if child.exit_code is not None:
                        raise RuntimeError(f"the server ended; its log is {directory / 'server.log'}")
                    await asyncio.sleep(0.05)
            yield Running(mongo.uri, json.loads(ready.read_text())["address"], child.pid)
        finally:
            await child.stop(grace_seconds=20)
    finally:
        await mongo.stop()
