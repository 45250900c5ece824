"""Lifecycles by item type once more, from what was sent, in plain Python."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from rankloop.v1 import stats_pb2 as stats
from tests.recount import Impression, Sent, rate, time_to_action, time_to_completion, wilson


def type_metrics(sent: Sent, start: datetime, end: datetime) -> dict[str, stats.TypeMetrics]:
    """By type."""
    by_type: dict[str, list[Impression]] = {}
    for impression in sent.impressions(start, end):
        if item_type := impression.item.item_type or sent.catalogue.get(impression.item.item_id, ""):
            by_type.setdefault(item_type, []).append(impression)
    return {item_type: of_type(item_type, impressions) for item_type, impressions in by_type.items()}


def of_type(item_type: str, impressions: Sequence[Impression]) -> stats.TypeMetrics:
    """Of one type."""
    shown = len(impressions)
    acted = [one for one in impressions if one.acts]
    untouched = sum(not one.interactions for one in impressions)
    completed = [one for one in impressions if one.has("complete")]
    finished = [one for one in impressions if one.has("complete") or one.has("abandon")]
    last_points = [
        [entry for entry in one.interactions if entry.type == "abandon"][-1].dropoff_point for one in finished if one.has("abandon")
    ]
    points = Counter(point for point in last_points if point)
    clicked = sum(one.has("click") for one in impressions)
    row = stats.TypeMetrics(
        item_type=item_type,
        total_shown=shown,
        acted_count=len(acted),
        ignored_count=shown - len(acted) - untouched,
        untouched_count=untouched,
        completion_rate=rate(len(completed), len(acted)),
        completion_rate_interval=wilson(len(completed), len(acted)),
        completed_count=len(completed),
        finished_count=len(finished),
        dropoff_rates={point: count / len(finished) for point, count in points.items()},
        dropoff_counts=points,
        acted_rate=rate(len(acted), shown),
        acted_rate_interval=wilson(len(acted), shown),
        viewed_count=sum(one.has("view") for one in impressions),
        clicked_impression_count=clicked,
        ctr=rate(clicked, shown),
        ctr_interval=wilson(clicked, shown),
        implement_count=sum(one.has("implement") for one in impressions),
        dismiss_count=sum(one.has("dismiss") for one in impressions),
    )
    for point, count in points.items():
        row.dropoff_intervals[point].CopyFrom(wilson(count, len(finished)) or stats.Interval())
    for name, waits in (("action", sorted(map(time_to_action, acted))), ("completion", sorted(map(time_to_completion, completed)))):
        if waits:
            getattr(row, f"avg_time_to_{name}").FromTimedelta(sum(waits, timedelta(0)) / len(waits))
            getattr(row, f"median_time_to_{name}").FromTimedelta(between(waits, 0.5))
            getattr(row, f"p90_time_to_{name}").FromTimedelta(between(waits, 0.9))
    return row


def between(values: Sequence[timedelta], share: float) -> timedelta:
    """The quantile of sorted values, on the line between its neighbours."""
    place = share * (len(values) - 1)
    below, above = values[math.floor(place)], values[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))
