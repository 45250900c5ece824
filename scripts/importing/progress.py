"""How far an import of a file got, kept beside it so that an interrupted one continues there."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from runtime.errors import Misconfigured
from scripts.importing.lines import Line


def default_folder() -> Path:
    """Where progress is kept unless said otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "rankloop" / "import"


@dataclass(slots=True)
class Progress:
    """The state of one file's import into one server."""

    line: int = 0
    """The last line that was dealt with."""

    counts: Counter[str] = field(default_factory=Counter)
    """By `<kind>.<accepted|duplicate|rejected>`, and `lines`, `bad_lines`."""

    bad_bytes: int = 0
    """How much of the file of bad lines belongs to the lines dealt with."""


class ProgressFile:
    """Keeps a Progress on disk.

    Lines after the one it names may have been sent, too: they are sent again with the same ids, and count once.
    """

    def __init__(self, folder: Path, source: Path, *, run: str, bad_lines: Path | None) -> None:
        """`run` is whatever else makes another import of it: server, format, policy. The file's size and time belong to it anyway."""
        self._path: Path | None = None
        self._bad_path = bad_lines
        if source.is_file():
            status = source.stat()
            identity = f"{source.resolve()}\n{status.st_size}\n{status.st_mtime_ns}\n{run}"
            stem = f"{source.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
            self._path = folder / f"{stem}.progress"
            self._bad_path = bad_lines or folder / f"{stem}.bad.jsonl"
        self._bad: IO[bytes] | None = None

    @property
    def bad_path(self) -> Path | None:
        """Where bad lines are kept; None: nowhere."""
        return self._bad_path

    def load(self) -> Progress:
        """What was kept, or the beginning."""
        if self._path is None:
            return Progress()
        try:
            kept = json.loads(self._path.read_text())
            return Progress(int(kept["line"]), Counter(kept["counts"]), int(kept["bad_bytes"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Progress()

    def begin(self, progress: Progress) -> None:
        """Opens the file of bad lines where `progress` left it. Raises Misconfigured if it cannot be written."""
        path = self._path or self._bad_path
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.save(progress)
            if self._bad_path is not None:
                mode = "r+b" if progress.bad_bytes and self._bad_path.exists() else "wb"
                self._bad = open(self._bad_path, mode)  # noqa: SIM115 (finish closes it)
                self._bad.truncate(progress.bad_bytes)
                self._bad.seek(0, os.SEEK_END)
        except OSError as error:
            raise Misconfigured(f"{path.parent} cannot be written ({error.strerror}); name another place with --state-dir") from None

    def keep_bad(self, progress: Progress, bad: list[tuple[Line, str]]) -> None:
        """Appends bad lines with their reasons to the file of bad lines."""
        if self._bad is None:
            return
        for line, reason in bad:
            self._bad.write(json.dumps({"line": line.number, "reason": reason, "text": line.text}, ensure_ascii=False).encode() + b"\n")
        self._bad.flush()
        progress.bad_bytes = self._bad.tell()

    def save(self, progress: Progress) -> None:
        """Keeps how far it got; whole at any moment."""
        if self._path is None:
            return
        passing = self._path.with_suffix(".new")
        passing.write_text(json.dumps({"line": progress.line, "counts": progress.counts, "bad_bytes": progress.bad_bytes}))
        passing.replace(self._path)

    def finish(self, *, complete: bool) -> None:
        """Closes; of a complete import nothing stays but its bad lines."""
        if self._bad is not None:
            empty = self._bad.tell() == 0
            self._bad.close()
            if empty and self._bad_path is not None:
                self._bad_path.unlink(missing_ok=True)
        if complete and self._path is not None:
            self._path.unlink(missing_ok=True)
