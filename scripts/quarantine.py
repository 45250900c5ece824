"""`rankloop quarantine`: what was refused, why, and once more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from collector.inspection import Replay, by_reason, quarantined, quarantined_entry, replay
from collector.process import open_tracking
from runtime.logs import configure_logs
from runtime.mongo import Mongo
from runtime.schema import migrate
from scripts.configuration import Configuration
from scripts.running import load_with_database
from scripts.steps import steps

Config = Annotated[Path | None, typer.Option(help="The configuration; otherwise RANKLOOP_CONFIG or ./rankloop.toml.")]
Reason = Annotated[str, typer.Option(help="Only entries refused for this reason, as in UNKNOWN_TYPE.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Result = TypeVar("Result")

CUT = " (kept in part: it was too long)"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def quarantine() -> None:
    """What was refused, why, and once more. Speaks to the database.

    Examples:

        rankloop quarantine list

        rankloop quarantine replay --reason UNKNOWN_TYPE
    """


@app.command("list")
def list_refused(
    reason: Reason = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 20,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Lists refused entries, the newest first, and how many there are for each reason.

    Examples:

        rankloop quarantine list

        rankloop quarantine list --reason UNKNOWN_TYPE --limit 100 --json
    """

    async def work(mongo: Mongo) -> tuple[list[tuple[str, str, int]], list[dict[str, Any]]]:
        return await by_reason(mongo), await quarantined(mongo, reason=reason, limit=limit)

    counts, entries = _with_mongo(load_with_database(config), work)
    if as_json:
        listed = [{"kind": kind, "reason": why, "count": count} for kind, why, count in counts]
        print(json.dumps({"counts": listed, "entries": [_shown(entry) for entry in entries]}, indent=2))
        return
    if not counts:
        print("nothing is in quarantine")
        return
    for kind, why, count in counts:
        print(f"{count:>8,}  {kind}  {why}")
    table = Table("id", "received", "kind", "entry", "why")
    for entry in entries:
        first = entry["faults"][0]
        received = entry["receive_time"].strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            entry["_id"], received, entry["kind"], entry["entry_id"], f"{first['field']} {first['description']}"[:200] + CUT * entry["cut"]
        )
    Console().print(table)


@app.command("show")
def show_refused(quarantine_id: Annotated[str, typer.Argument(help="Its id, as listed.")], config: Config = None) -> None:
    """Shows one refused entry with everything that was wrong with it, as JSON.

    Examples:

        rankloop quarantine show 0f3c5a…
    """
    print(json.dumps(_shown(_with_mongo(load_with_database(config), lambda mongo: quarantined_entry(mongo, quarantine_id))), indent=2))


@app.command("replay")
def replay_refused(
    reason: Reason = "",
    quarantine_id: Annotated[str, typer.Option("--id", help="Only this entry.")] = "",
    config: Config = None,
) -> None:
    """Sends refused entries again, after what refused them was mended; those that are stored now leave the quarantine.

    Add a missing type under [labels.types] in rankloop.toml, say, and replay what was refused for it.

    Examples:

        rankloop quarantine replay --reason UNKNOWN_TYPE
    """
    configuration = load_with_database(config)
    query = {name: value for name, value in (("reason", reason), ("_id", quarantine_id)) if value}

    async def work(mongo: Mongo) -> Replay:
        tracking = open_tracking(mongo, configuration.collector, configuration.labels, configuration.retention)
        done = Replay()
        with steps(Console(stderr=True)) as progress:
            progress.step("replaying", await mongo.collection("quarantine").count(query, limit=10_000_000))
            handled = 0
            async for done in replay(mongo, tracking, query):
                now_handled = done.accepted + done.duplicate + done.refused + done.unreadable
                progress.advance(now_handled - handled)
                handled = now_handled
        return done

    done = _with_mongo(configuration, work)
    print(
        f"{done.accepted:,} stored, {done.duplicate:,} were stored already, {done.refused:,} refused again, {done.unreadable:,} unreadable"
    )


def _with_mongo(configuration: Configuration, work: Callable[[Mongo], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        mongo = await Mongo.open(configuration.mongo)
        try:
            await migrate(mongo)
            return await work(mongo)
        finally:
            await mongo.close()

    configure_logs(configuration.log, process="quarantine")
    return asyncio.run(run())


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    """As JSON: the entry itself parsed where it is whole."""
    shown = {**entry, "receive_time": entry["receive_time"].isoformat()}
    if not entry.get("cut"):
        with contextlib.suppress(ValueError):  # what JSON has no form for is kept as text
            shown["entry"] = json.loads(entry["entry"])
    return shown
