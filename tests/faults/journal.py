"""The oracle's journal: a file of JSON lines, appended to before anything counts, and read by whoever judges."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Entries that are about to be sent for the first time."""

    kind: str
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call and how it ended."""

    kind: str
    first: int
    count: int
    server: int
    """Index of the server it went to."""
    manner: str
    """Why it was sent: first, twice (to two servers at once), after (an uncertain answer), again (after it was acknowledged)."""
    begin: float
    """Seconds of the machine's monotonic clock, the same in every process."""
    end: float
    code: str
    """The gRPC status, OK included."""
    accepted: int = 0
    duplicates: int = 0
    rejected: tuple[str, ...] = ()
    """The reasons of entries that were refused; none should be."""
    detail: str = ""
    """What a status that should not be said."""

    @property
    def acknowledged(self) -> bool:
        """Whether every entry of it is owed from now on."""
        return self.code == "OK" and self.accepted + self.duplicates == self.count


Line = Issued | Attempt


class Journal:
    """Appends; each line is with the kernel when `write` returns, and this process is never harmed."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, line: Line) -> None:
        """One more line."""
        os.write(self._descriptor, (json.dumps(asdict(line)) + "\n").encode())

    def close(self) -> None:
        """No more."""
        os.close(self._descriptor)


class Reader:
    """Follows a journal that is being written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.attempts: list[Attempt] = []
        self.issued: Counter[str] = Counter()
        """Entries issued, by kind: numbers 0 to this."""

    def update(self) -> list[Attempt]:
        """Reads what was added; returns the new attempts."""
        before = len(self.attempts)
        for line in self._new_lines():
            if isinstance(line, Attempt):
                self.attempts.append(line)
            else:
                self.issued[line.kind] = max(self.issued[line.kind], line.first + line.count)
        return self.attempts[before:]

    def _new_lines(self) -> Iterator[Line]:
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            while (raw := file.readline()).endswith(b"\n"):
                self._offset += len(raw)
                fields: dict[str, Any] = json.loads(raw)
                if "code" in fields:
                    yield Attempt(**{**fields, "rejected": tuple(fields["rejected"])})
                else:
                    yield Issued(**fields)
