"""`rankloop import`: files of records, or of the Open Bandit Dataset, into a running server."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from runtime.errors import RankloopError
from scripts.connection import DEFAULT_ADDRESS, Connection
from scripts.importing import open_bandit, records
from scripts.importing.arm import Arm, check_arm
from scripts.importing.importer import Importer, Options, Source
from scripts.importing.lines import Line, LineFile
from scripts.importing.progress import default_folder

Format = Literal["records", "open-bandit"]


def sources(files: list[Path], form: Format, policy: str | None, items: Path | None, server: str, arm: Arm | None = None) -> list[Source]:
    """What to import, item tables first."""
    if form == "records":
        return [Source(path, lambda lines, after: records.read(lines, after=after), f"records {server}") for path in files]
    found = []
    if items is not None:
        found.append(Source(items, lambda lines, after: open_bandit.read_items(lines, after=after), f"open-bandit items {server}"))
    for path in files:
        name = policy or path.name.split(".")[0] or "open-bandit"

        def read(lines: LineFile, after: int, name: str = name) -> Iterator[Line]:
            return open_bandit.read(lines, policy=name, arm=arm, after=after)

        run = f"open-bandit {name} {server}" if arm is None else f"open-bandit {name} {arm.experiment_id} {arm.variant_id} {server}"
        found.append(Source(path, read, run))
    return found


def summary(counts: Counter[str]) -> dict[str, Any]:
    """What became of everything, for programs."""
    kinds: dict[str, dict[str, int]] = {}
    for name, count in sorted(counts.items()):
        kind, _, fate = name.partition(".")
        if fate:
            kinds.setdefault(kind, {"accepted": 0, "duplicate": 0, "rejected": 0})[fate] = count
    return {"line_count": counts["lines"], "bad_line_count": counts["bad_lines"], "records": kinds}


def import_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files to import, gzipped or not; - is standard input.")],
    form: Annotated[Format, typer.Option("--format", help="Record lines, or logs of the Open Bandit Dataset.")] = "records",
    policy: Annotated[
        str | None, typer.Option(help="Open Bandit: the policy's name; without it the file's name up to its first dot.")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="Open Bandit: the table of items.")] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Open Bandit: the experiment of which the logs are an arm; each arrival is a user of its own then.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Open Bandit: which variant of that experiment.")] = None,
    server: Annotated[str, typer.Option(envvar="RANKLOOP_ADDRESS", help="The server, as host:port.")] = DEFAULT_ADDRESS,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Records per call.")] = 500,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to go on trying while the server is away.")] = 60.0,
    bad_lines: Annotated[
        Path | None, typer.Option(help="Where to keep bad lines with their reasons; otherwise beside the progress.")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where progress is kept; otherwise ~/.cache/rankloop/import.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew where an earlier import was interrupted.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any line is bad.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the counts as JSON.")] = None,
) -> None:
    """Brings recorded items, users, slates, interactions, outcomes and sessions into a running server.

    A line is a Record in its JSON form, as in {"interaction": {"eventId": "e1", "userId": "u1", "itemId": "i1", "type": "click"}}.
    Every record goes in once: an import may be interrupted, continued and repeated. Bad lines are named, counted and kept; what the
    server refuses is in its quarantine, too. Exits with 1 when the import broke off or nothing in it was good.

    Examples:

        rankloop import records.jsonl.gz

        rankloop import --format open-bandit --items men-items.csv random-men.csv.gz bts-men.csv.gz

        rankloop import --format open-bandit --experiment shop --variant thompson bts-men.csv.gz

        zcat old/*.gz | rankloop import - --bad-lines refused.jsonl
    """
    if form == "records" and (policy is not None or items is not None):
        raise typer.BadParameter("--policy and --items go with --format open-bandit")
    if (experiment is None) != (variant is None) or (experiment is not None and form == "records"):
        raise typer.BadParameter("--experiment and --variant go together, and with --format open-bandit; records name theirs themselves")
    if policy is None and form == "open-bandit" and Path("-") in files:
        raise typer.BadParameter("a log from standard input has no name; give the policy's with --policy")
    if bad_lines is not None and len(files) + (items is not None) > 1:
        raise typer.BadParameter("--bad-lines keeps those of one file; import the files one by one, or leave it out")
    counts: Counter[str] = Counter()
    options = Options(batch_size=batch, state_dir=state_dir or default_folder(), restart=restart, bad_lines=bad_lines)
    try:
        arm = Arm(experiment, variant) if experiment and variant else None
        asyncio.run(_import_all(sources(files, form, policy, items, server, arm), server, patience, counts, options, arm))
    except RankloopError as error:
        if not counts["lines"]:
            raise
        raise RankloopError(f"{error.message} (the same command continues where it stopped)") from error
    finally:
        if counts:
            report(counts, json_file)
    imported = sum(count for name, count in counts.items() if name.endswith((".accepted", ".duplicate")))
    if counts["bad_lines"] and (strict or not imported):
        raise typer.Exit(1)


async def _import_all(
    found: list[Source], server: str, patience_seconds: float, counts: Counter[str], options: Options, arm: Arm | None
) -> None:
    async with Connection(server, patience_seconds=patience_seconds) as connection:
        await connection.reach()
        if arm is not None:
            await check_arm(connection, arm)
        importer = Importer(connection, options, counts)
        for source in found:
            await importer.run(source)


def report(counts: Counter[str], json_file: Path | None) -> None:
    """Says what became of everything."""
    found = summary(counts)
    for kind, fates in found["records"].items():
        print(f"{kind}s: {fates['accepted']:,} stored, {fates['duplicate']:,} known already, {fates['rejected']:,} refused")
    print(f"lines: {found['line_count']:,}, of which bad: {found['bad_line_count']:,}")
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2) + "\n")
