"""The database on one page: collections, indexes, validators, and the migrations that bring a database to this version.

The ledger (interactions, slates, outcomes, sessions) is append-only. attributions and tallies are derived from it and can be rebuilt, and
so are the digests that experiments are read out from.
An entry of the ledger that the fold has yet to take in carries `pending`, the time it was received; a partial index lists those. What the
fold took in a moment ago may carry it still, and stands in fold_receipts then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import DuplicateKey, Misconfigured, Unavailable
from runtime.logs import get_logger
from runtime.mongo import Mongo

log = get_logger("schema")

ASCENDING, DESCENDING = 1, -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index of a collection."""

    name: str
    keys: tuple[tuple[str, int], ...]
    unique: bool = False
    partial: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSchema:
    """A collection."""

    name: str
    meaning: str
    required: Mapping[str, str] = field(default_factory=dict)
    """Fields every document has, with their BSON types; the validator."""
    indexes: tuple[Index, ...] = ()

    @property
    def validator(self) -> dict[str, Any] | None:
        """As MongoDB wants it."""
        if not self.required:
            return None
        properties = {name: {"bsonType": kind} for name, kind in self.required.items()}
        return {"$jsonSchema": {"bsonType": "object", "required": sorted(self.required), "properties": properties}}


PENDING = Index(name="pending", keys=(("pending", ASCENDING),), partial={"pending": {"$exists": True}})

TIMED = Index(
    name="timed",
    keys=tuple((f"timed.{name}", ASCENDING) for name in ("shown", "type", "action", "completion")),
    partial={"timed.shown": {"$exists": True}},
)
"""Times to action and to completion of the impressions shown in a period, from the index alone."""

COLLECTIONS: tuple[CollectionSchema, ...] = (
    CollectionSchema(
        name="interactions",
        meaning="ledger: what users did; _id is the caller's event_id",
        required={
            "user_id": "string",
            "item_id": "string",
            "type": "string",
            "label": "double",
            "occur_time": "date",
            "receive_time": "date",
        },
        indexes=(
            Index(name="user", keys=(("user_id", ASCENDING), ("occur_time", DESCENDING), ("_id", DESCENDING))),
            Index(name="item", keys=(("item_id", ASCENDING), ("occur_time", ASCENDING))),
            Index(name="time", keys=(("occur_time", ASCENDING),)),
            PENDING,
        ),
    ),
    CollectionSchema(
        name="slates",
        meaning="ledger: what was shown, with the feature values it was ranked by; _id is the ranking_id",
        required={"user_id": "string", "items": "array", "show_time": "date", "receive_time": "date"},
        indexes=(
            Index(name="user", keys=(("user_id", ASCENDING), ("show_time", DESCENDING))),
            Index(name="time", keys=(("show_time", ASCENDING),)),
            Index(
                name="experiment",
                keys=(("experiments.id", ASCENDING), ("user_id", ASCENDING), ("show_time", ASCENDING)),
                partial={"experiments.id": {"$exists": True}},
            ),
            PENDING,
        ),
    ),
    CollectionSchema(
        name="outcomes",
        meaning="ledger: valued results outside the slate; _id is the caller's event_id",
        required={"user_id": "string", "type": "string", "occur_time": "date", "receive_time": "date"},
        indexes=(
            Index(name="user", keys=(("user_id", ASCENDING), ("occur_time", DESCENDING))),
            Index(name="item", keys=(("item_id", ASCENDING), ("occur_time", ASCENDING)), partial={"item_id": {"$exists": True}}),
            Index(name="ranking", keys=(("ranking_id", ASCENDING),), partial={"ranking_id": {"$exists": True}}),
            Index(name="time", keys=(("occur_time", ASCENDING),)),
            PENDING,
        ),
    ),
    CollectionSchema(
        name="sessions",
        meaning="ledger: stated sessions; _id is the caller's session_id",
        required={"user_id": "string", "start_time": "date", "receive_time": "date"},
        indexes=(
            Index(name="user", keys=(("user_id", ASCENDING), ("start_time", DESCENDING))),
            Index(name="time", keys=(("start_time", ASCENDING),)),
        ),
    ),
    CollectionSchema(
        name="quarantine",
        meaning="entries that were refused, with the reason",
        required={"kind": "string", "reason": "string", "receive_time": "date"},
        indexes=(Index(name="time", keys=(("receive_time", ASCENDING),)),),
    ),
    CollectionSchema(name="intake", meaning="how many entries arrived and how many of them were sent again, roughly; _id is {day, kind}"),
    CollectionSchema(
        name="attributions",
        meaning="derived: what became of each impression that had an interaction; _id is {ranking_id, item_id}",
        required={"ranking_id": "string"},
        indexes=(Index(name="ranking", keys=(("ranking_id", ASCENDING),)), TIMED),
    ),
    CollectionSchema(
        name="tallies",
        meaning="derived: counters by day and hour; _id is {scope, start, key}",
        required={"revision": "long"},
        indexes=(Index(name="revision", keys=(("_id.scope", ASCENDING), ("revision", ASCENDING))),),
    ),
    CollectionSchema(name="times", meaning="derived: times to action and completion, packed by the day of the impressions; _id is the day"),
    CollectionSchema(name="interaction_days", meaning="derived: the interactions of a day as columns; _id is the day"),
    CollectionSchema(
        name="fold_receipts",
        meaning="what transactions of the fold took in, until the marks of those entries are gone; _id is the revision",
    ),
    CollectionSchema(
        name="touched_users",
        meaning="users whose figures transactions of the fold may have changed, until followers have taken them in; _id is the revision",
        required={"user_ids": "array"},
    ),
    CollectionSchema(
        name="awaited_users",
        meaning="users of whom an entry is known that lies in the future, and when it will count; _id is the user_id",
        required={"time": "date"},
        indexes=(Index(name="time", keys=(("time", ASCENDING),)),),
    ),
    CollectionSchema(
        name="digests",
        meaning="derived: how far the digest of each experiment goes, of which it is read out; _id is the experiment_id",
        required={"state": "string", "mark": "long", "as_of": "date"},
        indexes=(Index(name="state", keys=(("state", ASCENDING),)),),
    ),
    CollectionSchema(
        name="digest_parts",
        meaning="derived: what users did in an experiment, a row of figures each, packed; of a user the newest row counts",
        required={"experiment": "string", "slice": "int", "sequence": "long", "place": "int", "row_count": "int"},
        indexes=(
            Index(
                name="order",
                keys=(
                    ("experiment", ASCENDING),
                    ("slice", ASCENDING),
                    ("sequence", ASCENDING),
                    ("place", ASCENDING),
                    ("row_count", ASCENDING),
                ),
            ),
        ),
    ),
    CollectionSchema(
        name="items",
        meaning="the catalogue's items; a deleted one stays as a tombstone, so that rankers see it go",
        required={"update_time": "date"},
        indexes=(
            Index(name="update", keys=(("update_time", ASCENDING),)),
            Index(name="type", keys=(("item_type", ASCENDING), ("_id", ASCENDING))),
        ),
    ),
    CollectionSchema(name="users", meaning="the catalogue's users", required={"update_time": "date"}),
    CollectionSchema(
        name="models",
        meaning="versions of the ranker; the files are blobs",
        required={"status": "string", "create_time": "date"},
        indexes=(
            Index(name="champion", keys=(("status", ASCENDING),), unique=True, partial={"status": "champion"}),
            Index(name="time", keys=(("create_time", DESCENDING),)),
        ),
    ),
    CollectionSchema(
        name="training_runs",
        meaning="history of the trainer",
        required={"status": "string", "create_time": "date"},
        indexes=(Index(name="time", keys=(("create_time", DESCENDING),)), Index(name="status", keys=(("status", ASCENDING),))),
    ),
    CollectionSchema(
        name="feature_schemas",
        meaning="the column names of logged feature values, and which of them callers bring, by hash",
        required={"names": "array"},
    ),
    CollectionSchema(
        name="experiments",
        meaning="A/B tests: the contract's message, its state, and every change; _id is the experiment_id",
        required={"content": "binData", "state": "string", "etag": "string", "create_time": "date", "changes": "array"},
        indexes=(
            Index(name="time", keys=(("create_time", DESCENDING), ("_id", DESCENDING))),
            Index(name="state", keys=(("state", ASCENDING), ("create_time", DESCENDING))),
        ),
    ),
    CollectionSchema(name="leases", meaning="who does what only one may do"),
    CollectionSchema(name="meta", meaning="the version of this schema, and facts fixed for the deployment"),
)


async def _create(mongo: Mongo) -> None:
    """Version 1: everything above."""
    for collection in COLLECTIONS:
        await _create_as(mongo, collection, collection.name)


async def create_beside(mongo: Mongo, name: str, suffix: str) -> None:
    """Creates another collection like `name`, called `name` + `suffix`."""
    await _create_as(mongo, next(collection for collection in COLLECTIONS if collection.name == name), f"{name}{suffix}")


async def _create_as(mongo: Mongo, collection: CollectionSchema, name: str) -> None:
    await mongo.ensure_collection(name, collection.validator)
    for index in collection.indexes:
        await mongo.collection(name).ensure_index(index.keys, name=index.name, unique=index.unique, partial=index.partial)


async def _index_more(mongo: Mongo) -> None:
    """Version 2: what statistics of lifecycles, engagement and outcomes read by."""
    await _create(mongo)


async def _create_receipts(mongo: Mongo) -> None:
    """Version 3: the fold writes down what it took in, and takes the marks away afterwards."""
    await create_beside(mongo, "fold_receipts", "")


async def _experiments(mongo: Mongo) -> None:
    """Version 4: experiments, and the slates of each."""
    await _create(mongo)


async def _create_times(mongo: Mongo) -> None:
    """Version 5: times of days, packed."""
    await create_beside(mongo, "times", "")


async def _digests(mongo: Mongo) -> None:
    """Version 6: what experiments are read out from."""
    for name in ("touched_users", "awaited_users", "digests", "digest_parts"):
        await create_beside(mongo, name, "")


async def _create_interaction_days(mongo: Mongo) -> None:
    """Version 7: interactions of days, as columns."""
    await create_beside(mongo, "interaction_days", "")


async def _order_digests(mongo: Mongo) -> None:
    """Version 8: the parts of a digest, in order."""
    await create_beside(mongo, "digest_parts", "")


MIGRATIONS: tuple[Callable[[Mongo], Awaitable[None]], ...] = (
    _create,
    _index_more,
    _create_receipts,
    _experiments,
    _create_times,
    _digests,
    _create_interaction_days,
    _order_digests,
)
"""Migration *i* brings a database from version *i* to *i* + 1. Each may be run twice, and none deletes what the ledger holds."""


async def migrate(mongo: Mongo) -> int:
    """Brings the database to this version and returns it. Processes that start together do no harm: every step may be run twice.

    Raises:
        Misconfigured: the database was made by a later release.
    """
    meta = mongo.collection("meta")
    stored = await meta.find_one({"_id": "schema"})
    version = int(stored["version"]) if stored else 0
    if version > len(MIGRATIONS):
        raise Misconfigured(
            f"the database is at schema version {version}, and this release knows {len(MIGRATIONS)}; "
            "run the release that made it, or a later one"
        )
    for step in range(version, len(MIGRATIONS)):
        await MIGRATIONS[step](mongo)
        try:
            await meta.update_one({"_id": "schema", "version": {"$lt": step + 1}}, {"$set": {"version": step + 1}}, upsert=True)
        except DuplicateKey:
            continue  # another process brought it there
        log.info("schema migrated", version=step + 1)
    return len(MIGRATIONS)


async def fixed(mongo: Mongo, fact: str, value: Any) -> Any:
    """A fact that whoever states it first fixes for the deployment; returns what it is."""
    try:
        stored = await mongo.collection("meta").find_one_and_update({"_id": fact}, {"$setOnInsert": {"value": value}}, upsert=True)
    except DuplicateKey:
        stored = await mongo.collection("meta").find_one({"_id": fact})
    if stored is None:
        raise Unavailable(f"the fact {fact} could not be read")
    return stored["value"]
