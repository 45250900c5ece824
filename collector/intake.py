"""How many entries arrived and how many of them were sent again, by day: the ledger keeps no trace of a repetition.

A server adds up in memory and writes every few seconds, so a kill may lose a few counts. They are for judging senders, never for figures.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from collector.tally import day_of
from runtime.errors import StorageError
from runtime.logs import get_logger
from runtime.mongo import Mongo, UpdateOne

log = get_logger("intake")

EXAMPLES = 3
WRITE_SECONDS = 2.0


@dataclass(slots=True)
class Intake:
    """What arrived."""

    accepted_count: int = 0
    duplicate_count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    """Kind and id of the latest that were sent again."""


class IntakeCounts:
    """Counts what one process takes in."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._waiting: dict[tuple[datetime, str], Intake] = {}

    def add(self, kind: str, accepted_count: int, repeated_ids: Sequence[str], now: datetime) -> None:
        """Counts a call's entries of a kind."""
        self._add(day_of(now), kind, Intake(accepted_count, len(repeated_ids), [(kind, one) for one in repeated_ids[:EXAMPLES]]))

    async def run(self, stop: asyncio.Event) -> None:
        """Writes every few seconds until `stop` is set, and then once more."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Writes what waits; what cannot be written waits on."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            await self._mongo.collection("intake").bulk_write([_update(*place, intake) for place, intake in waiting.items()])
        except StorageError as failure:
            log.info("counts of what arrived are written later", reason=str(failure))
            for place, intake in waiting.items():
                self._add(*place, intake)

    def _add(self, day: datetime, kind: str, more: Intake) -> None:
        intake = self._waiting.setdefault((day, kind), Intake())
        intake.accepted_count += more.accepted_count
        intake.duplicate_count += more.duplicate_count
        intake.examples = [*more.examples, *intake.examples][:EXAMPLES]


def _update(day: datetime, kind: str, intake: Intake) -> UpdateOne:
    update: dict[str, object] = {"$inc": {"accepted": intake.accepted_count, "duplicates": intake.duplicate_count}}
    if intake.examples:
        latest = [one for _, one in intake.examples]
        update["$push"] = {"examples": {"$each": latest, "$position": 0, "$slice": 2 * EXAMPLES}}
    return UpdateOne({"_id": {"day": day, "kind": kind}}, update, upsert=True)


async def intake_of(mongo: Mongo, start: datetime, end: datetime) -> Intake:
    """What arrived on the days that the period touches."""
    total = Intake()
    query = {"_id": {"$gte": {"day": day_of(start)}, "$lt": {"day": end}}}
    for document in await mongo.collection("intake").find(query, sort=[("_id", -1)], limit=10_000):
        total.accepted_count += document["accepted"]
        total.duplicate_count += document["duplicates"]
        total.examples += [(document["_id"]["kind"], one) for one in document.get("examples", [])]
    total.examples = list(dict.fromkeys(total.examples))
    return total
