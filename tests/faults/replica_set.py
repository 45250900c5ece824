"""A replica set of real mongods on 127.0.0.1, each of which may be killed, stopped and started again on its data."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from runtime.child import Child
from runtime.embedded import find_mongod
from runtime.errors import Unavailable
from runtime.mongo import admin_command

NAME = "faults"
LOOK_SECONDS = 0.05
RECOVERY_SECONDS = 240.0
"""A killed mongod first replays what it journaled since its last checkpoint, up to a minute of writes: on a machine with other work
that alone has taken longer than everything else together.
"""


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def state_of(pid: int) -> str:
    """The state of a process as the kernel has it; empty: it has gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""
    return "" if state in "ZX" else state


async def wait_state(pid: int, states: str) -> None:
    """Waits until the kernel says so; a signal takes its moment to reach every thread."""
    while state_of(pid) not in (tuple(states) or ("",)):
        await asyncio.sleep(0.005)


class Node:
    """One mongod."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._child: Child | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

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
        """Starts it on its data."""
        command = [str(find_mongod()), "--quiet", "--nounixsocket", "--dbpath", str(self.folder), "--bind_ip", "127.0.0.1"]
        command += ["--port", str(self.port), "--replSet", NAME, "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "200"]
        command += ["--networkMessageCompressors", "disabled", "--slowms", "5000"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        self._child = Child.start(command, output=self.folder.parent / f"{self.folder.name}.log")

    async def kill(self) -> None:
        """SIGKILL, and waits until it has gone."""
        if self._child is not None and self._child.exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
            await self._child.wait()

    async def stop_clock(self) -> None:
        """SIGSTOP: it is there and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        await wait_state(self.pid, "T")

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    async def ask(self, command: dict[str, Any], *, seconds: float = 2.0) -> dict[str, Any]:
        """One command to exactly this node. Raises Unavailable."""
        return await admin_command(f"mongodb://{self.address}/", command, timeout_seconds=seconds)


class ReplicaSet:
    """One node, or three."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @classmethod
    async def start(cls, folder: Path, size: int, *, seconds: float = 60.0) -> ReplicaSet:
        """Starts and initiates it, and waits until it takes writes."""
        found = cls([Node(folder / f"node{number}", free_port()) for number in range(size)])
        for node in found.nodes:
            node.start()
        members = [{"_id": number, "host": node.address} for number, node in enumerate(found.nodes)]
        # Shorter than the defaults of 10 s and 2 s, so that a run holds many elections; long enough for a machine with other work.
        settings = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
        deadline = time.monotonic() + seconds
        while True:
            try:
                await found.nodes[0].ask({"replSetInitiate": {"_id": NAME, "members": members, "settings": settings}}, seconds=20)
                break
            except Unavailable as error:
                if error.reason == "AlreadyInitialized":
                    break
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(LOOK_SECONDS)
        await found.wait_primary(seconds=seconds)
        return found

    @property
    def uri(self) -> str:
        """Its MongoDB URI."""
        return f"mongodb://{','.join(node.address for node in self.nodes)}/?replicaSet={NAME}"

    async def primary(self) -> Node | None:
        """The node that takes writes now, as it says itself."""
        for node in self.nodes:
            if not node.runs or state_of(node.pid) == "T":
                continue
            try:
                if (await node.ask({"hello": 1})).get("isWritablePrimary"):
                    return node
            except Unavailable:
                continue
        return None

    async def wait_primary(self, *, seconds: float = 60.0, other_than: Node | None = None) -> Node:
        """Waits until a node takes writes."""
        async with asyncio.timeout(seconds):
            while (found := await self.primary()) is None or found is other_than:
                await asyncio.sleep(LOOK_SECONDS)
        return found

    async def start_all(self) -> None:
        """Starts every node that does not run, and wakes every one that is stopped; waits until all are members in good health."""
        for node in self.nodes:
            if node.runs:
                node.go_on()
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                while not await self._whole():
                    for node in self.nodes:
                        if not node.runs:
                            node.start()
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"the mongods are not all members in good health after {RECOVERY_SECONDS:.0f} s") from error

    async def _whole(self) -> bool:
        for node in self.nodes:
            try:
                said = await node.ask({"hello": 1})
            except Unavailable:
                return False
            if not (said.get("isWritablePrimary") or said.get("secondary")):
                return False
        return await self.primary() is not None

    async def end(self) -> None:
        """Kills every node: its data is thrown away."""
        for node in self.nodes:
            await node.kill()
