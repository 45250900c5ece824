"""What is wrong with entries of the ledger: their items, their slates, their clocks, their repetitions."""

from __future__ import annotations

from typing import Any

from collector.intake import intake_of
from collector.retention import cut_of
from runtime.mongo import Document, Mongo
from server.health.finding import EXAMPLES, Finding, Scope, Severity

SKEW_MILLISECONDS = 60_000
"""A clock that is wrong by less is not worth a word."""

MANY_DUPLICATES = 0.05
"""Share of entries sent again from which on it is a warning: retries alone hardly reach it."""


async def unknown_items(mongo: Mongo, scope: Scope) -> Finding | None:
    """Interactions with items that the catalogue does not have."""
    named = await mongo.collection("interactions").aggregate(
        [
            *_newest(scope),
            {"$group": {"_id": "$item_id", "count": {"$sum": 1}}},
            {
                "$lookup": {
                    "from": "items",
                    "localField": "_id",
                    "foreignField": "_id",
                    "pipeline": [{"$match": {"deleted": {"$exists": False}}}, {"$project": {"_id": 1}}],
                    "as": "item",
                }
            },
            {"$project": {"count": 1, "unknown": {"$eq": ["$item", []]}}},
            {"$sort": {"count": -1, "_id": 1}},
            {
                "$group": {
                    "_id": "$unknown",
                    "items": {"$sum": 1},
                    "count": {"$sum": "$count"},
                    "examples": {"$firstN": {"input": "$_id", "n": EXAMPLES}},
                }
            },
        ]
    )
    found = next((one for one in named if one["_id"]), None)
    if found is None:
        return None
    return Finding(
        name="unknown_items",
        severity=Severity.WARNING,
        count=found["count"],
        examined_count=sum(one["count"] for one in named),
        examples=tuple(f"item {item_id!r}" for item_id in found["examples"]),
        description=f"interactions with {found['items']:,} items that the catalogue does not have",
        advice="send items with UpsertItems before they are shown: without, they have no type, tags, age or embedding when they are ranked",
    )


async def slate_faults(mongo: Mongo, scope: Scope) -> list[Finding]:
    """Interactions whose ranking_id leads to no slate, or to one without their item, or that lie before it was shown."""
    cut = await cut_of(mongo)
    query: dict[str, Any] = {"ranking_id": {"$exists": True}, "pending": {"$exists": False}}
    begin = max(scope.start, cut) if cut else scope.start
    query["occur_time"] = {"$gte": begin, "$lt": scope.end}
    found = await mongo.collection("interactions").aggregate(
        [
            {"$match": query},
            {"$sort": {"occur_time": -1}},
            {"$limit": scope.most_entries},
            {
                "$lookup": {
                    "from": "slates",
                    "localField": "ranking_id",
                    "foreignField": "_id",
                    "let": {"item": "$item_id"},
                    "pipeline": [{"$project": {"show_time": 1, "shown": {"$in": ["$$item", "$items.item_id"]}}}],
                    "as": "slate",
                }
            },
            {"$project": {"type": 1, "item_id": 1, "ranking_id": 1, "occur_time": 1, "slate": {"$first": "$slate"}}},
            {
                "$group": {
                    "_id": {
                        "$switch": {
                            "branches": [
                                {"case": {"$not": ["$slate"]}, "then": "interactions_without_slate"},
                                {"case": {"$not": ["$slate.shown"]}, "then": "never_shown"},
                                {
                                    "case": {"$lt": ["$occur_time", {"$subtract": ["$slate.show_time", SKEW_MILLISECONDS]}]},
                                    "then": "acted_before_shown",
                                },
                            ],
                            "default": "sound",
                        }
                    },
                    "count": {"$sum": 1},
                    "examples": {
                        "$firstN": {"input": {"id": "$_id", "type": "$type", "item": "$item_id", "ranking": "$ranking_id"}, "n": EXAMPLES}
                    },
                }
            },
        ]
    )
    examined = sum(one["count"] for one in found)
    return [
        Finding(
            name=one["_id"],
            severity=Severity.WARNING,
            count=one["count"],
            examined_count=examined,
            examples=tuple(f"{e['type']} {e['id']!r} of item {e['item']!r}, ranking {e['ranking']!r}" for e in one["examples"]),
            description=_SLATE_FAULTS[one["_id"]][0],
            advice=_SLATE_FAULTS[one["_id"]][1],
        )
        for one in sorted(found, key=lambda one: str(one["_id"]))
        if one["_id"] in _SLATE_FAULTS
    ]


_SLATE_FAULTS = {
    "interactions_without_slate": (
        "interactions that name a ranking which was never recorded: they count for their item and user, not for any ranking",
        "send slates that you rank yourself with RecordSlates; if Rank made them, see rankloop_slates_dropped_total and whether ranking_id "
        "is passed on unchanged",
    ),
    "never_shown": (
        "interactions with items that the slate they name did not show: they count for their item and user, not for that ranking",
        "pass the ranking_id of the slate that the item was shown in; leave it empty for items found elsewhere",
    ),
    "acted_before_shown": (
        "interactions more than a minute before their slate was shown: times to action read 0 there",
        "set the clocks of the senders by NTP, and occur_time to when it happened, in UTC",
    ),
}


async def clock_skew(mongo: Mongo, scope: Scope) -> Finding | None:
    """Interactions that say they happened after they arrived."""
    found = await mongo.collection("interactions").aggregate(
        [
            *_newest(scope),
            {"$set": {"ahead": {"$subtract": ["$occur_time", "$receive_time"]}}},
            {
                "$group": {
                    "_id": {"$gt": ["$ahead", SKEW_MILLISECONDS]},
                    "count": {"$sum": 1},
                    "most": {"$max": "$ahead"},
                    "examples": {"$firstN": {"input": {"id": "$_id", "ahead": "$ahead"}, "n": EXAMPLES}},
                }
            },
        ]
    )
    ahead: Document | None = next((one for one in found if one["_id"]), None)
    if ahead is None:
        return None
    return Finding(
        name="clock_skew",
        severity=Severity.WARNING,
        count=ahead["count"],
        examined_count=sum(one["count"] for one in found),
        examples=tuple(f"interaction {one['id']!r}, {one['ahead'] / 1000:.0f} s ahead" for one in ahead["examples"]),
        description=f"interactions that happened after they arrived, by up to {ahead['most'] / 1000:.0f} s",
        advice="set the clocks of the senders by NTP, and send times in UTC; or leave occur_time out, and the time of arrival stands",
    )


async def duplicates(mongo: Mongo, scope: Scope) -> Finding | None:
    """Entries that were sent again."""
    intake = await intake_of(mongo, scope.start, scope.end)
    if not intake.duplicate_count:
        return None
    received = intake.accepted_count + intake.duplicate_count
    many = intake.duplicate_count > MANY_DUPLICATES * received
    return Finding(
        name="duplicates",
        severity=Severity.WARNING if many else Severity.NOTE,
        count=intake.duplicate_count,
        examined_count=received,
        examples=tuple(f"{kind} {entry_id!r}" for kind, entry_id in intake.examples[:EXAMPLES]),
        description="entries that were sent again under the same id; each counts once",
        advice="some are the retries that keep events safe; many mean that a sender does not see its answers (deadline too short?) or "
        "reads a queue twice",
    )


def _newest(scope: Scope) -> list[dict[str, Any]]:
    """The newest interactions of the scope."""
    return [
        {"$match": {"occur_time": {"$gte": scope.start, "$lt": scope.end}}},
        {"$sort": {"occur_time": -1}},
        {"$limit": scope.most_entries},
    ]
