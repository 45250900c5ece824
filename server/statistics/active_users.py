"""The most active users."""

from __future__ import annotations

from collections.abc import Sequence

from rankloop.v1 import stats_pb2 as pb
from runtime.errors import InvalidInput
from runtime.mongo import Document, Mongo
from runtime.timestamps import to_timestamp
from server.statistics.period import Period

MOST_USERS = 100_000
"""Users that can be paged through."""
ORDERS = {pb.USER_ORDER_INTERACTIONS: "interactions", pb.USER_ORDER_ACTIVE_DAYS: "days"}


def user_order(wanted: int) -> str:
    """What to order by.

    Raises:
        InvalidInput: there is no such order.
    """
    if wanted == pb.USER_ORDER_UNSPECIFIED:
        return "interactions"
    if wanted not in ORDERS:
        known = ", ".join(pb.UserOrder.Name(pb.UserOrder.ValueType(one)) for one in ORDERS)
        raise InvalidInput.of("order_by", "INVALID", f"is not an order of users; known ones: {known}")
    return ORDERS[pb.UserOrder.ValueType(wanted)]


async def ranked_users(mongo: Mongo, order: str, period: Period) -> list[Document]:
    """Users with `_id`, `interactions`, `days`, `labels` (their sum) and `last`, the most active first. The database sums up."""
    query = {"occur_time": {"$gte": period.start, "$lt": period.end}, "pending": {"$exists": False}}
    counted = {"interactions": {"$sum": 1}, "labels": {"$sum": "$label"}, "last": {"$max": "$occur_time"}}
    day = {"$dateTrunc": {"date": "$occur_time", "unit": "day"}}
    per_user = {"interactions": {"$sum": "$interactions"}, "labels": {"$sum": "$labels"}, "last": {"$max": "$last"}, "days": {"$sum": 1}}
    pipeline: list[Document] = [
        {"$match": query},
        {"$group": {"_id": {"user": "$user_id", "day": day}, **counted}},
        {"$group": {"_id": "$_id.user", **per_user}},
        {"$sort": {order: -1, "_id": 1}},
        {"$limit": MOST_USERS},
    ]
    ranked: list[Document] = []
    async for batch in mongo.collection("interactions").aggregate_batches(pipeline):
        ranked += batch
    return ranked


def page_of(ranked: Sequence[Document], order: str, last: tuple[int, str] | None, limit: int) -> tuple[list[Document], bool]:
    """What follows `last`, at most `limit`, and whether there is more."""
    following = ranked if last is None else [one for one in ranked if (-one[order], one["_id"]) > (-last[0], last[1])]
    return list(following[:limit]), len(following) > limit


def active_user(found: Document) -> pb.ActiveUser:
    """Its figures."""
    return pb.ActiveUser(
        user_id=found["_id"],
        interaction_count=found["interactions"],
        active_day_count=found["days"],
        avg_engagement=found["labels"] / found["interactions"],
        last_interaction_time=to_timestamp(found["last"]),
    )
