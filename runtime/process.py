"""The life of a process: told to stop by a signal, tells others when it is ready."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import Misconfigured


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set. A second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    return stop


def write_ready_file(path: Path | None, content: Mapping[str, Any]) -> None:
    """Writes JSON for whoever waits for this process; the file is whole from the moment it is there, and its owner's alone."""
    if path is None:
        return
    passing = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        passing.touch(mode=0o600)
        passing.write_text(json.dumps(content))
        passing.replace(path)
    except OSError as error:
        raise Misconfigured(
            f"the ready file {path} cannot be written ({error.strerror}); name a writable place with --ready-file"
        ) from error


def settle_memory() -> None:
    """Takes what start-up left out of the garbage collector's rounds: its pauses show in the 99th percentile."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
