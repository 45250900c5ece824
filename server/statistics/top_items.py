"""The best items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rankloop.v1 import stats_pb2 as pb
from runtime.errors import InvalidInput
from runtime.mongo import Mongo
from server.statistics.counted import Counted
from server.statistics.figures import label_sum, outcome_value
from server.statistics.intervals import wilson_low
from server.statistics.items import item_stats
from server.statistics.period import Period

Scored = tuple[float, str]
"""What it is ordered by, and the item."""


def _clicks(counters: Mapping[str, int]) -> float:
    return counters.get("type_click", 0)


def _ctr(counters: Mapping[str, int]) -> float:
    return wilson_low(counters.get("clicked", 0), counters.get("impressions", 0))


def _label(counters: Mapping[str, int]) -> float:
    return wilson_low(label_sum(counters), counters.get("interactions", 0))


ORDERS: Mapping[int, tuple[tuple[str, ...], Callable[[Mapping[str, int]], float]]] = {
    pb.ITEM_ORDER_CLICKS: (("type_click",), _clicks),
    pb.ITEM_ORDER_CTR: (("clicked", "impressions"), _ctr),
    pb.ITEM_ORDER_LABEL: (("label_nanos", "interactions"), _label),
    pb.ITEM_ORDER_OUTCOME: (("outcomes", "outcome_units", "outcome_nanos"), outcome_value),
    pb.ITEM_ORDER_IMPRESSIONS: (("impressions",), lambda counters: counters.get("impressions", 0)),
    pb.ITEM_ORDER_INTERACTIONS: (("interactions",), lambda counters: counters.get("interactions", 0)),
}
"""The counters that an order needs, and what it makes of them."""


def item_order(wanted: int) -> int:
    """What to order by.

    Raises:
        InvalidInput: there is no such order.
    """
    if wanted == pb.ITEM_ORDER_UNSPECIFIED:
        return pb.ITEM_ORDER_CLICKS
    if wanted not in ORDERS:
        known = ", ".join(pb.ItemOrder.Name(pb.ItemOrder.ValueType(one)) for one in ORDERS)
        raise InvalidInput.of("order_by", "INVALID", f"is not an order of items; known ones: {known}")
    return wanted


async def ranked_items(mongo: Mongo, counted: Counted, order: int, item_type: str, period: Period) -> list[Scored]:
    """Every item that has something to show for itself, best first."""
    names, score = ORDERS[order]
    sums = await counted.sums("item", names, period)
    if item_type:
        of_type: set[str] = set()
        async for batch in mongo.collection("items").batches({"item_type": item_type}, {"_id": 1}):
            of_type.update(item["_id"] for item in batch)
        sums = {item_id: counters for item_id, counters in sums.items() if item_id in of_type}
    if order == pb.ITEM_ORDER_OUTCOME:
        scored = [(score(counters), item_id) for item_id, counters in sums.items() if counters.get("outcomes")]
    else:
        scored = [(value, item_id) for item_id, counters in sums.items() if (value := score(counters)) > 0]
    return sorted(scored, key=lambda one: (-one[0], one[1]))


def page_of(ranked: Sequence[Scored], last: Scored | None, limit: int) -> tuple[list[Scored], bool]:
    """What follows `last`, at most `limit`, and whether there is more."""
    following = ranked if last is None else [one for one in ranked if (-one[0], one[1]) > (-last[0], last[1])]
    return list(following[:limit]), len(following) > limit


async def top_items(counted: Counted, page: Sequence[Scored], period: Period) -> list[pb.TopItem]:
    """The page with all figures."""
    counters = await counted.of_keys("item", [item_id for _, item_id in page], period)
    return [pb.TopItem(stats=item_stats(item_id, counters[item_id]), score=score) for score, item_id in page]
