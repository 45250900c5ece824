"""Reading a file line by line, plain or gzipped, with a bound on a line's length."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rankloop.v1.record_pb2 import Record
from runtime.errors import RankloopError

GZIP_MAGIC = b"\x1f\x8b"
MAX_LINE_BYTES = 4 * 2**20


class UnreadableFile(RankloopError):
    """A file cannot be opened, or breaks off."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of an import turned out to be."""

    number: int
    """Its place in the file, from 1."""

    text: str
    """As it stands in the file."""

    records: tuple[Record, ...] = ()
    """What it says."""

    fault: str = ""
    """Why it says nothing; empty: it does."""


class LineFile:
    """A file, or standard input for `-`, as numbered lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = "standard input" if str(path) == "-" else str(path)

    def __enter__(self) -> Self:
        try:
            opened = sys.stdin.buffer if str(self.path) == "-" else open(self.path, "rb")
        except OSError as error:
            raise UnreadableFile(f"{self.path} cannot be read: {error.strerror}") from None
        self._raw = opened
        assert isinstance(opened, io.BufferedReader)
        try:
            self._lines: gzip.GzipFile | io.BufferedReader = gzip.GzipFile(fileobj=opened) if opened.peek(2)[:2] == GZIP_MAGIC else opened
        except OSError as error:
            opened.close()
            raise UnreadableFile(f"{self.path} cannot be read: {error.strerror}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._raw is not sys.stdin.buffer:
            self._raw.close()

    @property
    def size_bytes(self) -> int | None:
        """How long the file is; None where that is not known."""
        return self.path.stat().st_size if self.path.is_file() else None

    @property
    def read_bytes(self) -> int:
        """How much of the file, as it lies there, has been read."""
        return self._raw.tell() if self.path.is_file() else 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Lines without their ends, from number 1 on; of one that is too long its beginning, a byte more than a line may have."""
        number = 0
        while True:
            try:
                line = self._lines.readline(MAX_LINE_BYTES + 1)
                rest = line
                while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                    rest = self._lines.readline(MAX_LINE_BYTES + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise UnreadableFile(f"{self.name} is damaged behind line {number}: {error}") from None
            if not line:
                return
            number += 1
            yield number, line.rstrip(b"\r\n")


def decoded(number: int, line: bytes) -> tuple[str, str]:
    """A line as text, and what is wrong with it as such (empty: nothing)."""
    if len(line) > MAX_LINE_BYTES:
        return line[:1000].decode(errors="replace"), f"the line is longer than {MAX_LINE_BYTES:,} bytes"
    try:
        return line.decode(), ""
    except UnicodeDecodeError as error:
        return line.decode(errors="replace"), f"the line is not UTF-8 (byte {error.start})"
