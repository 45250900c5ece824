"""What is learned from: slates as they were served, with what became of each of their impressions.

Features are those logged when the slate was ranked, so what was served is what is learned from. Slates recorded without them get them by
replay. Slates arrive by the time they were shown and stay in that order; a part of the data is then a view of it, never a copy.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from ranker.features.schema import FeatureSchema
from ranker.training.columns import Columns, ShownSlate
from ranker.training.data import DatasetCounts, TrainingData
from ranker.training.failures import CannotTrain
from ranker.training.replayed import replayed
from ranker.training.settings import Untouched
from runtime.mongo import Document, Mongo

BATCH_SLATES = 200
"""Slates read at once: at most about 100 MB even if each has a thousand candidates."""

SAMPLED_SLATES = 1_000
"""Slates that are looked at to tell whether views show who looked."""

NAMED_BY_CALLERS = "columns-"
"""How the hash of feature columns begins that callers named and no ranker computed."""

_ONE = TypeVar("_ONE")


class Progress(Protocol):
    """Whom to tell how far the work is."""

    def step(self, description: str, total: int | None = None) -> None:
        """A new step begins; `total` is its size where that is known."""

    def advance(self, count: int) -> None:
        """So much more of the step is done."""


@dataclass(slots=True)
class _Window:
    """What the window holds, from a first look at its slates."""

    slates: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    """Impressions by user."""
    largest: int = 0
    """Impressions of the largest slate."""
    without_features: int = 0
    named_by_callers: int = 0
    """With feature values that callers brought and no ranker computed."""
    known: set[int] = field(default_factory=set)
    """Hashes of the ranking ids: a few dozen bytes per slate, however long the ids are."""
    per_user: Counter[str] = field(default_factory=Counter)
    """Slates by user."""

    def used_rows(self, max_slates_per_user: int) -> int:
        """Impressions that are used, at most."""
        most = max_slates_per_user * self.largest
        return sum(min(rows, most) if user and most else rows for user, rows in self.rows.items())


async def count_interactions(mongo: Mongo, start: datetime, end: datetime) -> int:
    """Interactions that occurred in [start, end)."""
    return await mongo.collection("interactions").count({"occur_time": {"$gte": start, "$lt": end}}, limit=2**31 - 1)


async def newest_interaction(mongo: Mongo, before: datetime) -> datetime | None:
    """When the newest interaction before a moment occurred; None: there is none."""
    found = await mongo.collection("interactions").find_one({"occur_time": {"$lt": before}}, {"occur_time": 1}, sort=[("occur_time", -1)])
    return None if found is None else found["occur_time"]


async def load(
    mongo: Mongo,
    start: datetime,
    end: datetime,
    progress: Progress,
    *,
    untouched: Untouched = "auto",
    schema: FeatureSchema | None = None,
    max_slates_per_user: int = 0,
) -> tuple[TrainingData, DatasetCounts]:
    """The labelled slates shown in [start, end), by show_time, in the columns of the newest that a ranker logged, else of `schema`.

    `untouched` says what an impression means that nobody interacted with, see `TrainerSettings`. `schema` is the deployment's; with it,
    slates without features (or with some that callers brought) get them by replay. Of a user, `max_slates_per_user` slates are used at
    most, evenly spread over the window; 0: all.

    Raises:
        CannotTrain: no slate of the window has features.
    """
    shown = {"show_time": {"$gte": start, "$lt": end}}
    progress.step("looking at slates")
    window = await _look(mongo, shown)
    replay = schema if window.without_features or window.named_by_callers else None
    schemas = await _schemas(mongo)
    if schema is not None:
        schemas[schema.hash] = schema.names
    names, schema_hash = await _columns(mongo, shown, window, schemas, replay)
    seen_only = untouched == "unseen" or (untouched == "auto" and await _views_show_who_looked(mongo, shown))
    columns = Columns(
        feature_names=names,
        schema_hash=schema_hash,
        schemas=schemas,
        seen_only=seen_only,
        row_capacity=window.used_rows(max_slates_per_user),
        slate_capacity=window.slates,
    )
    counts = Counter[str]()
    cap = _Cap(window.per_user, max_slates_per_user)
    progress.step("reading slates" if replay is None else "reading slates, replaying those without features", window.slates)
    source = _logged(mongo, shown) if replay is None else replayed(mongo, start, end, replay, schemas, NAMED_BY_CALLERS)
    async for batch, labels in _ahead(_with_labels(mongo, source)):
        for slate in batch:
            if hash(slate.ranking_id) not in window.known:
                continue  # it came after the first look, and there is no room for it: the next training learns from it
            if not slate.features:
                counts["without features"] += 1
            elif not cap.admits(slate.user_id):
                counts["over cap"] += 1
            else:
                columns.add(slate, labels.get(slate.ranking_id, {}))
        progress.advance(len(batch))
    data = columns.finished()
    interactions, unmatched = await _unmatched(mongo, start, end, window.known, progress)
    found = DatasetCounts(
        interactions=interactions,
        unmatched_interactions=unmatched,
        slates=window.slates,
        slates_without_features=counts["without features"],
        slates_replayed=0 if replay is None else window.without_features + window.named_by_callers,
        slates_over_cap=counts["over cap"],
        slates_with_bad_features=columns.counts["bad"],
        slates_of_one_item=columns.counts["one item"],
        labelled_slates_of_one_item=columns.counts["one item, with a label"],
        slates_without_label=columns.counts["no label"],
        slates_of_other_schemas=columns.counts["other schema"],
        used_slates=data.slate_count,
        used_rows=data.row_count,
        used_users=columns.user_count,
        labelled_rows=int((data.labels > 0).sum()),
        unseen_rows=columns.counts["unseen"],
    )
    return data, found


class _Cap:
    """Which slates of a user are used: so many, evenly spread over all of them."""

    def __init__(self, per_user: Mapping[str, int], most: int) -> None:
        self._over = {user: count for user, count in per_user.items() if user and 0 < most < count}
        self._most = most
        self._seen = Counter[str]()

    def admits(self, user_id: str) -> bool:
        total = self._over.get(user_id)
        if total is None:
            return True
        seen = self._seen[user_id]
        self._seen[user_id] = seen + 1
        return (seen + 1) * self._most // total > seen * self._most // total


async def _look(mongo: Mongo, shown: Mapping[str, Any]) -> _Window:
    window = _Window()
    projection = {"user_id": 1, "schema_hash": 1, "size": {"$size": "$items"}}
    async for batch in mongo.collection("slates").batches(shown, projection, batch_size=10_000):
        window.slates += len(batch)
        window.known.update(hash(slate["_id"]) for slate in batch)
        window.per_user.update(slate["user_id"] for slate in batch)
        for slate in batch:
            window.rows[slate["user_id"]] += slate["size"]
        window.largest = max(window.largest, *(slate["size"] for slate in batch))
        window.without_features += sum("schema_hash" not in slate for slate in batch)
        window.named_by_callers += sum(slate.get("schema_hash", "").startswith(NAMED_BY_CALLERS) for slate in batch)
    return window


async def _columns(
    mongo: Mongo, shown: Mapping[str, Any], window: _Window, schemas: Mapping[str, tuple[str, ...]], replay: FeatureSchema | None
) -> tuple[tuple[str, ...], str]:
    """The columns to learn from, and their hash."""
    slates = mongo.collection("slates")
    by_rankers = {"$exists": True, "$not": {"$regex": f"^{NAMED_BY_CALLERS}"}} if replay else {"$exists": True}
    featured = {**shown, "features": {"$exists": True}, "schema_hash": by_rankers}
    newest = None
    if window.slates > window.without_features + (window.named_by_callers if replay else 0):
        newest = await slates.find_one(featured, {"schema_hash": 1}, sort=[("show_time", -1)])
    if newest is None:
        if replay is not None:
            return replay.names, replay.hash
        recorded = f"{window.slates} were recorded without them" if window.slates else "none was recorded at all"
        raise CannotTrain(f"no slate of the look-back window has logged features ({recorded}): let Rank serve slates first", "NO_FEATURES")
    names = schemas.get(newest["schema_hash"])
    if names is None:
        raise CannotTrain("the feature schema of the newest slate is not recorded in feature_schemas", "UNKNOWN_SCHEMA")
    return names, newest["schema_hash"]


async def _logged(mongo: Mongo, shown: Mapping[str, Any]) -> AsyncIterator[list[ShownSlate]]:
    """Slates with what was logged, in batches."""
    # Lists of words and numbers decode several times as fast as lists of documents.
    projection = {
        "user_id": 1,
        "show_time": 1,
        "surface": 1,
        "features": 1,
        "schema_hash": 1,
        "item_ids": "$items.item_id",
        "item_types": "$items.item_type",
        "positions": "$items.position",
    }
    async for batch in mongo.collection("slates").batches(shown, projection, sort=[("show_time", 1)], batch_size=BATCH_SLATES):
        yield [_logged_slate(slate) for slate in sorted(batch, key=lambda slate: (slate["show_time"], slate["_id"]))]


def _logged_slate(slate: Document) -> ShownSlate:
    item_ids, positions, item_types = slate["item_ids"], slate["positions"], slate["item_types"]
    return ShownSlate(
        ranking_id=slate["_id"],
        user_id=slate["user_id"],
        surface=slate.get("surface", ""),
        show_time=slate["show_time"],
        item_ids=item_ids,
        item_types=item_types if len(item_types) == len(item_ids) else [""] * len(item_ids),
        positions=positions if len(positions) == len(item_ids) else range(1, len(item_ids) + 1),
        features=slate.get("features", b""),
        schema_hash=slate.get("schema_hash", ""),
    )


Labels = dict[str, dict[str, float]]
"""Labels by ranking and item, of impressions that had an interaction."""


async def _with_labels(mongo: Mongo, source: AsyncIterator[list[ShownSlate]]) -> AsyncIterator[tuple[list[ShownSlate], Labels]]:
    async for batch in source:
        yield batch, await _labels(mongo, [slate.ranking_id for slate in batch if slate.features])


async def _ahead(source: AsyncIterator[_ONE]) -> AsyncIterator[_ONE]:
    """The same, the next one being read while this one is worked on."""

    async def following() -> _ONE | None:
        return await anext(source, None)

    coming = asyncio.create_task(following())
    try:
        while (one := await coming) is not None:
            coming = asyncio.create_task(following())
            # One turn of the loop, so that the read is under way before the work begins.
            await asyncio.sleep(0)
            yield one
    finally:
        coming.cancel()


async def _schemas(mongo: Mongo) -> dict[str, tuple[str, ...]]:
    return {one["_id"]: tuple(one["names"]) for one in await mongo.collection("feature_schemas").find({}, limit=10_000)}


async def _labels(mongo: Mongo, ranking_ids: list[str]) -> Labels:
    found: Labels = {}
    query = {"ranking_id": {"$in": ranking_ids}}
    async for batch in mongo.collection("attributions").batches(query, {"label": 1}, batch_size=10_000):
        for one in batch:
            label = one.get("label")
            if label is not None:
                impression = one["_id"]
                found.setdefault(impression["ranking_id"], {})[impression["item_id"]] = float(label)
    return found


async def _views_show_who_looked(mongo: Mongo, shown: Mapping[str, Any]) -> bool:
    """Whether most impressions of the newest slates that had an interaction had a view: then one without any was not looked at."""
    newest = await mongo.collection("slates").find(shown, {"_id": 1}, sort=[("show_time", -1)], limit=SAMPLED_SLATES)
    touched = viewed = 0
    query = {"ranking_id": {"$in": [slate["_id"] for slate in newest]}}
    async for batch in mongo.collection("attributions").batches(query, {"counts.view": 1}, batch_size=10_000):
        touched += len(batch)
        viewed += sum(1 for one in batch if one.get("counts", {}).get("view"))
    return touched > 0 and viewed >= touched / 2


async def _unmatched(mongo: Mongo, start: datetime, end: datetime, known: set[int], progress: Progress) -> tuple[int, int]:
    """Interactions of the window, and those among them that belong to no slate of the window."""
    progress.step("matching interactions")
    seen = unmatched = 0
    query = {"occur_time": {"$gte": start, "$lt": end}}
    async for batch in mongo.collection("interactions").batches(query, {"_id": 0, "ranking_id": 1}, batch_size=20_000):
        seen += len(batch)
        unmatched += sum(1 for one in batch if hash(one.get("ranking_id", "")) not in known)
        progress.advance(len(batch))
    return seen, unmatched
