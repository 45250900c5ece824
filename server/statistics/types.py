"""What became of recommendations, by item type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from rankloop.v1 import stats_pb2 as pb
from runtime.timestamps import to_duration
from server.statistics.counted import Counted
from server.statistics.figures import Counters, ratio
from server.statistics.intervals import wilson, wilson_of_ratio
from server.statistics.period import Period
from server.statistics.times import Times

MOST_POINTS = 200
"""Drop-off points per type in an answer."""
MOST_SUMMARIES = 20
SHARES = (0.5, 0.9)
"""Median and p90."""


async def type_metrics(counted: Counted, times: Times, period: Period, wanted: Collection[str]) -> list[pb.TypeMetrics]:
    """One row per type that was shown, most impressions first; of `wanted` alone, if there are any."""
    revisions = await counted.revisions("type", period)
    by_type = await counted.by_key("type", period)
    points: dict[str, dict[str, int]] = defaultdict(dict)
    for key, counters in (await counted.by_key("dropoff", period)).items():
        if counters.get("impressions"):
            points[key[0]][key[1]] = counters["impressions"]
    measured = await times.quantiles(period, revisions, SHARES)
    rows = [
        type_row(str(key), counters, points.get(str(key), {}), {name: of_all.get(str(key), ()) for name, of_all in measured.items()})
        for key, counters in by_type.items()
        if counters.get("impressions") and (not wanted or key in wanted)
    ]
    return sorted(rows, key=lambda row: (-row.total_shown, row.item_type))


def type_row(item_type: str, counters: Counters, points: Mapping[str, int], measured: Mapping[str, Sequence[float]]) -> pb.TypeMetrics:
    """The figures of one type. `points` are impressions by drop-off point, `measured` median and p90 of times, in milliseconds."""

    def count(name: str) -> int:
        return counters.get(name, 0)

    shown, acted, completed, finished = count("impressions"), count("acted"), count("completed"), count("finished")
    named = sorted(points.items(), key=lambda one: (-one[1], one[0]))[:MOST_POINTS]
    row = pb.TypeMetrics(
        item_type=item_type,
        total_shown=shown,
        acted_count=acted,
        ignored_count=count("ignored"),
        untouched_count=count("untouched"),
        completion_rate=ratio(completed, acted),
        dropoff_rates={point: impressions / finished for point, impressions in named},
        completed_count=completed,
        completion_rate_interval=wilson_of_ratio(completed, acted),
        finished_count=finished,
        dropoff_counts=dict(named),
        acted_rate=ratio(acted, shown),
        acted_rate_interval=wilson(acted, shown),
        viewed_count=count("viewed"),
        clicked_impression_count=count("clicked"),
        ctr=ratio(count("clicked"), shown),
        ctr_interval=wilson(count("clicked"), shown),
        implement_count=count("implements"),
        dismiss_count=count("dismissals"),
    )
    for point, impressions in named:
        if (interval := wilson(impressions, finished)) is not None:
            row.dropoff_intervals[point].CopyFrom(interval)
    if acted:
        row.avg_time_to_action.CopyFrom(to_duration(count("action_milliseconds") / 1000 / acted))
    if completed:
        row.avg_time_to_completion.CopyFrom(to_duration(count("completion_milliseconds") / 1000 / completed))
    for name in ("action", "completion"):
        if found := measured.get(name):
            getattr(row, f"median_time_to_{name}").CopyFrom(to_duration(found[0] / 1000))
            getattr(row, f"p90_time_to_{name}").CopyFrom(to_duration(found[1] / 1000))
    return row


async def type_summaries(counted: Counted, period: Period) -> list[pb.TypeSummary]:
    """The lifecycles of the types with most impressions."""
    rows = [
        pb.TypeSummary(
            item_type=str(key),
            total_shown=counters["impressions"],
            acted_count=counters.get("acted", 0),
            ignored_count=counters.get("ignored", 0),
            untouched_count=counters.get("untouched", 0),
        )
        for key, counters in (await counted.by_key("type", period)).items()
        if counters.get("impressions")
    ]
    return sorted(rows, key=lambda row: (-row.total_shown, row.item_type))[:MOST_SUMMARIES]
