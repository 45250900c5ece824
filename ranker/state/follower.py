"""Keeps the item state up with the database: everything at start, and every poll what changed since."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable
from typing import Final

from ranker import metrics
from ranker.features.counters import COUNTERS
from ranker.state.items import ItemState, day_of
from ranker.state.tallies import WindowedTallies
from runtime.errors import StorageError
from runtime.logs import get_logger
from runtime.mongo import Collection, Document, Mongo

log = get_logger("ranker")

CATALOGUE_FIELDS: Final = {
    "item_type": 1,
    "tags": 1,
    "attributes.tier": 1,
    "numbers": 1,
    "embedding": 1,
    "create_time": 1,
    "update_time": 1,
    "available": 1,
    "deleted": 1,
}
TALLY_FIELDS: Final = {"revision": 1, **{f"day.{counter}": 1 for counter in COUNTERS}}
SETTLE_SECONDS: Final = 5.0
"""An item read this long after its update time has nothing newer under the same update time."""
NOTHING_READ: Final = -1


class ItemFollower:
    """Follows `tallies` by revision and `items` by update time.

    Revisions grow with every commit of the fold, so what is above the largest one seen is all that is new. Update times are written by
    several servers whose clocks differ, so each poll goes back by an overlap. Reading a document again changes nothing.
    """

    def __init__(
        self, mongo: Mongo, items: ItemState, *, poll_seconds: float, overlap_seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` tells Unix seconds."""
        self._tallies: Collection = mongo.collection("tallies")
        self._catalogue: Collection = mongo.collection("items")
        self._items = items
        self._poll_seconds = poll_seconds
        self._overlap_seconds = overlap_seconds
        self._clock = clock
        self._revisions = {"item": NOTHING_READ, "type": NOTHING_READ, "all": NOTHING_READ}
        self._previous_poll = float("-inf")

    async def follow(self) -> None:
        """Polls until cancelled. A database that is away is asked again; what was known goes on serving."""
        while True:
            try:
                await self.poll()
            except StorageError as error:
                metrics.FOLLOW_FAILURES.labels("items").inc()
                log.warning("item state cannot be read", error=error.message)
            await asyncio.sleep(self._poll_seconds)

    async def poll(self) -> None:
        """Takes in what changed; the first time, everything. Raises StorageError."""
        now = self._clock()
        self._items.advance(day_of(now))
        await self._follow_catalogue()
        await self._follow_tallies("item", self._items.tallies)
        await self._follow_tallies("type", self._items.type_tallies)
        await self._follow_tallies("all", self._items.overall_tallies)
        self._previous_poll = now
        metrics.FOLLOWED.set(now)

    async def _follow_catalogue(self) -> None:
        # In quiet times the newest update stays where it is; the time of the previous poll keeps the overlap from being read for ever.
        since = max(self._items.catalogue.newest_update_seconds, self._previous_poll) - self._overlap_seconds
        query: Document = {} if since == float("-inf") else {"update_time": {"$gte": _moment(since)}}
        settled = self._previous_poll - SETTLE_SECONDS
        async for batch in self._catalogue.batches(query, CATALOGUE_FIELDS, sort=[("update_time", 1)]):
            self._items.catalogue.replace(batch, settled_before=settled)

    async def _follow_tallies(self, scope: str, tallies: WindowedTallies) -> None:
        seen = self._revisions[scope]
        newest = await self._tallies.find_one({"_id.scope": scope}, {"revision": 1}, sort=[("_id.scope", -1), ("revision", -1)])
        if newest is None or newest["revision"] == seen:
            return
        if newest["revision"] < seen:
            # The tallies were rebuilt and count from the start again.
            seen = NOTHING_READ
        query = {"_id.scope": scope, "revision": {"$gt": seen}}
        async for batch in self._tallies.batches(query, TALLY_FIELDS, sort=[("_id.scope", 1), ("revision", 1)]):
            tallies.replace(
                [document["_id"]["key"] for document in batch],
                [day_of(document["_id"]["start"].timestamp()) for document in batch],
                [_counters(document) for document in batch],
            )
            seen = max(seen, batch[-1]["revision"])
        # Only now: one commit's documents may lie in two batches, and a read that ends between them must read them again.
        self._revisions[scope] = seen


def _counters(document: Document) -> list[int]:
    day = document.get("day", {})
    return [day.get(counter, 0) for counter in COUNTERS]


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
