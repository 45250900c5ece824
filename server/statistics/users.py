"""Figures of one user, from that user's own entries in the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rankloop.v1.stats_pb2 import UserStats
from runtime.mongo import Document, Mongo
from runtime.timestamps import to_timestamp
from server.statistics.figures import ratio
from server.statistics.intervals import wilson_of_ratio
from server.statistics.period import Period

SESSION_GAP = timedelta(minutes=30)
SLATE_COLUMNS = {"items.item_id": 1, "items.item_type": 1}
COLUMNS = {"type": 1, "label": 1, "item_id": 1, "item_type": 1, "session_id": 1, "occur_time": 1, "ranking_id": 1}


@dataclass(slots=True)
class UserHistory:
    """What a user did in a period, and what was shown."""

    interactions: list[Document] = field(default_factory=list)
    """Within the period, and up to a session's gap before it."""
    impressions: dict[tuple[str, str], str] = field(default_factory=dict)
    """(ranking_id, item_id) → item type, of the slates shown in the period."""
    touched: dict[tuple[str, str], Mapping[str, int]] = field(default_factory=dict)
    """Interactions by type, of those impressions that had any."""
    slate_count: int = 0
    sessions: dict[str, datetime] = field(default_factory=dict)
    """Stated sessions of the user that began in the period, by id, with their start."""
    stated: set[str] = field(default_factory=set)
    """Those of the sessions that the interactions name which anybody stated, whenever."""
    slate_types: dict[tuple[str, str], str] = field(default_factory=dict)
    """(ranking_id, item_id) → item type, of slates that interactions name and that were not shown to the user in the period."""
    catalogue_types: dict[str, str] = field(default_factory=dict)
    """What the catalogue says of items whose type nothing else says."""


async def read_history(mongo: Mongo, user_id: str, period: Period) -> UserHistory:
    """Reads by the user's indexes alone."""
    history = UserHistory()
    start = period.start - SESSION_GAP if period.start > datetime.min.replace(tzinfo=period.start.tzinfo) + SESSION_GAP else period.start
    within = {"$gte": period.start, "$lt": period.end}
    query = {"user_id": user_id, "occur_time": {"$gte": start, "$lt": period.end}}
    async for batch in mongo.collection("interactions").batches(query, COLUMNS):
        history.interactions += batch
    async for batch in mongo.collection("slates").batches({"user_id": user_id, "show_time": within}, SLATE_COLUMNS):
        history.slate_count += len(batch)
        history.impressions |= _types_of(batch)
        ranking_ids = [slate["_id"] for slate in batch]
        async for found in mongo.collection("attributions").batches({"ranking_id": {"$in": ranking_ids}}, {"counts": 1}):
            history.touched |= {(one["_id"]["ranking_id"], one["_id"]["item_id"]): one["counts"] for one in found}
    async for batch in mongo.collection("sessions").batches({"user_id": user_id, "start_time": within}, {"start_time": 1}):
        history.sessions |= {session["_id"]: session["start_time"] for session in batch}
    named = {entry["session_id"] for entry in history.interactions if "session_id" in entry}
    if named:
        async for batch in mongo.collection("sessions").batches({"_id": {"$in": sorted(named)}}, {"_id": 1}):
            history.stated |= {session["_id"] for session in batch}
    elsewhere = {entry["ranking_id"] for entry in history.interactions if "ranking_id" in entry and not _stated_type(entry, history)}
    if elsewhere:
        async for batch in mongo.collection("slates").batches({"_id": {"$in": sorted(elsewhere)}}, SLATE_COLUMNS):
            history.slate_types |= _types_of(batch)
    untyped = {entry["item_id"] for entry in history.interactions if not _stated_type(entry, history)}
    if untyped:
        items = mongo.collection("items")
        async for batch in items.batches({"_id": {"$in": sorted(untyped)}}, {"item_type": 1}):
            history.catalogue_types |= {item["_id"]: item["item_type"] for item in batch}
    return history


def user_stats(user_id: str, history: UserHistory, period: Period) -> UserStats:
    """The figures, each by its definition."""
    inside = [entry for entry in history.interactions if entry["occur_time"] >= period.start]
    counts: dict[str, int] = defaultdict(int)
    label_by_type: dict[str, float] = defaultdict(float)
    for entry in inside:
        counts[entry["type"]] += 1
        item_type = _stated_type(entry, history) or history.catalogue_types.get(entry["item_id"], "")
        if item_type:
            label_by_type[item_type] += entry["label"]
    label_sum = sum(entry["label"] for entry in inside)
    typed_sum = sum(label_by_type.values())
    shown = {impression: types for impression, types in history.touched.items() if impression in history.impressions}
    stats = UserStats(
        user_id=user_id,
        interaction_count=len(inside),
        counts=counts,
        type_preferences={name: label / typed_sum for name, label in label_by_type.items() if label > 0} if typed_sum else {},
        click_through_rate=ratio(counts.get("click", 0), counts.get("view", 0)),
        implementation_rate=ratio(counts.get("implement", 0), counts.get("click", 0)),
        click_through_rate_interval=wilson_of_ratio(counts.get("click", 0), counts.get("view", 0)),
        implementation_rate_interval=wilson_of_ratio(counts.get("implement", 0), counts.get("click", 0)),
        avg_engagement=ratio(label_sum, len(inside)),
        impression_count=len(history.impressions),
        clicked_impression_count=sum("click" in types for types in shown.values()),
        dismissed_impression_count=sum("dismiss" in types for types in shown.values()),
        slate_count=history.slate_count,
        session_count=len(history.sessions) + inferred_sessions(history.interactions, history.stated, period),
    )
    if inside:
        stats.last_interaction_time.CopyFrom(to_timestamp(max(entry["occur_time"] for entry in inside)))
    return stats


def inferred_sessions(interactions: Iterable[Document], stated: Container[str], period: Period) -> int:
    """Sessions that nobody stated and that began in the period: interactions of one `session_id` without a gap of 30 minutes."""
    moments: dict[str, list[datetime]] = defaultdict(list)
    for entry in interactions:
        session_id = entry.get("session_id")
        if session_id and session_id not in stated:
            moments[session_id].append(entry["occur_time"])
    return sum(start >= period.start for of_one in moments.values() for start in _starts(sorted(of_one)))


def _starts(moments: Sequence[datetime]) -> list[datetime]:
    return [moment for index, moment in enumerate(moments) if index == 0 or moment - moments[index - 1] > SESSION_GAP]


def _stated_type(entry: Document, history: UserHistory) -> str:
    impression = (entry.get("ranking_id", ""), entry["item_id"])
    return entry.get("item_type") or history.impressions.get(impression) or history.slate_types.get(impression, "")


def _types_of(slates: Iterable[Document]) -> dict[tuple[str, str], str]:
    return {(slate["_id"], item["item_id"]): item["item_type"] for slate in slates for item in slate["items"]}
