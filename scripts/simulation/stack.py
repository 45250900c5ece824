"""The stack as a child process: `rankloop up`, and what it says in its ready file."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.child import Child
from scripts.simulation.failure import Failed

GRACE_SECONDS = 30.0


def command(*arguments: str) -> list[str]:
    """A `rankloop` command line that runs under this very interpreter."""
    return [sys.executable, "-m", "scripts.cli", *arguments]


def environment(scratch: Path, **values: str) -> Mapping[str, str]:
    """This process's environment with `values` in it, but without what leads to a deployment of the caller's own.

    A demo reads no configuration file and no `RANKLOOP_MONGO_*`: it never writes into a database that was there before.
    """
    blank = scratch / "rankloop.toml"
    blank.touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RANKLOOP_MONGO_")}
    return {**kept, "RANKLOOP_CONFIG": str(blank), **values}


def last_words(log: Path) -> str:
    """The last line that a child said, or that it said nothing."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:500] if lines else "it said nothing"


class Stack:
    """A running stack. `ready` is its ready file: `server`, `mongo_uri`, `metrics`, `console`, `pids`."""

    def __init__(self, child: Child, log: Path, ready: Mapping[str, Any]) -> None:
        self._child, self._log, self.ready = child, log, ready

    @classmethod
    async def start(cls, data_dir: Path, scratch: Path, arguments: Sequence[str] = (), *, timeout_seconds: float = 90.0) -> Stack:
        """Starts `rankloop up` and waits until all of it answers. Must run on the main thread.

        Args:
            data_dir: where the database keeps its files.
            scratch: a folder for the ready file and the log.

        Raises:
            Failed: it ended, or did not answer in time; with what it said last.
        """
        ready_file, log = scratch / "ready.json", scratch / "stack.log"
        child = Child.start(
            command("up", "--data-dir", str(data_dir), "--ready-file", str(ready_file), *arguments),
            output=log,
            environment=environment(scratch),
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                while not ready_file.exists():
                    if child.exit_code is not None:
                        raise Failed(f"the stack did not start (exit code {child.exit_code}): {last_words(log)}")
                    await asyncio.sleep(0.05)
            return cls(child, log, json.loads(ready_file.read_text()))
        except TimeoutError:
            await child.stop(grace_seconds=GRACE_SECONDS)
            raise Failed(f"the stack did not answer within {timeout_seconds:.0f} s; it said last: {last_words(log)}") from None
        except BaseException:
            await child.stop(grace_seconds=GRACE_SECONDS)
            raise

    async def unless_it_ends(self, work: Coroutine[Any, Any, Any]) -> None:
        """Does `work`, and raises what it raises; Failed when the stack ends meanwhile."""
        working, ended = asyncio.create_task(work), asyncio.create_task(self._child.wait())
        try:
            await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise Failed(f"the stack ended by itself (exit code {ended.result()}): {last_words(self._log)}")
            await working
        finally:
            working.cancel()
            ended.cancel()
            await asyncio.gather(working, ended, return_exceptions=True)

    async def stop(self) -> None:
        """Stops all of it, in its order."""
        await self._child.stop(grace_seconds=GRACE_SECONDS)
