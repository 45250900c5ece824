"""What ends a simulation or a demo."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.errors import RankloopError


class Failed(RankloopError):
    """The run cannot go on; the message is one sentence that says why and what to do."""

    reason = "SIMULATION_FAILED"


def check_writable(path: Path, option: str) -> None:
    """Fails before the work rather than after it when a file cannot be written."""
    target = path if path.exists() else path.parent
    if path.is_dir() or not os.access(target, os.W_OK):
        raise Failed(f"{path} cannot be written; name another file with {option}")
