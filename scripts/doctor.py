"""`rankloop doctor`: whether what is stored can be trusted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from collector.fold import LAG_COUNT, oldest_pending
from collector.process import fold_lease
from collector.rebuild import Recount, recount
from collector.receipts import KINDS
from collector.retention import cut_of
from collector.tracking import utc_now
from runtime.mongo import Mongo
from scripts.configuration import Configuration
from scripts.database import with_database
from scripts.running import load_with_database
from scripts.steps import Steps
from server.health.examination import Examination
from server.health.finding import Finding, Scope, Severity

Config = Annotated[Path | None, typer.Option(help="The configuration; otherwise RANKLOOP_CONFIG or ./rankloop.toml.")]

MOST_ENTRIES = 1_000_000
MOST_SLATES = 2_000


def doctor(
    recounted: Annotated[
        bool, typer.Option("--recount", help="Derive everything anew beside what there is, and compare the two; changes nothing.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Examine entries of the last so many days.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Says what is wrong with the data, with examples and what to do; with --recount, whether every count is right.

    Looks for unknown items, interactions without their slate or with items it did not show, wrong clocks, entries sent again, features
    without values, and features and scores that moved away from what the model learned. Of the period, the newest million interactions
    and 2,000 slates are examined. The exit code is 1 only where a recount differs.

    Examples:

        rankloop doctor

        rankloop doctor --days 30 --json

        rankloop doctor --recount
    """
    configuration = load_with_database(config)
    if recounted:
        _recount(configuration, as_json)
    else:
        _examine(configuration, days, as_json)


def _examine(configuration: Configuration, days: int, as_json: bool) -> None:
    now = utc_now()
    # A day ahead is as far as a clock may be wrong.
    scope = Scope(start=now - timedelta(days=days), end=now + timedelta(days=1), most_entries=MOST_ENTRIES, most_slates=MOST_SLATES)

    async def work(mongo: Mongo, progress: Steps) -> tuple[dict[str, object], list[Finding]]:
        progress.step("looking at what is stored")
        state = await _state(mongo)
        progress.step(f"examining the last {days} days")
        return state, await Examination(mongo).findings(scope)

    state, findings = with_database(configuration, "doctor", work)
    if as_json:
        print(json.dumps({**state, "examined_days": days, "findings": [asdict(one) for one in findings]}, indent=2))
        return
    print("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in state.items()))
    _print_findings(findings, days)


async def _state(mongo: Mongo) -> dict[str, object]:
    """What can be told at a glance."""
    oldest = await oldest_pending(mongo)
    cut = await cut_of(mongo)
    waiting = [await mongo.collection(kind).count({"pending": {"$exists": True}}, limit=LAG_COUNT) for kind in KINDS]
    return {
        "entries_yet_to_be_counted": sum(waiting),
        "oldest_of_them_received": oldest.isoformat() if oldest else "none waits",
        "refused_entries_in_quarantine": await mongo.collection("quarantine").estimated_count(),
        "ledger_complete_since": cut.isoformat() if cut else "the beginning",
    }


def _print_findings(findings: Sequence[Finding], days: int) -> None:
    console = Console(soft_wrap=True)
    if not findings:
        console.print(f"\nnothing is wrong with what came in during the last {days} days")
    for one in findings:
        style = "bold yellow" if one.severity is Severity.WARNING else "bold"
        console.print(Text(f"\n{one.severity}: {one.name}", style=style))
        console.print(Text(f"  {one.count:,} of {one.examined_count:,} ({one.share:.1%}): {one.description}"))
        for example in one.examples:
            console.print(Text(f"    {example}", style="dim"))
        console.print(Text(f"  to do: {one.advice}"))


def _recount(configuration: Configuration, as_json: bool) -> None:
    async def work(mongo: Mongo, progress: Steps) -> Recount:
        return await recount(mongo, fold_lease(mongo, configuration.collector), configuration.labels.combination, progress)

    found = with_database(configuration, "doctor", work)
    if as_json:
        print(json.dumps({**_summary(found), "examples": [str(one) for one in found.examples]}, indent=2))
    else:
        _print_recount(found)
    if not found.agrees:
        raise typer.Exit(1)


def _summary(found: Recount) -> dict[str, object]:
    return {"agrees": found.agrees, "compared": found.compared, "differing": found.differing}


def _print_recount(found: Recount) -> None:
    for name, count in found.compared.items():
        print(f"{name}: {count:,} compared with the ledger, {found.differing[name]:,} differ")
    for example in found.examples:
        print(f"  {example}")
    if not found.agrees:
        print("`rankloop rebuild` derives them anew; please report what led to this, for it should not happen")
