"""A small file system of its own, that can be filled without harm to anything else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEGABYTES = 700
"""Room for what mongod takes at the start (its journal's files, mostly) and for some minutes of a run."""


class NoSmallDiskError(Exception):
    """None can be made here; says why."""


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mounts a tmpfs at `place` for the length of the block. Raises NoSmallDiskError."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoSmallDiskError(f"a tmpfs cannot be mounted: {error.strerror}") from error
    if done.returncode:
        raise NoSmallDiskError(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)
