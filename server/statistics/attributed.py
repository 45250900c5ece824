"""Outcomes as the ledger has them, with the slate that earned each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from collector.entries import mapping
from rankloop.v1 import stats_pb2 as pb
from runtime.mongo import Document, Mongo
from runtime.timestamps import EPOCH
from server.statistics.funnel import APPLICATION, ImpressionId, furthest_stage
from server.statistics.outcomes import Earned, Result
from server.statistics.period import Period

SLATE_COLUMNS = {"algorithm": 1, "show_time": 1, "user_id": 1, "items.item_id": 1, "items.tier": 1}
AT_ONCE = 500

Item = TypeVar("Item")


async def read_results(mongo: Mongo, period: Period, types: Iterable[str] = ()) -> list[Result]:
    """Outcomes that occurred in the period, of these types or of all."""
    query: Document = {"occur_time": {"$gte": period.start, "$lt": period.end}, "pending": {"$exists": False}}
    if wanted := sorted(types):
        query["type"] = {"$in": wanted}
    found: list[Result] = []
    async for batch in mongo.collection("outcomes").batches(query, {"digest": 0}):
        found += [_result(document) for document in batch]
    return found


async def add_costs(mongo: Mongo, results: Sequence[Result]) -> None:
    """Tells outcomes that do not say it themselves what the catalogue says their items cost."""
    untold = [one for one in results if one.item_id and one.cost is None]
    costs: dict[str, float] = {}
    for ids in _parts(sorted({one.item_id for one in untold})):
        for item in await mongo.collection("items").find({"_id": {"$in": ids}}, {"numbers.cost": 1}, limit=len(ids)):
            if (cost := item.get("numbers", {}).get("cost")) is not None:
                costs[item["_id"]] = cost
    for one in untold:
        one.item_cost = costs.get(one.item_id)


async def add_slates(mongo: Mongo, results: Sequence[Result], rule: int, window: timedelta) -> None:
    """Tells outcomes the slate that earned them."""
    named = sorted({one.ranking_id for one in results if one.ranking_id})
    slates: dict[str, Document] = {}
    for ids in _parts(named):
        async for batch in mongo.collection("slates").batches({"_id": {"$in": ids}, "pending": {"$exists": False}}, SLATE_COLUMNS):
            slates |= {slate["_id"]: slate for slate in batch}
    for one in results:
        slate = slates.get(one.ranking_id)
        # A caller's clock may put the outcome before its slate, where it names it.
        if slate is not None and one.occur_time - slate["show_time"] <= window:
            one.earned = _earned(slate, one.item_id)
    if rule == pb.ATTRIBUTION_RULE_LAST_SHOWN:
        await _add_last_shown(mongo, [one for one in results if one.item_id and not one.ranking_id], window)


async def _add_last_shown(mongo: Mongo, results: Sequence[Result], window: timedelta) -> None:
    by_user: dict[str, list[Result]] = defaultdict(list)
    for one in results:
        by_user[one.user_id].append(one)
    for users in _parts(sorted(by_user)):
        some = [one for user_id in users for one in by_user[user_id]]
        first, last = min(one.occur_time for one in some), max(one.occur_time for one in some)
        query = {
            "user_id": {"$in": users},
            "show_time": {"$gte": _before(first, window), "$lte": last},
            "items.item_id": {"$in": sorted({one.item_id for one in some})},
            "pending": {"$exists": False},
        }
        shown: dict[ImpressionId, list[Document]] = defaultdict(list)
        async for batch in mongo.collection("slates").batches(query, SLATE_COLUMNS):
            for slate in batch:
                for item in slate["items"]:
                    shown[slate["user_id"], item["item_id"]].append(slate)
        for one in some:
            within = [
                slate
                for slate in shown.get((one.user_id, one.item_id), ())
                if slate["show_time"] <= one.occur_time <= slate["show_time"] + window
            ]
            if within:
                one.earned = _earned(max(within, key=lambda slate: (slate["show_time"], slate["_id"])), one.item_id)


async def applications(
    mongo: Mongo, period: Period, rule: int, window: timedelta
) -> tuple[dict[ImpressionId, tuple[str, int]], set[ImpressionId]]:
    """Of the impressions shown in the period that applications were attributed to: tier and furthest stage; and which have an `apply`."""
    until = datetime.max.replace(tzinfo=period.end.tzinfo)
    end = period.end + window if period.end < until - window else until
    results = await read_results(mongo, Period(_before(period.start, timedelta(days=2)), end), [APPLICATION])
    await add_slates(mongo, results, rule, window)
    furthest: dict[ImpressionId, tuple[str, int]] = {}
    for one in results:
        if one.earned is not None and one.earned.tier is not None and period.start <= one.earned.show_time < period.end:
            impression = (one.earned.ranking_id, one.item_id)
            stage = furthest_stage(one.attributes.get("result", ""))
            furthest[impression] = one.earned.tier, max(stage, furthest.get(impression, ("", 0))[1])
    applied: set[ImpressionId] = set()
    for some in _parts(sorted(furthest)):
        ids = [{"ranking_id": ranking_id, "item_id": item_id} for ranking_id, item_id in some]
        query = {"_id": {"$in": ids}, "counts.apply": {"$gt": 0}}
        for found in await mongo.collection("attributions").find(query, {"_id": 1}, limit=len(ids)):
            applied.add((found["_id"]["ranking_id"], found["_id"]["item_id"]))
    return furthest, applied


def _result(document: Document) -> Result:
    return Result(
        event_id=document["_id"],
        user_id=document["user_id"],
        type=document["type"],
        before=document.get("before_value"),
        value=document.get("value"),
        item_id=document.get("item_id", ""),
        ranking_id=document.get("ranking_id", ""),
        occur_time=document["occur_time"],
        attributes=mapping(document.get("attributes", [])),
    )


def _earned(slate: Document, item_id: str) -> Earned:
    tiers = [item.get("tier", "") for item in slate["items"] if item["item_id"] == item_id]
    return Earned(
        ranking_id=slate["_id"],
        algorithm=slate.get("algorithm", ""),
        show_time=slate["show_time"],
        tier=tiers[0] if tiers else None,
    )


def _before(moment: datetime, span: timedelta) -> datetime:
    """So much earlier, or the beginning of time."""
    beginning = datetime.min.replace(tzinfo=EPOCH.tzinfo)
    return moment - span if moment - beginning > span else beginning


def _parts(items: Sequence[Item]) -> Iterator[list[Item]]:
    for place in range(0, len(items), AT_ONCE):
        yield list(items[place : place + AT_ONCE])
