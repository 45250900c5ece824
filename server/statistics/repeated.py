"""Clicks and impressions by user, where rates are to say how sure they are though users repeat."""

from __future__ import annotations

from collections import defaultdict

from collector.batch import slate_cell
from collector.tally import DIMENSIONS
from runtime.mongo import Mongo
from server.statistics.period import Period

SLATE_COLUMNS = {
    "user_id": 1,
    "algorithm": 1,
    "model_version": 1,
    "experiment_id": 1,
    "variant_id": 1,
    "surface": 1,
    "items.item_id": 1,
    "items.position": 1,
    "items.tier": 1,
}
SLATES_AT_ONCE = 500

ByUser = dict[str, tuple[int, int]]
"""(clicked impressions, impressions) of each user."""


async def clicks_by_user(mongo: Mongo, grouping: tuple[str, ...], period: Period) -> dict[tuple[str, ...], ByUser]:
    """By group, of the slates shown in the period, one by one."""
    indexes = [DIMENSIONS.index(dimension) for dimension in grouping]
    groups: dict[tuple[str, ...], ByUser] = defaultdict(dict)
    query = {"show_time": {"$gte": period.start, "$lt": period.end}, "pending": {"$exists": False}}
    async for slates in mongo.collection("slates").batches(query, SLATE_COLUMNS, batch_size=SLATES_AT_ONCE):
        clicked: set[tuple[str, str]] = set()
        touched = {"ranking_id": {"$in": [slate["_id"] for slate in slates]}, "counts.click": {"$gt": 0}}
        async for found in mongo.collection("attributions").batches(touched, {"_id": 1}):
            clicked.update((one["_id"]["ranking_id"], one["_id"]["item_id"]) for one in found)
        for slate in slates:
            of_slate = slate_cell(slate)
            for item in slate["items"]:
                cell = (*of_slate, str(item["position"]), item.get("tier", ""))
                by_user = groups[tuple([cell[index] for index in indexes])]
                clicks, impressions = by_user.get(slate["user_id"], (0, 0))
                by_user[slate["user_id"]] = clicks + ((slate["_id"], item["item_id"]) in clicked), impressions + 1
    return groups
