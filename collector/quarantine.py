"""The quarantine: refused entries, kept with their reason, bounded in number and age."""

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

MAX_KEPT_CHARACTERS = 65_536

REFUSED = Counter("rankloop_quarantined_entries", "Entries refused and kept in quarantine.", ["kind", "reason"])


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that was not stored, and why."""

    kind: str
    entry_id: str
    entry: Message
    faults: Sequence[Violation]


class Quarantine:
    """Keeps refused entries until they are too many or too old."""

    def __init__(self, mongo: Mongo) -> None:
        self._collection = mongo.collection("quarantine")

    async def keep(self, refused: Sequence[Refused], now: datetime) -> None:
        """Stores them; the same entry refused for the same reason is kept once, however often it is sent."""
        if not refused:
            return
        documents = {(document := _document(one, now))["_id"]: document for one in refused}
        await self._collection.insert_many(list(documents.values()))
        for one in refused:
            REFUSED.labels(one.kind, one.faults[0].reason).inc()

    async def trim(self, now: datetime, *, most: int, oldest: timedelta) -> int:
        """Deletes what is too old, then the oldest of what is too much; returns how many went."""
        deleted = await self._collection.delete_many({"receive_time": {"$lt": now - oldest}})
        surplus = await self._collection.estimated_count() - most
        if surplus <= 0:
            return deleted
        last = await self._collection.aggregate(
            [{"$sort": {"receive_time": 1}}, {"$limit": surplus}, {"$group": {"_id": None, "newest": {"$max": "$receive_time"}}}]
        )
        if last:
            deleted += await self._collection.delete_many({"receive_time": {"$lte": last[0]["newest"]}})
        return deleted


def _document(refused: Refused, now: datetime) -> Document:
    serialized = refused.entry.SerializeToString(deterministic=True)
    first = refused.faults[0]
    text = _text_of(refused.entry)
    # Its place in the call says nothing of the entry: sent again alone, it is the same one.
    identity = "\0".join((refused.kind, first.reason, first.field.partition("].")[2])).encode() + serialized
    return {
        "_id": hashlib.blake2b(identity, digest_size=16).hexdigest(),
        "kind": refused.kind,
        "entry_id": refused.entry_id[:256],
        "reason": first.reason,
        "faults": [{"field": fault.field, "reason": fault.reason, "description": fault.description} for fault in refused.faults[:20]],
        "entry": text[:MAX_KEPT_CHARACTERS],
        "cut": len(text) > MAX_KEPT_CHARACTERS,
        "receive_time": now,
    }


def _text_of(entry: Message) -> str:
    """The entry as JSON; what JSON has no form for (a time outside the years 1 to 9999), in protobuf's own text format."""
    try:
        return json_format.MessageToJson(entry, indent=None)
    except (ValueError, json_format.Error):
        return text_format.MessageToString(entry, as_one_line=True)
