"""A whole stack for a test: `rankloop up` in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from runtime.child import Child

LOOK_SECONDS = 0.05


def command(*arguments: str) -> list[str]:
    """A `rankloop` command line."""
    return [sys.executable, "-m", "scripts.cli", *arguments]


def environment(**variables: str) -> Mapping[str, str]:
    """This environment with these variables and no other settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RANKLOOP_") or name == "RANKLOOP_MONGOD"}
    return {**kept, "COLUMNS": "200", **variables}


def rankloop(*arguments: str, stdin: bytes = b"", seconds: float = 100) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    done = subprocess.run(command(*arguments), input=stdin, env=environment(), capture_output=True, timeout=seconds)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def ask(server: str, stub: Any, method: str, request: Any, seconds: float = 10) -> Any:
    """Makes one call, as in `ask(server, StatsServiceStub, "GetOverview", GetOverviewRequest())`."""
    with grpc.insecure_channel(server) as channel:
        return getattr(stub(channel), method)(request, timeout=seconds)


class Up:
    """A `rankloop up` that has been started."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.data_dir = folder / "data"
        self.output = folder / "up.log"
        self.ready_file = folder / "ready.json"
        line = command("up", "--data-dir", str(self.data_dir), "--port", "0", "--ready-file", str(self.ready_file), *arguments)
        self.child = Child.start(line, output=self.output, environment=environment())

    @property
    def ready(self) -> dict[str, Any]:
        """The ready file as it is now."""
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    @property
    def said(self) -> str:
        """What it said so far."""
        return self.output.read_text()

    def wait_ready(self, seconds: float = 100) -> dict[str, Any]:
        """Waits until all answer."""
        deadline = time.monotonic() + seconds
        while not self.ready_file.exists():
            assert self.child.exit_code is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(LOOK_SECONDS)
        return self.ready

    def wait_restarted(self, name: str, pid: int, seconds: float = 60) -> int:
        """Waits until the process of that name, which was `pid`, answers again as another; returns its id."""
        deadline = time.monotonic() + seconds
        while (found := int(self.ready["pids"][name])) == pid:
            assert time.monotonic() < deadline, self.said
            time.sleep(LOOK_SECONDS)
        return found

    def stop(self, seconds: float = 60) -> int:
        """Stops it as SIGTERM does, and returns its exit code."""
        return asyncio.run(self.child.stop(grace_seconds=seconds))


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Up]:
    """A stack for the length of the block."""
    up = Up(folder, *arguments)
    try:
        up.wait_ready()
        yield up
    finally:
        up.stop()


def state_of(pid: int) -> str:
    """The state of a process as the kernel has it; empty: it has gone, or only waits for its parent to notice."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""
    return "" if state == "Z" else state


def wait_gone(pids: Mapping[str, int], seconds: float = 30) -> None:
    """Waits until none of the processes is there any longer."""
    deadline = time.monotonic() + seconds
    while left := [name for name, pid in pids.items() if state_of(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(LOOK_SECONDS)
