"""`rankloop rebuild` and `rankloop doctor`: what is derived from the ledger, made anew or held against it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from collector.fold import KINDS, LAG_COUNT, oldest_pending
from collector.process import fold_lease
from collector.rebuild import Recount, rebuild, recount
from collector.retention import cut_of
from runtime.logs import configure_logs
from runtime.mongo import Mongo
from runtime.schema import migrate
from scripts.configuration import Configuration
from scripts.running import load_with_database
from scripts.steps import Steps, steps

Config = Annotated[Path | None, typer.Option(help="The configuration; otherwise RANKLOOP_CONFIG or ./rankloop.toml.")]
Result = TypeVar("Result")


def rebuild_derived(config: Config = None) -> None:
    """Derives attributions and tallies anew from the ledger, beside the old ones, and switches over.

    Needed after a change of labels.combination, or when `rankloop doctor --recount` finds a difference. Everything goes on meanwhile:
    what arrives is stored and counted afterwards, and statistics answer from the old tallies until the new ones are whole. Broken off
    at any moment, the old ones stand.

    Examples:

        rankloop rebuild

        RANKLOOP_MONGO_URI=mongodb://db:27017/?replicaSet=rs0 rankloop rebuild
    """
    configuration = load_with_database(config)

    async def work(mongo: Mongo, progress: Steps) -> None:
        await rebuild(mongo, fold_lease(mongo, configuration.collector), configuration.labels.combination, progress)

    _with_mongo(configuration, work)
    print("attributions and tallies were derived anew from the ledger")


def doctor(
    recounted: Annotated[
        bool, typer.Option("--recount", help="Derive everything anew beside what there is, and compare the two; changes nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Looks after the data: what waits to be counted, what was refused; with --recount, whether every count is right.

    The exit code is 1 where a recount differs.

    Examples:

        rankloop doctor

        rankloop doctor --recount --json
    """
    configuration = load_with_database(config)
    if not recounted:
        health = _with_mongo(configuration, lambda mongo, _: _health(mongo))
        print(json.dumps(health, indent=2) if as_json else "\n".join(f"{name}: {value}" for name, value in health.items()))
        return

    async def work(mongo: Mongo, progress: Steps) -> Recount:
        return await recount(mongo, fold_lease(mongo, configuration.collector), configuration.labels.combination, progress)

    found = _with_mongo(configuration, work)
    if as_json:
        print(json.dumps({**_summary(found), "examples": [str(one) for one in found.examples]}, indent=2))
    else:
        _print(found)
    if not found.agrees:
        raise typer.Exit(1)


async def _health(mongo: Mongo) -> dict[str, object]:
    """What can be told at a glance."""
    oldest = await oldest_pending(mongo)
    cut = await cut_of(mongo)
    waiting = [await mongo.collection(kind).count({"pending": {"$exists": True}}, limit=LAG_COUNT) for kind in KINDS]
    return {
        "entries yet to be counted": sum(waiting),
        "oldest of them received": oldest.isoformat() if oldest else "none waits",
        "refused entries in quarantine": await mongo.collection("quarantine").estimated_count(),
        "ledger complete since": cut.isoformat() if cut else "the beginning",
    }


def _with_mongo(configuration: Configuration, work: Callable[[Mongo, Steps], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        mongo = await Mongo.open(configuration.mongo)
        try:
            await migrate(mongo)
            with steps(Console(stderr=True)) as progress:
                return await work(mongo, progress)
        finally:
            await mongo.close()

    configure_logs(configuration.log, process="rebuild")
    return asyncio.run(run())


def _summary(found: Recount) -> dict[str, object]:
    return {"agrees": found.agrees, "compared": found.compared, "differing": found.differing}


def _print(found: Recount) -> None:
    for name, count in found.compared.items():
        print(f"{name}: {count:,} compared with the ledger, {found.differing[name]:,} differ")
    for example in found.examples:
        print(f"  {example}")
    if not found.agrees:
        print("`rankloop rebuild` derives them anew; please report what led to this, for it should not happen")
