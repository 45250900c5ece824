"""Figures of slates and their impressions, by groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from collector.attribution import NANOS
from collector.tally import DIMENSIONS, scope_of
from rankloop.v1 import stats_pb2 as pb
from runtime.errors import InvalidInput
from runtime.timestamps import to_duration
from server.statistics.clustered import clustered_wilson
from server.statistics.counted import Counted
from server.statistics.figures import Counters, label_sum, outcome_value, ratio
from server.statistics.intervals import wilson
from server.statistics.period import Period
from server.statistics.repeated import ByUser

MAX_DIMENSIONS = 2

DIMENSION_NAMES: dict[int, str] = {
    pb.DIMENSION_ALGORITHM: "algorithm",
    pb.DIMENSION_MODEL_VERSION: "model_version",
    pb.DIMENSION_VARIANT: "variant",
    pb.DIMENSION_SURFACE: "surface",
    pb.DIMENSION_POSITION: "position",
    pb.DIMENSION_TIER: "tier",
}


def grouping_of(group_by: Sequence[int]) -> tuple[str, ...]:
    """The names of the dimensions asked for, in the order that tallies keep them in.

    Raises:
        InvalidInput: one is unknown or there twice, or there are more than two.
    """
    names: list[str] = []
    for index, dimension in enumerate(group_by):
        name = DIMENSION_NAMES.get(dimension)
        if name is None:
            known = ", ".join(pb.Dimension.Name(pb.Dimension.ValueType(one)) for one in DIMENSION_NAMES)
            raise InvalidInput.of(f"group_by[{index}]", "INVALID", f"is not a dimension; known ones: {known}")
        if name in names:
            raise InvalidInput.of(f"group_by[{index}]", "DUPLICATE", "is there twice")
        names.append(name)
    if len(names) > MAX_DIMENSIONS:
        raise InvalidInput.of("group_by", "TOO_MANY", f"has {len(names)} dimensions; at most {MAX_DIMENSIONS}")
    return tuple(sorted(names, key=DIMENSIONS.index))


async def performance_rows(counted: Counted, grouping: tuple[str, ...], period: Period) -> list[pb.PerformanceRow]:
    """One row per group that has slates, most impressions first."""
    found = await counted.by_key(scope_of(grouping), period)
    rows = [
        performance_row(dict(zip(grouping, key, strict=True)), counters)
        for key, counters in found.items()
        if counters.get("slates", 0) and isinstance(key, tuple)
    ]
    return sorted(rows, key=lambda row: (-row.impression_count, sorted(row.dimensions.items())))


def performance_row(dimensions: dict[str, str], counters: Counters) -> pb.PerformanceRow:
    """The figures of one group from its counters."""

    def count(name: str) -> int:
        return counters.get(name, 0)

    impressions, clicked, implemented = count("impressions"), count("clicked"), count("implements")
    row = pb.PerformanceRow(
        dimensions=dimensions,
        slate_count=count("slates"),
        impression_count=impressions,
        clicked_impression_count=clicked,
        ctr=ratio(clicked, impressions),
        ctr_interval=wilson(clicked, impressions),
        acted_count=count("acted"),
        ignored_count=count("ignored"),
        untouched_count=count("untouched"),
        rated_impression_count=count("rated"),
        rating_rate=ratio(count("rated"), impressions),
        avg_rating=ratio(count("stars_nanos") / NANOS, count("rated")),
        favorite_count=count("favorites"),
        watchlist_count=count("watchlists"),
        save_count=count("saves"),
        implement_count=implemented,
        dismiss_count=count("dismissals"),
        completed_count=count("completed"),
        outcome_value=outcome_value(counters),
        implementation_rate=ratio(implemented, impressions),
        implementation_rate_interval=wilson(implemented, impressions),
        viewed_count=count("viewed"),
        purchase_count=count("purchases"),
        application_count=count("applications"),
        rating_rate_interval=wilson(count("rated"), impressions),
        avg_diversity=ratio(count("diversity_nanos") / NANOS, count("varied")),
        varied_slate_count=count("varied"),
        outcome_count=count("outcomes"),
    )
    if completed := count("completed"):
        row.avg_time_to_completion.CopyFrom(to_duration(count("completion_milliseconds") / 1000 / completed))
    if acted := count("acted"):
        row.avg_time_to_action.CopyFrom(to_duration(count("action_milliseconds") / 1000 / acted))
    if touched := count("touched"):
        row.quality_score = 100 * label_sum(counters) / touched
    return row


def add_clustered(rows: Sequence[pb.PerformanceRow], grouping: tuple[str, ...], found: Mapping[tuple[str, ...], ByUser]) -> None:
    """Adds what takes users for the unit."""
    for row in rows:
        by_user = found.get(tuple(row.dimensions[name] for name in grouping), {})
        row.user_count = len(by_user)
        if (interval := clustered_wilson(by_user.values())) is not None:
            row.ctr_clustered_interval.CopyFrom(interval)
