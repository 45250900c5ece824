"""The stack that `rankloop up` runs on this machine, for commands that are typed beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.configuration import Configuration, load

DEFAULT_DATA_DIR = Path("data")


def stack_file(data_dir: Path) -> Path:
    """Where `rankloop up` says what it runs, for as long as it runs."""
    return data_dir / "run" / "stack.json"


def running_stack(env: Mapping[str, str] = os.environ) -> dict[str, Any] | None:
    """What runs on the data directory that `rankloop up` would take from here; None: nothing does."""
    path = stack_file(Path(env.get("RANKLOOP_DATA_DIR") or DEFAULT_DATA_DIR))
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        os.kill(int(content["pids"]["up"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content


def load_with_database(path: Path | None = None, env: Mapping[str, str] = os.environ) -> Configuration:
    """The configuration; without a MongoDB in it, with that of the stack that runs here. Raises Misconfigured as `load` does."""
    configuration = load(path, env)
    if configuration.mongo.uri or (stack := running_stack(env)) is None:
        return configuration
    return configuration.model_copy(update={"mongo": configuration.mongo.model_copy(update={"uri": stack["mongo_uri"]})})
