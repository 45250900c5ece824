"""Exporting the ledger with `rankloop export`, beside reading the same documents with the driver alone; and the memory of both ends."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from benchmarks.history import History, newest_hour
from benchmarks.readout import digest_made
from benchmarks.stack import Running, peak_bytes, reset_peak, running
from runtime.child import Child
from runtime.mongo import Mongo
from runtime.schema import migrate
from runtime.settings import MongoSettings

MOMENTS = {"interactions": "occur_time", "slates": "show_time"}
"""The kinds that are exported, and what they are ordered by."""
FORMATS = ("jsonl", "csv", "parquet", "sql")
BATCH = 500
"""Documents that the driver reads at once, as the server does."""
LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One export, and what it is held against."""

    events: int
    """Kept in all: slates and interactions."""
    kind: str
    form: str
    records: int
    seconds: float
    """Of the whole command, the start of its interpreter included."""
    driver_seconds: float
    """Of reading the same documents in the same order with the driver alone, just before."""
    exporter_peak_bytes: int
    server_peak_bytes: int
    """The most that was resident meanwhile."""

    @property
    def per_second(self) -> float:
        """Records exported."""
        return self.records / self.seconds

    @property
    def driver_per_second(self) -> float:
        """Documents read with the driver alone."""
        return self.records / self.driver_seconds


class Progress(Protocol):
    """Whom to tell how far the work is."""

    def step(self, description: str, total: int | None = None) -> None:
        """A new step begins; `total` is its size where that is known."""

    def advance(self, count: int) -> None:
        """So much more of the step is done."""


async def bench(directory: Path, sizes: list[int], progress: Progress) -> list[Exported]:
    """Every kind in every form, from a history of each size."""
    return [one for events in sizes for one in await _measure(directory / str(events), events, progress)]


async def _measure(directory: Path, events: int, progress: Progress) -> list[Exported]:
    async with running(directory, server=True) as stack:
        mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
        try:
            await migrate(mongo)
            progress.step(f"writing {events:,} events", events)
            await History(events=events, end=newest_hour(datetime.now(UTC))).write(mongo, progress.advance)
            await digest_made(mongo)
            progress.step(f"exporting {events:,} events", len(MOMENTS) * len(FORMATS))
            found = []
            for kind in MOMENTS:
                for form in FORMATS:
                    found.append(await _export(stack, mongo, directory, events, kind, form))
                    progress.advance(1)
            return found
        finally:
            await mongo.close()


async def _export(stack: Running, mongo: Mongo, directory: Path, events: int, kind: str, form: str) -> Exported:
    begin = time.perf_counter()
    records = await _read(mongo, kind)
    driver_seconds = time.perf_counter() - begin
    reset_peak(stack.pid)
    out = directory / f"{kind}.{form}"
    command = [sys.executable, "-m", "scripts.cli", "export", kind, "--format", form, "--server", stack.address, "--out", str(out)]
    begin = time.perf_counter()
    exporter_peak_bytes = await _run(command, directory / "export.log")
    seconds = time.perf_counter() - begin
    out.unlink()
    return Exported(
        events=events,
        kind=kind,
        form=form,
        records=records,
        seconds=seconds,
        driver_seconds=driver_seconds,
        exporter_peak_bytes=exporter_peak_bytes,
        server_peak_bytes=peak_bytes(stack.pid),
    )


async def _read(mongo: Mongo, kind: str) -> int:
    """Reads every document of a kind in the order in which it is exported; returns how many there are."""
    count = 0
    async for batch in mongo.collection(kind).batches({}, sort=[(MOMENTS[kind], 1)], batch_size=BATCH, hint="time"):
        count += len(batch)
    return count


async def _run(command: list[str], output: Path) -> int:
    """Runs a command to its end; returns the most bytes that it had resident. Raises RuntimeError if it fails.

    The kernel's own figure of a child that has ended is no less than what its parent held when it began, so it is asked while it runs.
    """
    child, peak = Child.start(command, output=output), 0
    while child.exit_code is None:
        with contextlib.suppress(OSError, StopIteration):  # it has just ended
            peak = max(peak, peak_bytes(child.pid))
        await asyncio.sleep(LOOK_SECONDS)
    if child.exit_code:
        raise RuntimeError(f"the export ended with {child.exit_code}: {output.read_text()[-2000:]}")
    return peak


def rows(found: list[Exported]) -> list[str]:
    """The table of benchmarks/README.md: speed at the largest size, and memory at the largest and the smallest."""
    smallest, largest = min(one.events for one in found), max(one.events for one in found)
    at = {(one.events, one.kind, one.form): one for one in found}
    lines = ["| what | budget | measured | beside |", "| --- | --- | --- | --- |"]
    for kind in MOMENTS:
        for form in FORMATS:
            one = at[largest, kind, form]
            measured = f"{one.per_second:,.0f}, {one.per_second / one.driver_per_second:.2f} ×"
            beside = f"the driver alone: {one.driver_per_second:,.0f}"
            lines.append(f"| {one.records:,} {kind} as {form}, a second | – | {measured} | {beside} |")
    if largest > smallest:
        for end in ("exporter", "server"):
            for kind in MOMENTS:
                peaks = [max(getattr(at[events, kind, form], f"{end}_peak_bytes") for form in FORMATS) for events in (largest, smallest)]
                what = f"peak memory of the {end}, {kind}, at {largest:,} events, the most of all forms"
                beside = f"at {smallest:,} events: {peaks[1] / 2**20:,.0f} MiB"
                lines.append(f"| {what} | flat | {peaks[0] / 2**20:,.0f} MiB, {peaks[0] / peaks[1]:.2f} × | {beside} |")
    return lines
