"""Keeping a child process running: started, waited for, started again when it ends, stopped."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.child import Child
from runtime.errors import Misconfigured

LOOK_SECONDS = 0.03
READY_SECONDS = 90.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A process that ran this long is well: when it ends after all, it is started again at once."""

LOG_BYTES = 20_000_000


def command(*arguments: str) -> list[str]:
    """A `rankloop` command line under this interpreter; folders of the working directory do not get in its way."""
    return [sys.executable, "-P", "-m", "scripts.cli", *arguments]


class Pause:
    """How long to wait before starting again what ended: longer each time it ends soon."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._started = time.monotonic()

    def started(self) -> None:
        """Now it was started."""
        self._started = time.monotonic()

    def ended(self) -> float:
        """Now it ended; returns the seconds to wait."""
        steady = time.monotonic() - self._started >= STEADY_SECONDS
        self._seconds = FIRST_PAUSE_SECONDS if steady or not self._seconds else min(2 * self._seconds, LONGEST_PAUSE_SECONDS)
        return self._seconds


class Worker:
    """One of the stack's processes. It takes the ports that it first got again whenever it is started again."""

    def __init__(self, name: str, kind: str, arguments: Sequence[str], folder: Path, *, grace_seconds: float, own_log: bool = True) -> None:
        """`kind` is the command it runs; `folder` holds its ready file and, unless it speaks where this process does, its log."""
        self.name = name
        self.log = folder / "logs" / f"{name}.log" if own_log else None
        self._kind = kind
        self._arguments = list(arguments)
        self._ready_file = folder / "run" / f"{name}.json"
        self._grace_seconds = grace_seconds
        self._child: Child | None = None
        self._ready: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid if self._child is not None else 0

    @property
    def address(self) -> str:
        """Where it answers, host:port; empty: it answers no calls."""
        return str(self._ready["address"])

    @property
    def metrics(self) -> str:
        """Where Prometheus scrapes it."""
        return str(self._ready["metrics"])

    async def start(self, environment: Mapping[str, str]) -> None:
        """Starts it and waits until it answers.

        Raises:
            Misconfigured: it ended instead, with what it said last, or did not answer in time.
        """
        for path in (self.log, self._ready_file):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        said_before = 0
        if self.log is not None:
            bound_log(self.log)
            said_before = self.log.stat().st_size if self.log.exists() else 0
        arguments = [self._kind, *self._arguments, "--ready-file", str(self._ready_file)]
        if self._ready:
            arguments += ["--metrics-port", port_of(self.metrics)]
            if self.address:
                arguments += ["--port", self.address.rpartition(":")[2]]
        self._child = Child.start(command(*arguments), output=self.log, environment=environment)
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not self._ready_file.exists():
                    if self._child.exit_code is not None:
                        why = "it said why above" if self.log is None else last_words(self.log, said_before)
                        raise Misconfigured(f"the {self.name} did not start: {why}")
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise Misconfigured(f"the {self.name} did not answer within {READY_SECONDS:g} s{self._where('; its log is {}')}") from None
        self._ready = json.loads(self._ready_file.read_text())

    async def keep(self, environment: Mapping[str, str], changed: Callable[[], None], say: Callable[[str], None]) -> None:
        """Starts it again whenever it ends, until cancelled; `changed` is called when it answers again."""
        pause = Pause()
        while True:
            assert self._child is not None
            code = await self._child.wait()
            seconds = pause.ended()
            say(f"the {self.name} ended {ending(code)}; starting it again in {seconds:g} s{self._where(' (log: {})')}")
            await asyncio.sleep(seconds)
            pause.started()
            try:
                await self.start(environment)
            except Misconfigured as error:
                say(error.message)
                await self._stop_child()
                continue
            changed()
            say(f"the {self.name} answers again")

    async def stop(self) -> None:
        """Stops it, by force when it takes too long."""
        await self._stop_child()
        self._ready_file.unlink(missing_ok=True)

    def _where(self, words: str) -> str:
        return "" if self.log is None else words.format(self.log)

    async def _stop_child(self) -> None:
        if self._child is not None:
            await self._child.stop(grace_seconds=self._grace_seconds)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Does `work` until it is done or `stop` is set; raises what it raises."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def port_of(address: str) -> str:
    """The port of `http://host:port/path`."""
    return address.partition("://")[2].partition("/")[0].rpartition(":")[2]


def ending(code: int) -> str:
    """An exit code in words."""
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"


def bound_log(log: Path) -> None:
    """Moves what a log holds aside when it is long; whoever appends to it goes on at its beginning."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_suffix(".old.log"))
        with open(log, "r+b") as file:
            file.truncate(0)


def last_words(log: Path, start: int) -> str:
    """What a process said last, from byte `start` of its log on, without the name of its command."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read()[-100_000:].decode(errors="replace").strip().splitlines()
    if not lines:
        return f"it said nothing (log: {log})"
    return lines[-1].split(": ", 1)[-1] if lines[-1].startswith("rankloop ") else lines[-1][:500]
