"""`rankloop rebuild`: what is derived from the ledger, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from collector.process import fold_lease
from collector.rebuild import rebuild
from runtime.mongo import Mongo
from scripts.database import with_database
from scripts.running import load_with_database
from scripts.steps import Steps

Config = Annotated[Path | None, typer.Option(help="The configuration; otherwise RANKLOOP_CONFIG or ./rankloop.toml.")]


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

    with_database(configuration, "rebuild", work)
    print("attributions and tallies were derived anew from the ledger")
