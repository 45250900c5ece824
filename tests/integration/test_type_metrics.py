"""Lifecycles by item type on a real MongoDB against a recount in plain Python."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from collector.commit import CommitLimits
from collector.fold import FoldWorker
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.rebuild import rebuild
from collector.settings import LabelSettings
from collector.tracking import Tracking
from rankloop.v1 import stats_pb2
from rankloop.v1.tracking_pb2 import Interaction
from runtime.errors import InvalidInput
from runtime.lease import Lease
from runtime.mongo import Mongo
from runtime.schema import migrate
from runtime.settings import MongoSettings
from runtime.timestamps import to_timestamp
from server.statistics.statistics import Statistics
from server.statistics.times import COLUMNS
from tests.integration.measured import FIRST, LAST, NOW, between, clock, periods, same, store
from tests.recount import Sent, traffic
from tests.recount_types import type_metrics


class Silent:
    def step(self, description: str, total: int | None = None) -> None: ...

    def advance(self, count: int) -> None: ...


async def agrees(statistics: Statistics, sent: Sent, start: object, end: object) -> None:
    request = between(stats_pb2.GetTypeMetricsRequest(), start, end)  # type: ignore[arg-type]
    answer = await statistics.types(request)
    expected = type_metrics(sent, start, end)  # type: ignore[arg-type]
    assert {row.item_type for row in answer.types} == expected.keys()
    assert [row.total_shown for row in answer.types] == sorted((row.total_shown for row in expected.values()), reverse=True)
    for row in answer.types:
        same(row, expected[row.item_type])
        assert row.total_shown == row.acted_count + row.ignored_count + row.untouched_count


async def test_lifecycles_over_any_period_equal_a_recount(mongo_both: Mongo) -> None:
    sent = traffic(70, first=FIRST, last=LAST, interactions=400)
    await store(mongo_both, sent, seed=71)
    statistics = Statistics(mongo_both, Combination.MAX, clock)
    for start, end in periods(72, 12):
        await agrees(statistics, sent, start, end)


async def test_a_late_act_and_a_rebuild_are_seen_though_days_are_remembered(mongo: Mongo) -> None:
    sent = traffic(80, first=FIRST, last=LAST, slates=12, interactions=80)
    await store(mongo, sent, seed=81)
    statistics = Statistics(mongo, Combination.MAX, clock)
    whole = FIRST - timedelta(days=1), LAST + timedelta(days=1)
    await agrees(statistics, sent, *whole)
    late = []
    for number, slate in enumerate(sent.slates):
        one = Interaction(event_id=f"late{number}", user_id="u", item_id=slate.items[0].item_id, ranking_id=slate.ranking_id, type="like")
        one.occur_time.CopyFrom(to_timestamp(slate.show_time.ToDatetime() + timedelta(milliseconds=1)))
        late.append(one)
    limits = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)
    await Tracking(mongo, Ledger.open(mongo, limits), Quarantine(mongo), LabelSettings().policy(), clock).track(late)
    lease = Lease(mongo, "fold", "late", 600, clock)
    assert await lease.claim()
    worker = FoldWorker(mongo, lease, Combination.MAX, batch_entries=100, poll_seconds=0.01)
    while await worker.fold_once():
        pass
    sent.interactions += late
    await agrees(statistics, sent, *whole)
    await lease.release()
    await rebuild(mongo, Lease(mongo, "fold", "rebuild", 600, clock), Combination.MAX, Silent())
    await agrees(statistics, sent, *whole)
    await agrees(Statistics(mongo, Combination.MAX, clock), sent, *whole)


async def test_days_add_up_and_the_order_of_arrival_changes_nothing(mongo: Mongo, mongo_settings: MongoSettings) -> None:
    sent = traffic(85, first=FIRST, last=LAST, slates=15, interactions=120)
    await store(mongo, sent, seed=86)
    cuts = [FIRST, datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 2, 29, 13, 7, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC), LAST]
    statistics = Statistics(mongo, Combination.MAX, clock)
    whole = await lifecycles(statistics, FIRST, LAST)
    parts: dict[str, Counter[str]] = {}
    for since, until in itertools.pairwise(cuts):
        for item_type, row in (await lifecycles(statistics, since, until)).items():
            parts.setdefault(item_type, Counter()).update({name: getattr(row, name) for name in COUNTS})
            parts[item_type].update({f"dropoff {point}": count for point, count in row.dropoff_counts.items()})
    assert parts.keys() == whole.keys()
    for item_type, row in whole.items():
        counts = Counter({name: getattr(row, name) for name in COUNTS})
        counts.update({f"dropoff {point}": count for point, count in row.dropoff_counts.items()})
        assert parts[item_type] == counts
    other = await Mongo.open(mongo_settings.model_copy(update={"database": f"{mongo_settings.database}_other"}))
    try:
        await migrate(other)
        await store(other, sent, seed=87)
        assert await lifecycles(Statistics(other, Combination.MAX, clock), FIRST, LAST) == whole
    finally:
        await other.drop_database()
        await other.close()


COUNTS = ("total_shown", "acted_count", "ignored_count", "untouched_count", "completed_count", "finished_count", "viewed_count")


async def lifecycles(statistics: Statistics, start: datetime, end: datetime) -> dict[str, stats_pb2.TypeMetrics]:
    answer = await statistics.types(between(stats_pb2.GetTypeMetricsRequest(), start, end))
    return {row.item_type: row for row in answer.types}


async def test_times_are_read_from_the_index_alone(mongo: Mongo) -> None:
    plan = await mongo.collection("attributions").explain({"timed.shown": {"$gte": FIRST, "$lt": LAST}}, COLUMNS, hint="timed")
    assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"])
    assert "FETCH" not in str(plan["queryPlanner"]["winningPlan"])


async def test_only_types_asked_for_are_answered(mongo: Mongo) -> None:
    sent = traffic(90, first=FIRST, last=LAST, slates=10, interactions=30)
    await store(mongo, sent, seed=91)
    statistics = Statistics(mongo, Combination.MAX, clock)
    asked = between(stats_pb2.GetTypeMetricsRequest(item_types=["post", "nothing"]), FIRST, LAST)
    assert [row.item_type for row in (await statistics.types(asked)).types] == ["post"]
    for item_types, field in ((["x"] * 65, "item_types"), (["a", ""], "item_types[1]"), (["a" * 257], "item_types[0]")):
        with pytest.raises(InvalidInput) as refusal:
            await statistics.types(stats_pb2.GetTypeMetricsRequest(item_types=item_types))
        assert [one.field for one in refusal.value.violations] == [field]
    empty = await statistics.types(between(stats_pb2.GetTypeMetricsRequest(), NOW, NOW + timedelta(hours=1)))
    assert not empty.types


async def test_another_server_reads_packed_days_and_only_hours_that_changed(mongo: Mongo) -> None:
    sent = traffic(95, first=FIRST, last=LAST, slates=40, interactions=300)
    await store(mongo, sent, seed=96)
    whole = FIRST - timedelta(days=1), LAST + timedelta(days=1)
    await agrees(Statistics(mongo, Combination.MAX, clock), sent, *whole)
    assert await mongo.collection("times").estimated_count() > 0
    # Whoever reads attributions now finds nothing: what is answered comes from the packed days.
    await mongo.collection("attributions").update_many({}, {"$unset": {"timed": ""}})
    await agrees(Statistics(mongo, Combination.MAX, clock), sent, *whole)
    # An hour whose tallies say something else is not believed any more, and read again: now in vain.
    await mongo.collection("tallies").update_many(
        {"_id.scope": "type"}, {"$inc": {f"hours.{hour}.action_milliseconds": 1 for hour in range(24)}}
    )
    answer = await Statistics(mongo, Combination.MAX, clock).types(between(stats_pb2.GetTypeMetricsRequest(), *whole))
    assert answer.types
    assert not any(row.HasField("median_time_to_action") for row in answer.types)
