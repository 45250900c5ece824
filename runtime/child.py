"""A child process that ends with its parent, whatever way the parent ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

LOOK_SECONDS = 0.03
PR_SET_PDEATHSIG = 1


class Child:
    """A running child process. Belongs to no event loop, so that one loop may start it and another stop it."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    @classmethod
    def start(
        cls, command: Sequence[str], *, output: Path | None, environment: Mapping[str, str] | None = None, keep_open: Sequence[int] = ()
    ) -> Child:
        """Starts `command` with everything it says appended to `output`; None: it speaks where this process does.

        The kernel kills the child with SIGKILL when the *thread* that started it ends, so this is for the main thread only (on Linux;
        elsewhere the child is an ordinary one). It has a process group of its own: Ctrl-C in a terminal reaches the parent alone,
        which then stops its children in their order. `keep_open` are file descriptors that the child inherits.

        Raises:
            OSError: the command cannot be run.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a child that ends with its parent is started from the main thread")
        with nullcontext(None) if output is None else open(output, "ab") as sink:
            popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=None if sink is None else subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                pass_fds=tuple(keep_open),
                process_group=0,
                preexec_fn=_end_with_parent(),
            )
        return cls(popen)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Waits until it has ended and returns its exit code."""
        # Looking now and then works in any event loop and on any kernel, and costs nothing at this pace.
        while (code := self._popen.poll()) is None:
            await asyncio.sleep(LOOK_SECONDS)
        return code

    async def stop(self, *, grace_seconds: float) -> int:
        """Asks it to end (SIGTERM) and kills it when it has not after `grace_seconds`; returns its exit code."""
        try:
            if self._popen.poll() is None:
                self._popen.send_signal(signal.SIGTERM)
            async with asyncio.timeout(grace_seconds):
                return await self.wait()
        except (TimeoutError, asyncio.CancelledError) as error:
            self._popen.kill()
            code = self._popen.wait()
            if isinstance(error, asyncio.CancelledError):
                raise
            return code


def _end_with_parent() -> Callable[[], None] | None:
    """What the child does between fork and exec: nothing but two system calls, since the parent may have had threads."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return None
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return ask_kernel
