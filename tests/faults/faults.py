"""Faults: each an object that hits and heals. Between the two lies as little as makes it a fault, or what the fault itself waits for."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from runtime.errors import Unavailable
from runtime.mongo import Mongo
from tests.faults.proxy import Proxy
from tests.faults.replica_set import Node
from tests.faults.stack import Process, Stack

LOOK_SECONDS = 0.02
SHORT_LOOK_SECONDS = 0.001
IN_TRANSACTION = 0.75
"""The fold rests far longer than it works: so many of the faults that are for it wait until it has begun a transaction."""
TRANSACTION_SECONDS = 0.06
"""And hit it within this; some of its transactions are longer, some are over by then."""
WAIT_SECONDS = 60.0
CALLS = 5
"""Calls that must have been answered (with a failure, if all is well) before what makes writes impossible is mended."""

Progress = Callable[[int], Awaitable[None]]
"""Waits until so many more calls were acknowledged, by the oracle's journal."""
Answers = Callable[[int], Awaitable[None]]
"""Waits until so many calls, begun since it was asked, were answered one way or the other."""


class Fault(Protocol):
    """Something that goes wrong."""

    kind: str
    silent: bool
    """Whether nothing may be acknowledged between the hit and `mended`."""
    mended: float
    """When the mending began, in seconds of the monotonic clock."""

    async def hit(self) -> None:
        """It goes wrong; returns when it has."""

    async def heal(self) -> None:
        """It is mended; returns when what was harmed answers again."""


class Killed:
    """SIGKILL of a process, which is then started again."""

    silent = False
    mended = 0.0

    def __init__(self, kind: str, find: Callable[[], Awaitable[Process]]) -> None:
        self.kind = f"{kind} killed"
        self._find = find
        self._process: Process | None = None

    async def hit(self) -> None:
        self._process = await self._find()
        await self._process.kill()

    async def heal(self) -> None:
        assert self._process is not None
        self._process.start()
        await self._process.wait_ready()


class Stopped:
    """SIGSTOP of a process, and SIGCONT later: it believes that no time has passed."""

    silent = False
    mended = 0.0

    def __init__(self, kind: str, find: Callable[[], Awaitable[Process]], until: Callable[[Process], Awaitable[None]]) -> None:
        self.kind = f"{kind} stopped"
        self._find = find
        self._until = until
        self._process: Process | None = None

    async def hit(self) -> None:
        self._process = await self._find()
        await self._process.stop_clock()

    async def heal(self) -> None:
        assert self._process is not None
        try:
            await self._until(self._process)
        finally:
            self._process.go_on()


class Cut:
    """Connections cut after the write was applied and before its reply."""

    silent = False
    mended = 0.0

    def __init__(self, kind: str, find: Callable[[], Awaitable[Proxy]], count: int) -> None:
        self.kind = f"{kind} cut"
        self._find = find
        self._proxy: Proxy | None = None
        self._count = count

    async def hit(self) -> None:
        self._proxy = await self._find()
        self._proxy.cut(self._count)

    async def heal(self) -> None:
        assert self._proxy is not None
        async with asyncio.timeout(WAIT_SECONDS):
            while self._proxy.pending_cuts:
                await asyncio.sleep(LOOK_SECONDS)


class NodesKilled:
    """SIGKILL of mongods, all at once; started again on their data."""

    def __init__(self, kind: str, stack: Stack, find: Callable[[], Awaitable[list[Node]]], *, silent: bool, until: Answers | None) -> None:
        self.kind = kind
        self.silent = silent
        self.mended = 0.0
        self._stack = stack
        self._find = find
        self._until = until

    async def hit(self) -> None:
        await asyncio.gather(*(node.kill() for node in await self._find()))

    async def heal(self) -> None:
        if self._until is not None:
            await self._until(CALLS)
        self.mended = time.monotonic()
        await self._stack.replica_set.start_all()


class PrimaryKilled:
    """SIGKILL of the primary: the others elect one of them before it comes back."""

    kind = "primary killed"
    silent = False
    mended = 0.0

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def hit(self) -> None:
        await (await self._stack.replica_set.wait_primary()).kill()

    async def heal(self) -> None:
        await self._stack.replica_set.wait_primary()
        await self._stack.replica_set.start_all()


class SteppedDown:
    """The primary gives up its place in good order."""

    kind = "primary stepped down"
    silent = False
    mended = 0.0

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._was: Node | None = None

    async def hit(self) -> None:
        self._was = await self._stack.replica_set.wait_primary()
        try:
            await self._was.ask({"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 3, "force": True}, seconds=10)
        except Unavailable:
            pass  # it closes connections while it does so

    async def heal(self) -> None:
        await self._stack.replica_set.wait_primary(other_than=self._was)


class MajorityStopped:
    """Both secondaries stop; the primary goes on writing alone, and then is killed before they wake: what it wrote is rolled back."""

    kind = "majority stopped, primary lost"
    silent = True
    mended = 0.0

    def __init__(self, stack: Stack, until: Answers) -> None:
        self._stack = stack
        self._until = until
        self._primary: Node | None = None

    async def hit(self) -> None:
        self._primary = await self._stack.replica_set.wait_primary()
        await asyncio.gather(*(node.stop_clock() for node in self._stack.replica_set.nodes if node is not self._primary))

    async def heal(self) -> None:
        assert self._primary is not None
        try:
            await self._until(CALLS)
            await self._primary.kill()
        finally:
            self.mended = time.monotonic()
            for node in self._stack.replica_set.nodes:
                if node is not self._primary:
                    node.go_on()
        await self._stack.replica_set.wait_primary()
        await self._stack.replica_set.start_all()


class FullDisk:
    """The file system under MongoDB's data is full, until the ballast goes."""

    kind = "disk full"
    silent = False  # what the journal's file has room for is still written, and rightly acknowledged
    mended = 0.0

    def __init__(self, stack: Stack, mount: Path, until: Answers) -> None:
        self._stack = stack
        self._ballast = mount / "ballast"
        self._until = until

    async def hit(self) -> None:
        await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        # What mongod frees and takes again belongs to the fault, so the last bytes are taken too.
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (2**20, 2**12, 1):
                try:
                    while os.write(descriptor, b"\0" * size):
                        pass
                except OSError:
                    continue
        finally:
            os.close(descriptor)

    async def heal(self) -> None:
        try:
            await self._until(CALLS)
        finally:
            self._ballast.unlink()
        await self._stack.replica_set.start_all()


class ServersKilledWithoutDatabase:
    """MongoDB's only node stops, calls pile up, and both servers are killed with what they hold."""

    kind = "servers killed while mongod was stopped"
    silent = True
    mended = 0.0

    def __init__(self, stack: Stack, until: Answers) -> None:
        self._stack = stack
        self._until = until

    async def hit(self) -> None:
        await self._stack.replica_set.nodes[0].stop_clock()

    async def heal(self) -> None:
        try:
            await self._until(CALLS)
            for server in self._stack.servers:
                await server.kill()
        finally:
            self.mended = time.monotonic()
            self._stack.replica_set.nodes[0].go_on()
        for server in self._stack.servers:
            server.start()
        for server in self._stack.servers:
            await server.wait_ready()


class Repertoire:
    """The faults that a stack can have, by name."""

    def __init__(self, stack: Stack, mongo: Mongo, random_: random.Random, progress: Progress, answers: Answers, failures: Answers) -> None:
        self._stack = stack
        self._mongo = mongo
        self._random = random_
        self._progress = progress
        self._answers = answers
        self._failures = failures

    def disk_full(self, mount: Path) -> Fault:
        """The one that needs a mount of its own."""
        return FullDisk(self._stack, mount, self._failures)

    def make(self, name: str) -> Fault:
        """A fresh one."""
        fault: Fault = getattr(self, f"_{name}")()
        return fault

    def _server_killed(self) -> Fault:
        return Killed("server", self._a_server)

    def _server_stopped(self) -> Fault:
        return Stopped("server", self._a_server, self._for_a_while)

    def _servers_killed_without_database(self) -> Fault:
        return ServersKilledWithoutDatabase(self._stack, self._answers)

    def _collector_killed(self) -> Fault:
        return Killed("standing-by collector", self._the_other_collector)

    def _fold_killed(self) -> Fault:
        return Killed("folding collector", self._the_fold_at_work)

    def _fold_stopped(self) -> Fault:
        return Stopped("folding collector", self._the_fold_at_work, self._for_a_while)

    def _fold_stopped_for_long(self) -> Fault:
        return Stopped("folding collector, until another took over,", self._the_fold_at_work, self._until_another_folds)

    def _replies_of_inserts_cut(self) -> Fault:
        return Cut("replies to inserts", self._before_mongo, self._random.randint(1, 5))

    def _replies_of_commits_cut(self) -> Fault:
        return Cut("replies to the fold's commits", self._before_commits, self._random.randint(1, 3))

    def _answers_cut(self) -> Fault:
        return Cut("answers to callers", self._before_server, self._random.randint(1, 10))

    def _mongod_killed(self) -> Fault:
        return NodesKilled("only mongod killed", self._stack, self._every_node, silent=True, until=None)

    def _primary_killed(self) -> Fault:
        return PrimaryKilled(self._stack)

    def _stepped_down(self) -> Fault:
        return SteppedDown(self._stack)

    def _all_killed(self) -> Fault:
        return NodesKilled("all three mongods killed", self._stack, self._every_node, silent=True, until=None)

    def _majority_killed(self) -> Fault:
        return NodesKilled("majority killed", self._stack, self._the_secondaries, silent=True, until=self._answers)

    def _majority_stopped(self) -> Fault:
        return MajorityStopped(self._stack, self._answers)

    async def _a_server(self) -> Process:
        return self._random.choice(self._stack.servers)

    async def _the_fold(self) -> Process:
        return await self._stack.folding(self._mongo)

    async def _the_fold_at_work(self) -> Process:
        """Mostly within a transaction, where that can be seen."""
        process = await self._the_fold()
        if self._stack.folds and self._random.random() < IN_TRANSACTION:
            proxy = self._stack.folds[self._stack.collectors.index(process)]
            before = proxy.transactions
            async with asyncio.timeout(WAIT_SECONDS):
                while proxy.transactions == before:
                    await asyncio.sleep(SHORT_LOOK_SECONDS)
            await asyncio.sleep(self._random.uniform(0, TRANSACTION_SECONDS))
        return process

    async def _the_other_collector(self) -> Process:
        folding = await self._stack.folding(self._mongo)
        return next(process for process in self._stack.collectors if process is not folding)

    async def _before_server(self) -> Proxy:
        assert self._stack.answers is not None
        return self._stack.answers

    async def _before_mongo(self) -> Proxy:
        assert self._stack.writes is not None
        return self._stack.writes

    async def _before_commits(self) -> Proxy:
        return self._stack.folds[self._stack.collectors.index(await self._the_fold())]

    async def _every_node(self) -> list[Node]:
        return self._stack.replica_set.nodes

    async def _the_secondaries(self) -> list[Node]:
        primary = await self._stack.replica_set.wait_primary()
        return [node for node in self._stack.replica_set.nodes if node is not primary]

    async def _for_a_while(self, _: Process) -> None:
        await self._progress(self._random.randint(3, 20))

    async def _until_another_folds(self, stopped: Process) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while await self._stack.folding(self._mongo) is stopped:
                await asyncio.sleep(LOOK_SECONDS)
