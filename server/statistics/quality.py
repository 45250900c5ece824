"""How varied slates are, and how much of the catalogue they show."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from collector.attribution import NANOS
from collector.tally import scope_of
from rankloop.v1 import stats_pb2 as pb
from runtime.mongo import Document, Mongo
from runtime.timestamps import to_timestamp
from server.statistics.counted import Counted
from server.statistics.figures import ratio
from server.statistics.intervals import wilson
from server.statistics.period import Period

COLD_SPAN = timedelta(days=30)
MOST_DAYS = 92

Group = tuple[str | None, datetime | None]
"""Algorithm (None: all) and day (None: the period)."""


@dataclass(slots=True)
class Exposure:
    """What is known of a period."""

    catalogue: frozenset[str]
    shown: dict[Group, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """Impressions by item."""
    slates: dict[Group, Mapping[str, int]] = field(default_factory=dict)
    """Counters of slates."""
    interactions: Mapping[str, int] = field(default_factory=dict)
    """Interactions of the period by item."""
    warm: Mapping[datetime | None, Collection[str]] = field(default_factory=dict)
    """Items with an interaction in the 30 days before the period (None) and before each day."""


async def read_exposure(mongo: Mongo, counted: Counted, period: Period, *, by_algorithm: bool, by_day: bool) -> Exposure:
    """Everything that quality is made of."""
    exposure = Exposure(await _catalogue(mongo))
    by_item = await counted.by_key_and_day("item", period) if by_day else {None: await counted.sums("item", ("impressions",), period)}
    for day, items in by_item.items():
        for item_id, counters in items.items():
            if count := counters.get("impressions", 0):
                _show(exposure, None, day, str(item_id), count)
    grouping = ("algorithm",) if by_algorithm else ()
    of_slates = await counted.by_key_and_day(scope_of(grouping), period)
    sums: dict[Group, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for day, groups in of_slates.items():
        for key, counters in groups.items():
            for algorithm in {None, key[0] if key else None}:
                for at in (None, day) if by_day else (None,):
                    for name in ("slates", "varied", "diversity_nanos"):
                        sums[algorithm, at][name] += counters.get(name, 0)
    exposure.slates = dict(sums)
    if by_algorithm:
        await _read_algorithms(mongo, exposure, period, by_day=by_day)
    interactions = await counted.sums("item", ("interactions",), period)
    exposure.interactions = {item_id: counters["interactions"] for item_id, counters in interactions.items() if counters["interactions"]}
    exposure.warm = await _warm(counted, period, list(of_slates) if by_day else [])
    return exposure


async def _catalogue(mongo: Mongo) -> frozenset[str]:
    found: list[str] = []
    query = {"item_type": {"$gte": ""}, "deleted": {"$exists": False}}
    async for batch in mongo.collection("items").batches(query, {"_id": 1}, hint="type", batch_size=10_000):
        found += [item["_id"] for item in batch]
    return frozenset(found)


async def _read_algorithms(mongo: Mongo, exposure: Exposure, period: Period, *, by_day: bool) -> None:
    day = {"$dateTrunc": {"date": "$show_time", "unit": "day"}} if by_day else None
    pipeline: list[Document] = [
        {"$match": {"show_time": {"$gte": period.start, "$lt": period.end}, "pending": {"$exists": False}}},
        {"$project": {"a": "$algorithm", "d": day or {"$literal": None}, "i": "$items.item_id"}},
        {"$unwind": "$i"},
        {"$group": {"_id": {"a": "$a", "d": "$d", "i": "$i"}, "n": {"$sum": 1}}},
    ]
    async for batch in mongo.collection("slates").aggregate_batches(pipeline):
        for one in batch:
            _show(exposure, one["_id"].get("a", ""), one["_id"]["d"], one["_id"]["i"], one["n"])


def _show(exposure: Exposure, algorithm: str | None, day: datetime | None, item_id: str, count: int) -> None:
    for at in {None, day}:
        items = exposure.shown[algorithm, at]
        items[item_id] = items.get(item_id, 0) + count


async def _warm(counted: Counted, period: Period, days: Collection[datetime]) -> dict[datetime | None, Collection[str]]:
    """Items with an interaction in the 30 days before the period, and before each of the days."""
    before = await counted.sums("item", ("interactions",), Period(_earlier(period.start), period.start))
    warm: dict[datetime | None, Collection[str]] = {None: {item_id for item_id, counters in before.items() if counters["interactions"]}}
    if days:
        touched: dict[datetime, set[str]] = {}
        reach = Period(_earlier(min(days)), max(days))
        if reach.start < reach.end:
            for day, items in (await counted.by_key_and_day("item", reach)).items():
                touched[day] = {str(item_id) for item_id, counters in items.items() if counters.get("interactions")}
        for day in days:
            warm[day] = {item_id for other, items in touched.items() if day - COLD_SPAN <= other < day for item_id in items}
    return warm


def _earlier(moment: datetime) -> datetime:
    beginning = datetime.min.replace(tzinfo=moment.tzinfo)
    return moment - COLD_SPAN if moment - beginning > COLD_SPAN else beginning


def quality_rows(exposure: Exposure) -> list[pb.SlateQuality]:
    """The period first, then days; in each all algorithms first, then each, most impressions first."""
    rows = [quality_row(exposure, group) for group, items in exposure.shown.items() if items]
    return sorted(
        rows,
        key=lambda row: (
            row.HasField("day_time"),
            row.day_time.seconds,
            not row.total,
            -row.impression_count,
            row.algorithm,
        ),
    )


def quality_row(exposure: Exposure, group: Group) -> pb.SlateQuality:
    """The figures of one group."""
    algorithm, day = group
    items, slates = exposure.shown[group], exposure.slates.get(group, {})
    impressions = sum(items.values())
    shown = len(exposure.catalogue & items.keys())
    universe = len(exposure.catalogue | items.keys())
    warm = exposure.warm.get(day, ())
    cold = sum(count for item_id, count in items.items() if item_id not in warm)
    row = pb.SlateQuality(
        algorithm=algorithm or "",
        total=algorithm is None,
        slate_count=slates.get("slates", 0),
        impression_count=impressions,
        varied_slate_count=slates.get("varied", 0),
        diversity=ratio(slates.get("diversity_nanos", 0) / NANOS, slates.get("varied", 0)),
        shown_catalogue_item_count=shown,
        catalogue_item_count=len(exposure.catalogue),
        coverage=ratio(shown, len(exposure.catalogue)),
        novelty=novelty(items, exposure.interactions, universe),
        gini=gini(list(items.values()), universe),
        cold_impression_count=cold,
        cold_item_share=ratio(cold, impressions),
        cold_item_share_interval=wilson(cold, impressions),
    )
    if day is not None:
        row.day_time.CopyFrom(to_timestamp(day))
    return row


def novelty(shown: Mapping[str, int], interactions: Mapping[str, int], universe: int) -> float | None:
    """Mean over impressions of −log2 p: mean self-information (Vargas and Castells 2011), p smoothed by one interaction per item.

    `universe` counts the items of the catalogue and those shown.
    """
    impressions = sum(shown.values())
    if not impressions:
        return None
    whole = sum(interactions.values()) + universe
    return math.fsum(-count * math.log2((interactions.get(item_id, 0) + 1) / whole) for item_id, count in shown.items()) / impressions


def gini(counts: Collection[int], universe: int) -> float | None:
    """The Gini coefficient of `counts`, and 0 for every other item: Σ (2i − n − 1) xᵢ ÷ (n Σ xᵢ), x ascending, i from 1."""
    total = sum(counts)
    if not total:
        return None
    values = np.sort(np.array(list(counts), dtype=np.float64))
    places = np.arange(universe - len(values) + 1, universe + 1, dtype=np.float64)
    return float(((2 * places - universe - 1) * values).sum() / (universe * total))
