"""A file on its way: what is there already, and where the export goes on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from runtime.errors import Misconfigured


@dataclass(slots=True)
class Progress:
    """How far an export got."""

    question: dict[str, Any]
    """What is exported, and in what form: with another one the file begins anew."""
    token: str = ""
    """Where the server goes on; empty: at the beginning."""
    count: int = 0
    """Records in the file."""
    bytes: int = 0
    """How long the file is with them."""
    done: bool = False
    """Whether they are all."""


class Part:
    """`<out>.part`, which becomes `<out>` when it is whole, and `<out>.progress` beside it.

    What lies in the part behind the noted length was written when the export broke off, and is written again.
    """

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(f"{out.name}.part")
        self._out = out
        self._notes = out.with_name(f"{out.name}.progress")

    def kept(self) -> Progress | None:
        """What an export before this one left; None: nothing that can be gone on with."""
        try:
            progress = Progress(**json.loads(self._notes.read_text()))
            return progress if self.path.stat().st_size >= progress.bytes else None
        except (OSError, ValueError, TypeError):
            return None

    def open(self, progress: Progress) -> Self:
        """Opens it for writing behind what is noted. Raises Misconfigured."""
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "r+b" if progress.bytes else "wb")  # noqa: SIM115 (close closes it)
            self._file.truncate(progress.bytes)
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise Misconfigured(f"{self.path} cannot be written ({error.strerror}); name another place with --out") from None
        return self

    def append(self, text: str, progress: Progress) -> None:
        """Writes text, and then notes `progress` with it."""
        self._file.write(text.encode())
        self._file.flush()
        progress.bytes = self._file.tell()
        passing = self._notes.with_name(f"{self._notes.name}.new")
        passing.write_text(json.dumps(asdict(progress)))
        passing.replace(self._notes)

    def close(self) -> None:
        """Closes it; it can be gone on with."""
        self._file.close()

    def finish(self, made: Path | None = None) -> None:
        """It is whole: it, or what was made of it, takes its place."""
        (made or self.path).replace(self._out)
        for path in (self.path, self._notes):
            path.unlink(missing_ok=True)
