"""Figures of one item."""

from __future__ import annotations

from rankloop.v1.stats_pb2 import ItemStats
from server.statistics.figures import Counters, label_sum, outcome_value, ratio, type_counts
from server.statistics.intervals import wilson, wilson_of_ratio


def item_stats(item_id: str, counters: Counters) -> ItemStats:
    """The figures of an item from its counters over a period."""
    counts = type_counts(counters)
    interactions, impressions, clicked = (counters.get(name, 0) for name in ("interactions", "impressions", "clicked"))
    return ItemStats(
        item_id=item_id,
        interaction_count=interactions,
        counts=counts,
        click_through_rate=ratio(counts.get("click", 0), counts.get("view", 0)),
        implementation_rate=ratio(counts.get("implement", 0), counts.get("click", 0)),
        click_through_rate_interval=wilson_of_ratio(counts.get("click", 0), counts.get("view", 0)),
        implementation_rate_interval=wilson_of_ratio(counts.get("implement", 0), counts.get("click", 0)),
        avg_label=ratio(label_sum(counters), interactions),
        impression_count=impressions,
        clicked_impression_count=clicked,
        ctr=ratio(clicked, impressions),
        ctr_interval=wilson(clicked, impressions),
        avg_position=ratio(counters.get("positions", 0), impressions),
        outcome_value=outcome_value(counters),
    )
