"""The quarantine: refused entries, kept with their reason, bounded in number, bytes and age."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from prometheus_client import Counter

from runtime.errors import Violation
from runtime.mongo import Document, Mongo

MAX_KEPT_BYTES = 64 * 2**10
"""Of one entry as text; what is longer is cut, and says so."""
TRIM_SHARE = 0.1
"""Who has kept so large a share of what may be kept trims at once: a flood of refused entries does not wait for the next sweep."""

REFUSED = Counter("rankloop_quarantined_entries", "Entries refused and kept in quarantine.", ["kind", "reason"])


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineLimits:
    """How much is kept, and how long."""

    entries: int = 100_000
    byte_count: int = 256 * 2**20
    """Of the documents, before MongoDB compresses them."""
    age: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that was not stored, and why."""

    kind: str
    entry_id: str
    entry: Message
    faults: Sequence[Violation]


class Quarantine:
    """Keeps refused entries until they are too many or too old."""

    def __init__(self, mongo: Mongo, limits: QuarantineLimits = QuarantineLimits()) -> None:
        self._collection = mongo.collection("quarantine")
        self._limits = limits
        self._new_entries = 0
        self._new_bytes = 0
        """Kept since the last trim of this object, roughly: what was there already counts again."""

    async def keep(self, refused: Sequence[Refused], now: datetime) -> None:
        """Stores them; the same entry refused for the same reason is kept once, however often it is sent."""
        if not refused:
            return
        documents = {(document := _document(one, now))["_id"]: document for one in refused}
        await self._collection.insert_many(list(documents.values()))
        for one in refused:
            REFUSED.labels(one.kind, one.faults[0].reason).inc()
        self._new_entries += len(documents)
        self._new_bytes += sum(len(document["entry"].encode()) for document in documents.values())
        if self._new_entries > TRIM_SHARE * self._limits.entries or self._new_bytes > TRIM_SHARE * self._limits.byte_count:
            await self.trim(now)

    async def trim(self, now: datetime) -> int:
        """Deletes what is too old, then the oldest of what is too much; returns how many went."""
        self._new_entries = self._new_bytes = 0
        deleted = await self._collection.delete_many({"receive_time": {"$lt": now - self._limits.age}})
        stats = await self._collection.aggregate([{"$collStats": {"storageStats": {}}}])  # one for each shard, and known at once
        entries, byte_count = (sum(one["storageStats"][name] for one in stats) for name in ("count", "size"))
        if entries > self._limits.entries or byte_count > self._limits.byte_count:
            deleted += await self._delete_surplus()
        return deleted

    async def _delete_surplus(self) -> int:
        """Walks from the newest to the oldest, and deletes from where there is no more room."""
        room_entries, room_bytes, deleted = self._limits.entries, self._limits.byte_count, 0
        newest_first: list[Document] = [{"$sort": {"receive_time": -1}}, {"$project": {"size": {"$bsonSize": "$$ROOT"}}}]
        async for batch in self._collection.aggregate_batches(newest_first):
            surplus = []
            for one in batch:
                room_entries -= 1
                room_bytes -= one["size"]
                if room_entries < 0 or room_bytes < 0:
                    surplus.append(one["_id"])
            if surplus:
                deleted += await self._collection.delete_many({"_id": {"$in": surplus}})
        return deleted


def _document(refused: Refused, now: datetime) -> Document:
    serialized = refused.entry.SerializeToString(deterministic=True)
    first = refused.faults[0]
    text = _text_of(refused.entry).encode()
    # Its place in the call says nothing of the entry: sent again alone, it is the same one.
    identity = "\0".join((refused.kind, first.reason, first.field.partition("].")[2])).encode() + serialized
    return {
        "_id": hashlib.blake2b(identity, digest_size=16).hexdigest(),
        "kind": refused.kind,
        "entry_id": refused.entry_id[:256],
        "reason": first.reason,
        "faults": [{"field": fault.field, "reason": fault.reason, "description": fault.description} for fault in refused.faults[:20]],
        "entry": text[:MAX_KEPT_BYTES].decode(errors="ignore"),
        "cut": len(text) > MAX_KEPT_BYTES,
        "receive_time": now,
    }


def _text_of(entry: Message) -> str:
    """The entry as JSON; what JSON has no form for (a time outside the years 1 to 9999), in protobuf's own text format."""
    try:
        return json_format.MessageToJson(entry, indent=None)
    except (ValueError, json_format.Error):
        return text_format.MessageToString(entry, as_one_line=True)
