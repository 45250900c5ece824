"""Work on the database that a command does by itself, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rich.console import Console

from runtime.logs import configure_logs
from runtime.mongo import Mongo
from runtime.schema import migrate
from scripts.configuration import Configuration
from scripts.steps import Steps, steps

Result = TypeVar("Result")


def with_database(configuration: Configuration, process: str, work: Callable[[Mongo, Steps], Awaitable[Result]]) -> Result:
    """Opens the database at the newest schema, does the work with a progress bar, and closes it. `process` names the command in logs."""

    async def run() -> Result:
        mongo = await Mongo.open(configuration.mongo)
        try:
            await migrate(mongo)
            with steps(Console(stderr=True)) as progress:
                return await work(mongo, progress)
        finally:
            await mongo.close()

    configure_logs(configuration.log, process=process)
    return asyncio.run(run())
