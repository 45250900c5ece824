"""Retention: ledger entries go when they are old enough, by the time the server received them; tallies stay.

Figures of the days that lost entries stand on their tallies alone from then on. The *cut* is the first day that lost none: what lies
before it is carried over by a rebuild, and answers that read the ledger say since when it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

from prometheus_client import Counter

from collector.quarantine import Quarantine
from collector.settings import RetentionSettings
from collector.tally import day_of
from collector.touched import bound_touched
from runtime.errors import Unavailable
from runtime.logs import get_logger
from runtime.mongo import Mongo

log = get_logger("retention")

DAY = timedelta(days=1)
AT_ONCE = 2_000
CUT = "retention_cut"

DELETED = Counter("rankloop_retention_deleted_entries", "Ledger entries deleted because of their age.", ["kind"])

MOMENTS = {"interactions": "occur_time", "slates": "show_time", "sessions": "start_time"}
"""When an entry counts. None is more than a day ahead of when it was received, so the index over it finds what is old enough."""
PACKS = {"interactions": "interaction_days", "slates": "times"}
"""What statistics packed of them by the day."""


async def cut_of(mongo: Mongo) -> datetime | None:
    """The first day whose ledger is whole; None: it is whole from the beginning."""
    found = await mongo.collection("meta").find_one({"_id": CUT})
    return found["value"] if found else None


async def sweep(mongo: Mongo, settings: RetentionSettings, now: datetime) -> int:
    """Deletes what is old enough; returns how many entries went."""
    kept = {"interactions": settings.interactions_days, "slates": settings.slates_days, "sessions": settings.sessions_days}
    return sum([await _sweep_kind(mongo, kind, now - timedelta(days=days)) for kind, days in kept.items() if days])


async def _sweep_kind(mongo: Mongo, kind: str, before: datetime) -> int:
    """Deletes the folded entries of a kind that were received before then."""
    moment = MOMENTS[kind]
    old = {moment: {"$lt": before + DAY}, "receive_time": {"$lt": before}, "pending": {"$exists": False}}
    collection, total = mongo.collection(kind), 0
    while entries := await collection.find(old, {moment: 1}, sort=[(moment, 1)], limit=AT_ONCE):
        ids = [entry["_id"] for entry in entries]
        if kind != "sessions":
            # First the cut, then the deletion: a rebuild in between carries over too much rather than losing anything.
            newest = max(entry[moment] for entry in entries)
            await mongo.collection("meta").update_one({"_id": CUT}, {"$max": {"value": day_of(newest) + DAY}}, upsert=True)
        await collection.delete_many({"_id": {"$in": ids}})
        if kind == "slates":
            await mongo.collection("attributions").delete_many({"ranking_id": {"$in": ids}})
        if kind in PACKS:
            await mongo.collection(PACKS[kind]).delete_many({"_id": {"$lte": day_of(newest)}})
        DELETED.labels(kind).inc(len(ids))
        total += len(ids)
    return total


async def keep_sweeping(mongo: Mongo, settings: RetentionSettings, stop: asyncio.Event, clock: Callable[[], datetime]) -> None:
    """Sweeps now and then until `stop` is set."""
    while not stop.is_set():
        with contextlib.suppress(Unavailable):
            if deleted := await sweep(mongo, settings, clock()):
                log.info("old entries deleted", count=deleted)
            await Quarantine(mongo, settings.quarantine_limits()).trim(clock())
            if await bound_touched(mongo):
                log.warning("nobody took in whose figures changed; digests of experiments are made anew when a server is back")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), settings.sweep_seconds)
