"""`rankloop export`: what a running server keeps, into a file."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from rankloop.v1 import export_pb2 as pb
from rankloop.v1 import export_pb2_grpc
from runtime.errors import RankloopError
from scripts.connection import DEFAULT_ADDRESS, PASSING, CallFailed, Connection
from scripts.exporting import parquet
from scripts.exporting.columns import columns_of
from scripts.exporting.formats import Format, Text, form_of, kind_descriptor
from scripts.exporting.part import Part, Progress

KINDS = {
    "interactions": "INTERACTION",
    "slates": "SLATE",
    "attributions": "ATTRIBUTION",
    "tallies": "TALLY",
    "outcomes": "OUTCOME",
    "sessions": "SESSION",
    "users": "USER",
    "items": "ITEM",
    "models": "MODEL",
    "experiments": "EXPERIMENT",
    "experiment_changes": "EXPERIMENT_CHANGE",
}
"""The kinds as one names them on the command line, and as the contract does."""
STANDARD_OUTPUT = Path("-")
QUIET_SECONDS = 60.0
"""Longest wait for the next records of a stream."""


def export(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What to export: {', '.join(KINDS)}.")],
    form: Annotated[Format, typer.Option("--format", help="JSON Lines (which can be imported again), CSV, Parquet or SQL.")] = "jsonl",
    start: Annotated[str, typer.Option(help="The first moment, as in 2026-01-31 or 2026-01-31T08:00:00Z; without it the beginning.")] = "",
    end: Annotated[str, typer.Option(help="The end, not included; without it now.")] = "",
    out: Annotated[Path | None, typer.Option(help="The file, - for standard output; without it KIND.FORMAT.")] = None,
    server: Annotated[str, typer.Option(envvar="RANKLOOP_ADDRESS", help="The server, as host:port.")] = DEFAULT_ADDRESS,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to go on trying while the server is away.")] = 60.0,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew where an earlier export was interrupted.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write what was exported, as JSON.")] = None,
) -> None:
    """Writes what Rankloop keeps of one kind and period into a file, in an order that stays: run again, it is the same file.

    An export that broke off is gone on with by the same command. The file takes its name when it is whole; until then it is called
    FILE.part. JSON Lines of users, items, slates, interactions, outcomes and sessions are what `rankloop import` takes.

    Examples:

        rankloop export interactions --start 2026-01-01 --end 2026-02-01 --out january.jsonl

        rankloop export slates --format parquet

        rankloop export items --format csv --out - > items.csv

        rankloop export outcomes --format sql --out outcomes.sql --json exported.json
    """
    if kind not in KINDS:
        raise typer.BadParameter(f"{kind!r} is no kind of record; there are {', '.join(KINDS)}", param_hint="KIND")
    target = out or Path(f"{kind}.{form}")
    if form == "parquet":
        if target == STANDARD_OUTPUT:
            raise typer.BadParameter("a Parquet file is written from its end; name a file", param_hint="--out")
        parquet.pyarrow_modules()
    period = {"start": _moment("--start", start), "end": _moment("--end", end)}
    if period["start"] and period["end"] and period["end"] <= period["start"]:
        raise typer.BadParameter("does not lie behind --start", param_hint="--end")
    question: dict[str, Any] = {"kind": kind, "format": form, "server": server, **period}
    try:
        count = asyncio.run(_export(question, target, patience, restart=restart))
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    except RankloopError as error:
        if target == STANDARD_OUTPUT or not Part(target).kept():
            raise
        raise RankloopError(f"{error.message} (the same command continues where it stopped)") from error
    if target != STANDARD_OUTPUT:
        print(f"{target}: {count:,} {kind}")
    if json_file is not None:
        json_file.write_text(json.dumps({"kind": kind, "format": form, "record_count": count, "out": str(target)}, indent=2) + "\n")


async def _export(question: dict[str, Any], target: Path, patience: float, *, restart: bool) -> int:
    form = form_of(question["format"], question["kind"], kind_descriptor(KINDS[question["kind"]].lower()))
    async with Connection(question["server"], patience_seconds=patience) as connection:
        await connection.reach()
        if target == STANDARD_OUTPUT:
            return await _to_output(connection, question, form, patience)
        return await _to_file(connection, question, form, target, patience, restart=restart)


async def _to_output(connection: Connection, question: dict[str, Any], form: Text, patience: float) -> int:
    progress = Progress(_ended(question))
    sys.stdout.write(form.head())
    async for answer in Stream(connection, progress, patience):
        sys.stdout.write(form.lines(answer.records))
        progress.count += len(answer.records)
    sys.stdout.flush()
    return progress.count


async def _to_file(connection: Connection, question: dict[str, Any], form: Text, target: Path, patience: float, *, restart: bool) -> int:
    part = Part(target)
    kept = None if restart else part.kept()
    # Without an end it is the moment of the first try: what has come since belongs to another export.
    if kept is not None and kept.question == {**question, "end": question["end"] or kept.question.get("end")}:
        progress = kept
        print(f"{target}: continuing behind {progress.count:,} records (--restart begins anew)", file=sys.stderr)
    else:
        progress = Progress(_ended(question))
    part.open(progress)
    try:
        if not progress.bytes:
            part.append(form.head(), progress)
        with _bar(question["kind"]) as (bar, task):
            async for answer in Stream(connection, progress, patience):
                progress.done = not answer.resume_token
                if answer.HasField("total_count"):
                    bar.update(task, total=answer.total_count)
                progress.token = answer.resume_token
                progress.count += len(answer.records)
                part.append(form.lines(answer.records), progress)
                bar.update(task, completed=progress.count)
    finally:
        part.close()
    if question["format"] == "parquet":
        made = part.path.with_suffix(".making")
        parquet.write(part.path, made, columns_of(kind_descriptor(KINDS[question["kind"]].lower())))
        part.finish(made)
    else:
        part.finish()
    return progress.count


class Stream:
    """The answers of an export to their end, over as many streams as that takes."""

    def __init__(self, connection: Connection, progress: Progress, patience_seconds: float) -> None:
        self._connection = connection
        self._progress = progress
        self._patience_seconds = patience_seconds
        self._stub: Any = export_pb2_grpc.ExportServiceStub(connection.channel)

    async def __aiter__(self) -> Any:
        if self._progress.done:  # and not yet named: it broke off just before that
            return
        token, loop = self._progress.token, asyncio.get_running_loop()
        give_up, pause = loop.time() + self._patience_seconds, 0.1
        while True:
            call = self._stub.ExportRecords(self._request(token))
            try:
                while (answer := await asyncio.wait_for(call.read(), QUIET_SECONDS)) is not grpc.aio.EOF:
                    yield answer
                    token = answer.resume_token
                    give_up, pause = loop.time() + self._patience_seconds, 0.1
                    if not token:
                        return
            except grpc.aio.AioRpcError as error:
                failed = CallFailed(self._connection.address, error)
                if failed.code not in (*PASSING, grpc.StatusCode.CANCELLED) or failed.is_too_large or loop.time() + pause > give_up:
                    raise failed from error
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)
            finally:
                call.cancel()

    def _request(self, token: str) -> pb.ExportRecordsRequest:
        question = self._progress.question
        request = pb.ExportRecordsRequest(kind=pb.RecordKind.Value(f"RECORD_KIND_{KINDS[question['kind']]}"), resume_token=token)
        for name in ("start", "end"):
            if question[name]:
                getattr(request, f"{name}_time").FromJsonString(question[name])
        return request


def _ended(question: dict[str, Any]) -> dict[str, Any]:
    """The question with an end to it, so that whoever goes on with it asks for the same."""
    return {**question, "end": question["end"] or _json_time(datetime.now(UTC))}


def _moment(option: str, text: str) -> str:
    """A date or a moment as RFC 3339 in UTC; empty stays empty. Without a zone it is UTC."""
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
        return _json_time(moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC))
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time; as in 2026-01-31 or 2026-01-31T08:00:00Z", param_hint=option) from None


def _json_time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def _bar(kind: str) -> Iterator[tuple[Bar, TaskID]]:
    """A progress bar, where a person watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar, bar.add_task(kind, total=None)
