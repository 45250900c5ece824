"""What is harmed: MongoDB, two servers and two collectors as processes of their own, and proxies between them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.child import Child
from runtime.mongo import Mongo
from runtime.settings import MongoSettings
from tests.faults.proxy import GrpcWatch, MongoWatch, Proxy
from tests.faults.replica_set import ReplicaSet, free_port, wait_state

LOOK_SECONDS = 0.02
START_SECONDS = 60.0
DATABASE = "faults"
DRIVERS = ("motor", "pymongo")
FOLD_ENTRIES = (8, 32)
"""Of a transaction at most, by collector: a burst then takes several on end, each beside the removal of the marks before it."""


class Process:
    """One process of ours that may be killed, stopped and started again at the same address."""

    def __init__(self, name: str, folder: Path, arguments: list[str], variables: Mapping[str, str]) -> None:
        self.name = name
        self._ready_file = folder / f"{name}.json"
        self._output = folder / f"{name}.log"
        self._command = [sys.executable, "-m", "scripts.cli", *arguments, "--ready-file", str(self._ready_file)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RANKLOOP_") or key == "RANKLOOP_MONGOD"}
        self._environment = {**kept, **variables}
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None
        return self._child.pid

    @property
    def runs(self) -> bool:
        """Whether there is a process, stopped or not."""
        return self._child is not None and self._child.exit_code is None

    def start(self) -> None:
        """Starts it."""
        self._ready_file.unlink(missing_ok=True)
        self._child = Child.start(self._command, output=self._output, environment=self._environment)

    async def wait_ready(self) -> None:
        """Waits until it answers; what ends meanwhile because its database is away is started again, as `rankloop up` would."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if not self.runs:
                self.start()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not get ready; it said: {self._output.read_text()[-2000:]}")
            await asyncio.sleep(LOOK_SECONDS)

    def _is_ready(self) -> bool:
        try:
            return self.runs and int(json.loads(self._ready_file.read_text())["pid"]) == self.pid
        except (OSError, ValueError):
            return False

    async def kill(self) -> None:
        """SIGKILL, and waits until it has gone."""
        if self.runs:
            os.kill(self.pid, signal.SIGKILL)
            assert self._child is not None
            await self._child.wait()

    async def stop_clock(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)
        await wait_state(self.pid, "T")

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)


@dataclass(slots=True)
class Stack:
    """All of it, on fresh ports, below one folder."""

    folder: Path
    replica_set: ReplicaSet
    servers: list[Process] = field(default_factory=list)
    collectors: list[Process] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    """Where the oracle sends; the first leads through a proxy."""
    answers: Proxy | None = None
    """Between the oracle and the first server."""
    writes: Proxy | None = None
    """Between the second server and MongoDB (one node only: with several, drivers go where the set's configuration says)."""
    folds: list[Proxy] = field(default_factory=list)
    """Between each collector and MongoDB (one node only)."""

    @classmethod
    async def start(cls, folder: Path, *, nodes: int, data: Path | None = None) -> Stack:
        """Starts everything and waits until it answers; MongoDB's data lie below `data`, if they are to lie elsewhere."""
        stack = cls(folder, await ReplicaSet.start(data or folder, nodes))
        try:
            await stack._start_processes()
        except BaseException:
            await stack.end()
            raise
        return stack

    async def _start_processes(self) -> None:
        uris = [self.replica_set.uri] * 4
        if len(self.replica_set.nodes) == 1:
            node = self.replica_set.nodes[0].address
            self.writes = Proxy(node, lambda: MongoWatch(("insert",)))
            self.folds = [Proxy(node, lambda: MongoWatch(("commitTransaction",))) for _ in range(2)]
            for place, proxy in enumerate((self.writes, *self.folds), start=1):
                await proxy.open()
                uris[place] = f"mongodb://{proxy.address}/?directConnection=true"
        ports = [free_port() for _ in range(4)]
        for number in range(2):
            arguments = ["server", "--port", str(ports[number])]
            self.servers.append(Process(f"server{number}", self.folder, arguments, _variables(uris[number], DRIVERS[number])))
        for number in range(2):
            arguments = ["collector", "--port", str(ports[2 + number])]
            variables = _variables(uris[2 + number], DRIVERS[1 - number])
            variables["RANKLOOP_COLLECTOR_FOLD_ENTRIES"] = str(FOLD_ENTRIES[number])
            self.collectors.append(Process(f"collector{number}", self.folder, arguments, variables))
        self.answers = Proxy(f"127.0.0.1:{ports[0]}", GrpcWatch)
        await self.answers.open()
        self.addresses = [self.answers.address, f"127.0.0.1:{ports[1]}"]
        for process in self.processes:
            process.start()
        for process in self.processes:
            await process.wait_ready()

    @property
    def processes(self) -> list[Process]:
        """Servers and collectors."""
        return [*self.servers, *self.collectors]

    async def open_mongo(self) -> Mongo:
        """A connection past every proxy, for whoever judges."""
        return await Mongo.open(MongoSettings(uri=self.replica_set.uri, database=DATABASE, driver="pymongo"))

    async def folding(self, mongo: Mongo) -> Process:
        """Waits until one of the collectors holds the lease of the fold, and returns it."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                lease: dict[str, Any] = await mongo.collection("leases").find_one({"_id": "fold"}) or {}
                for process in self.collectors:
                    if process.runs and f":{process.pid}:" in lease.get("holder", ""):
                        return process
                await asyncio.sleep(LOOK_SECONDS)

    async def end(self) -> None:
        """Ends every process and every connection."""
        for process in self.processes:
            await process.kill()
        for proxy in (self.answers, self.writes, *self.folds):
            if proxy is not None and proxy.port:
                await proxy.close()
        await self.replica_set.end()


def _variables(uri: str, driver: str) -> dict[str, str]:
    return {"RANKLOOP_MONGO_URI": uri, "RANKLOOP_MONGO_DATABASE": DATABASE, "RANKLOOP_MONGO_DRIVER": driver}
