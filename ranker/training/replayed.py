"""The ledger read in time order, for slates whose features have to be replayed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ranker.features.schema import FeatureSchema
from ranker.state.follower import CATALOGUE_FIELDS
from ranker.training.columns import ShownSlate
from ranker.training.replay import Replay
from runtime.mongo import Document, Mongo

BATCH_SLATES = 200
BATCH_INTERACTIONS = 5_000

SLATE_FIELDS = {
    "user_id": 1,
    "show_time": 1,
    "surface": 1,
    "algorithm": 1,
    "context": 1,
    "features": 1,
    "schema_hash": 1,
    "items.item_id": 1,
    "items.item_type": 1,
    "items.position": 1,
    "items.score": 1,
    "items.tags": 1,
    "items.tier": 1,
}
INTERACTION_FIELDS = {"user_id": 1, "item_id": 1, "type": 1, "label": 1, "acts": 1, "occur_time": 1, "item_type": 1, "ranking_id": 1}


async def replayed(
    mongo: Mongo, start: datetime, end: datetime, schema: FeatureSchema, schemas: Mapping[str, Sequence[str]], named_by_callers: str
) -> AsyncIterator[list[ShownSlate]]:
    """The slates shown in [start, end), in batches; those without features a ranker logged have what replaying the ledger gives.

    The ledger is read from its beginning, since counts of all time are among the features. `named_by_callers` is how the hash of columns
    begins that callers named.
    """
    replay = Replay(schema)
    async for batch in mongo.collection("items").batches({}, CATALOGUE_FIELDS, sort=[("update_time", 1)]):
        replay.items.catalogue.replace(batch)
    interactions = _one_by_one(mongo, "interactions", "occur_time", INTERACTION_FIELDS, end, BATCH_INTERACTIONS)
    coming = await anext(interactions, None)
    try:
        query = {"show_time": {"$lt": end}}
        async for batch in mongo.collection("slates").batches(query, SLATE_FIELDS, sort=[("show_time", 1)], batch_size=BATCH_SLATES):
            found: list[ShownSlate] = []
            for slate in sorted(batch, key=lambda slate: (slate["show_time"], slate["_id"])):
                # What happened at the very moment of the slate happened after it.
                while coming is not None and coming["occur_time"] < slate["show_time"]:
                    replay.interacted(coming)
                    coming = await anext(interactions, None)
                if slate["show_time"] >= start:
                    found.append(_shown(slate, replay, schemas, named_by_callers))
                replay.showed(slate)
            yield found
    finally:
        await interactions.aclose()


def _shown(slate: Document, replay: Replay, schemas: Mapping[str, Sequence[str]], named_by_callers: str) -> ShownSlate:
    items, schema_hash, features = slate["items"], slate.get("schema_hash", ""), slate.get("features", b"")
    if not features or schema_hash.startswith(named_by_callers):
        features = replay.features(slate, schemas.get(schema_hash, ())).tobytes()
        schema_hash = replay.schema.hash
    return ShownSlate(
        ranking_id=slate["_id"],
        user_id=slate["user_id"],
        surface=slate.get("surface", ""),
        show_time=slate["show_time"],
        item_ids=[item["item_id"] for item in items],
        item_types=[item.get("item_type", "") for item in items],
        positions=[item.get("position", place) for place, item in enumerate(items, start=1)],
        features=features,
        schema_hash=schema_hash,
    )


async def _one_by_one(
    mongo: Mongo, collection: str, time_field: str, fields: Mapping[str, Any], end: datetime, batch_size: int
) -> AsyncGenerator[Document, None]:
    query = {time_field: {"$lt": end}}
    async for batch in mongo.collection(collection).batches(query, fields, sort=[(time_field, 1)], batch_size=batch_size):
        for one in batch:
            yield one
