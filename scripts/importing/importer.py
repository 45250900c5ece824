"""Imports files, one after another, from where an interrupted import left off."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from scripts.connection import Connection
from scripts.importing.lines import Line, LineFile
from scripts.importing.progress import Progress, ProgressFile
from scripts.importing.sender import Sender

CONCURRENCY = 4
CHUNK_BYTES = 16 * 2**20
SHOWN_BAD_LINES = 20

Reader = Callable[[LineFile, int], Iterator[Line]]
"""Reads a file from behind a line on."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to import."""

    path: Path
    read: Reader
    run: str
    """What makes the import of this file one of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to import."""

    batch_size: int
    """Records per call."""

    state_dir: Path
    """Where progress is kept."""

    restart: bool = False
    """Whether progress that was kept is passed over."""

    bad_lines: Path | None = None
    """Where bad lines are kept; None: beside the progress."""


class Importer:
    """Imports files one after another and adds up in `counts` what became of them."""

    def __init__(self, connection: Connection, options: Options, counts: Counter[str]) -> None:
        self._sender = Sender(connection, batch_size=options.batch_size, concurrency=CONCURRENCY)
        self._options = options
        self._counts = counts
        self._shown = 0

    async def run(self, source: Source) -> None:
        """Imports a file from where an interrupted import of it left off.

        Raises:
            RankloopError: the run broke off; the same command continues it.
        """
        file = ProgressFile(self._options.state_dir, source.path, run=source.run, bad_lines=self._options.bad_lines)
        progress = Progress() if self._options.restart else file.load()
        if progress.line:
            say(f"{source.path}: continuing behind line {progress.line:,} (--restart begins anew)")
        with LineFile(source.path) as lines:
            file.begin(progress)
            complete = False
            try:
                await self._import(lines, source, progress, file)
                complete = True
            finally:
                file.finish(complete=complete)
                self._counts.update(progress.counts)
        if progress.counts["bad_lines"] and file.bad_path is not None:
            say(f"{source.path}: {progress.counts['bad_lines']:,} bad lines, kept with their reasons in {file.bad_path}")

    async def _import(self, lines: LineFile, source: Source, progress: Progress, file: ProgressFile) -> None:
        reader = source.read(lines, progress.line)
        with bar(lines) as (shown, task):
            # The next lines are read and parsed while those before them are on their way.
            upcoming = asyncio.ensure_future(asyncio.to_thread(self._take, reader))
            try:
                while chunk := await upcoming:
                    upcoming = asyncio.ensure_future(asyncio.to_thread(self._take, reader))
                    await self._send(chunk, lines, progress, file)
                    shown.update(task, completed=lines.read_bytes, lines=f"{progress.line:,} lines")
            finally:
                await asyncio.gather(upcoming, return_exceptions=True)  # the thread reads the file, which is about to be closed

    def _take(self, reader: Iterator[Line]) -> list[Line]:
        chunk: list[Line] = []
        size = 0
        for line in reader:
            chunk.append(line)
            size += len(line.text)
            if len(chunk) == self._options.batch_size * CONCURRENCY or size > CHUNK_BYTES:
                break
        return chunk

    async def _send(self, chunk: list[Line], lines: LineFile, progress: Progress, file: ProgressFile) -> None:
        sent = await self._sender.send(chunk)
        refused = dict.fromkeys(line.number for line, _ in sent.rejected)
        bad = sorted([*((line, line.fault) for line in chunk if line.fault), *sent.rejected], key=lambda one: one[0].number)
        for line, reason in bad:
            self._shown += 1
            if self._shown <= SHOWN_BAD_LINES:
                say(f"{lines.name}:{line.number}: {reason}")
            elif self._shown == SHOWN_BAD_LINES + 1:
                say("more bad lines follow, not shown")
        progress.counts += sent.counts
        progress.counts["lines"] += len(chunk)
        progress.counts["bad_lines"] += sum(1 for line in chunk if line.fault) + len(refused)
        progress.line = chunk[-1].number
        file.keep_bad(progress, bad)
        file.save(progress)


@contextmanager
def bar(lines: LineFile) -> Iterator[tuple[Bar, TaskID]]:
    """A progress bar over a file's bytes, where a person watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[lines]}"), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        yield shown, shown.add_task(lines.path.name, total=lines.size_bytes, lines="")


def say(text: str) -> None:
    """A line for people, beside the output proper."""
    print(text, file=sys.stderr)
