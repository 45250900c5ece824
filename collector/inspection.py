"""Looking into the quarantine, and sending its entries again after what refused them was mended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import Parse, ParseError

from collector.tracking import Receipt, Tracking
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Slate
from runtime.errors import NotFound
from runtime.mongo import Document, Mongo

MESSAGES: Mapping[str, Any] = {"interactions": Interaction, "slates": Slate, "outcomes": Outcome}


@dataclass(slots=True)
class Replay:
    """What came of sending refused entries again."""

    accepted: int = 0
    duplicate: int = 0
    """Stored meanwhile under the same id with the same content."""
    refused: int = 0
    """Still refused, and still kept."""
    unreadable: int = 0
    """Kept only in part because of their size, or of a kind that cannot be sent again."""


async def quarantined(mongo: Mongo, *, reason: str = "", limit: int = 100) -> list[Document]:
    """Refused entries, newest first; only of one reason if it is named."""
    query = {"reason": reason} if reason else {}
    return await mongo.collection("quarantine").find(query, sort=[("receive_time", -1)], limit=limit)


async def by_reason(mongo: Mongo) -> list[tuple[str, str, int]]:
    """(kind, reason, count), most first."""
    found = await mongo.collection("quarantine").aggregate(
        [{"$group": {"_id": {"kind": "$kind", "reason": "$reason"}, "count": {"$sum": 1}}}, {"$sort": {"count": -1, "_id": 1}}]
    )
    return [(one["_id"]["kind"], one["_id"]["reason"], one["count"]) for one in found]


async def quarantined_entry(mongo: Mongo, quarantine_id: str) -> Document:
    """One refused entry by its id in quarantine. Raises NotFound."""
    found = await mongo.collection("quarantine").find_one({"_id": quarantine_id})
    if found is None:
        raise NotFound(f"there is no entry {quarantine_id!r} in quarantine; `rankloop quarantine list` names them")
    return found


async def replay(mongo: Mongo, tracking: Tracking, query: Mapping[str, Any]) -> AsyncIterator[Replay]:
    """Sends refused entries again, one by one, and forgets those that are stored now; yields the sum after each batch."""
    done, quarantine = Replay(), mongo.collection("quarantine")
    async for batch in quarantine.batches(query, sort=[("receive_time", 1)], batch_size=200):
        for kept in batch:
            message = _message(kept)
            if message is None:
                done.unreadable += 1
                continue
            receipt = await _send(tracking, kept["kind"], message)
            done.accepted += receipt.accepted_count
            done.duplicate += receipt.duplicate_count
            if receipt.rejected:
                done.refused += 1
            if not receipt.rejected or receipt.rejected[0].reason != kept["reason"]:  # it is kept anew under the reason that it has now
                await quarantine.delete_one({"_id": kept["_id"]})
        yield done


def _message(kept: Document) -> Any:
    kind = MESSAGES.get(kept["kind"])
    if kind is None or kept.get("cut"):
        return None
    try:
        return Parse(kept["entry"], kind())
    except ParseError:
        return None


async def _send(tracking: Tracking, kind: str, message: Any) -> Receipt:
    if kind == "interactions":
        return await tracking.track([message])
    if kind == "slates":
        return await tracking.record_slates([message])
    return await tracking.record_outcomes([message])
