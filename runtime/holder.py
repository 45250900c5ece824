"""A directory that one process has to itself."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Self

from runtime.errors import Misconfigured

LEAVING_SECONDS = 10.0
"""How long a holder that has died may take to let go: a child of it that holds on, too, may still be on its way out."""


class Holder:
    """The lock on a directory, kept in a file `holder` in it that names the process. It ends with the process, whatever way that ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        """A child that inherits this file descriptor holds the directory as well."""

    @classmethod
    async def take(cls, directory: Path) -> Self:
        """Makes the directory if need be, and locks it.

        Raises:
            Misconfigured: it cannot be written, or another process holds it.
        """
        path = directory / "holder"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Misconfigured(
                f"the data directory {directory} cannot be written ({error.strerror}); make it writable, or choose another with --data-dir"
            ) from None
        deadline = time.monotonic() + LEAVING_SECONDS
        while not _locked(descriptor):
            pid = int(os.pread(descriptor, 20, 0).strip() or 0)
            if _runs(pid) or time.monotonic() > deadline:
                os.close(descriptor)
                raise Misconfigured(
                    f"the data directory {directory} is held by process {pid}{_program(pid)}; "
                    "stop that one, or choose another with --data-dir"
                )
            await asyncio.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Lets go, as far as this process is concerned. Harmless when it has."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True


def _runs(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()


def _program(pid: int) -> str:
    """What the process is, in brackets; empty: it has gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return f" ({' '.join([Path(words[0]).name, *words[1:]]).strip()[:100]})" if words[0] else ""
