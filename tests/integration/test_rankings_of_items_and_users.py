"""The best items and the most active users, page by page, against a recount in plain Python; and the overview as a stream."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from collector.commit import CommitLimits
from collector.fold import FoldWorker
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.settings import LabelSettings
from collector.tracking import Tracking
from rankloop.v1 import stats_pb2
from rankloop.v1.tracking_pb2 import Interaction
from runtime.errors import InvalidInput
from runtime.lease import Lease
from runtime.mongo import Mongo
from runtime.timestamps import to_timestamp
from server.statistics.statistics import Statistics
from server.statistics.watching import Watching
from tests.integration.measured import FIRST, LAST, between, clock, periods, same, store
from tests.recount import Sent, label, mean, occurred, traffic, wilson

ORDERS = {
    stats_pb2.ITEM_ORDER_UNSPECIFIED: lambda row: row.counts.get("click", 0),
    stats_pb2.ITEM_ORDER_CTR: lambda row: row.ctr_interval.low,
    stats_pb2.ITEM_ORDER_LABEL: lambda row: low(row.avg_label, row.interaction_count),
    stats_pb2.ITEM_ORDER_OUTCOME: lambda row: row.outcome_value,
    stats_pb2.ITEM_ORDER_IMPRESSIONS: lambda row: row.impression_count,
    stats_pb2.ITEM_ORDER_INTERACTIONS: lambda row: row.interaction_count,
}


def low(share: float, trials: int) -> float:
    """The lower end of Wilson's interval, for a sum that is no whole number."""
    interval = wilson(share * trials, trials)  # type: ignore[arg-type]
    return interval.low if interval else 0.0


async def listed(ask: Any, request: Any, field: str) -> list[Any]:
    """Every entry of every page."""
    found: list[Any] = []
    while True:
        answer = await ask(request)
        page = list(getattr(answer, field))
        found += page
        if not answer.next_page_token:
            return found
        assert len(page) == request.page_size
        request.page_token = answer.next_page_token


async def test_the_best_items_equal_a_recount(mongo_both: Mongo) -> None:
    sent = traffic(300, first=FIRST, last=LAST)
    await store(mongo_both, sent, seed=301)
    statistics = Statistics(mongo_both, Combination.MAX, clock)
    items = {item.item_id for slate in sent.slates for item in slate.items} | {one.item_id for one in [*sent.interactions, *sent.outcomes]}
    for start, end in periods(302, 5):
        figures = {item_id: sent.item(item_id, start, end) for item_id in items - {""}}
        outcomes = {one.item_id for one in sent.outcomes if start <= occurred(one) < end}
        for order, score in ORDERS.items():
            request = between(stats_pb2.ListTopItemsRequest(order_by=order, page_size=2), start, end)
            found = await listed(statistics.analyses.top_items, request, "items")
            by_outcome = order == stats_pb2.ITEM_ORDER_OUTCOME
            expected = [row for item_id, row in figures.items() if (item_id in outcomes if by_outcome else score(row) > 1e-12)]
            expected.sort(key=lambda row: (-round(score(row), 9), row.item_id))
            assert [one.stats.item_id for one in found] == [row.item_id for row in expected]
            for one, row in zip(found, expected, strict=True):
                same(one.stats, row)
                assert one.score == pytest.approx(score(row), abs=1e-9)
    asked = between(stats_pb2.ListTopItemsRequest(item_type="kind1", page_size=1000), FIRST, LAST)
    of_type = await listed(statistics.analyses.top_items, asked, "items")
    assert {one.stats.item_id for one in of_type} <= {item_id for item_id, kind in sent.catalogue.items() if kind == "kind1"}
    assert of_type
    await statistics.close()


async def test_the_most_active_users_equal_a_recount(mongo_both: Mongo) -> None:
    sent = traffic(310, first=FIRST, last=LAST)
    await store(mongo_both, sent, seed=311)
    statistics = Statistics(mongo_both, Combination.MAX, clock)
    for (start, end), order in itertools.product(periods(312, 6), (stats_pb2.USER_ORDER_UNSPECIFIED, stats_pb2.USER_ORDER_ACTIVE_DAYS)):
        request = between(stats_pb2.ListActiveUsersRequest(order_by=order, page_size=3), start, end)
        found = await listed(statistics.analyses.active_users, request, "users")
        rows = []
        for user_id in {one.user_id for one in sent.interactions}:
            own = [one for one in sent.interactions if one.user_id == user_id and start <= occurred(one) < end]
            if own:
                rows.append(
                    stats_pb2.ActiveUser(
                        user_id=user_id,
                        interaction_count=len(own),
                        active_day_count=len({occurred(one).date() for one in own}),
                        avg_engagement=mean(map(label, own)),
                        last_interaction_time=to_timestamp(max(map(occurred, own))),
                    )
                )
        rows.sort(key=lambda row: (-(row.active_day_count if order else row.interaction_count), row.user_id))
        assert len(found) == len(rows)
        for one, row in zip(found, rows, strict=True):
            same(one, row)
    await statistics.close()


async def test_pages_of_another_question_and_unknown_orders_are_refused(mongo: Mongo) -> None:
    sent = traffic(320, first=FIRST, last=LAST, slates=5, interactions=40)
    await store(mongo, sent, seed=321)
    analyses = Statistics(mongo, Combination.MAX, clock).analyses
    first = await analyses.top_items(between(stats_pb2.ListTopItemsRequest(page_size=1), FIRST, LAST))
    token = first.next_page_token
    assert token
    refused: list[tuple[Any, Any, str]] = [
        (analyses.top_items, stats_pb2.ListTopItemsRequest(page_token=token), "page_token"),
        (analyses.active_users, between(stats_pb2.ListActiveUsersRequest(page_token=token), FIRST, LAST), "page_token"),
        (analyses.top_items, stats_pb2.ListTopItemsRequest(page_token="x"), "page_token"),
        (analyses.top_items, stats_pb2.ListTopItemsRequest(page_size=1001), "page_size"),
        (analyses.active_users, stats_pb2.ListActiveUsersRequest(page_size=-1), "page_size"),
        (analyses.top_items, stats_pb2.ListTopItemsRequest(order_by=77), "order_by"),  # type: ignore[arg-type]
        (analyses.active_users, stats_pb2.ListActiveUsersRequest(order_by=77), "order_by"),  # type: ignore[arg-type]
        (analyses.top_items, between(stats_pb2.ListTopItemsRequest(), LAST, FIRST), "end_time"),
        (analyses.top_items, stats_pb2.ListTopItemsRequest(item_type="x" * 257), "item_type"),
    ]
    for ask, request, field in refused:
        with pytest.raises(InvalidInput) as refusal:
            await ask(request)
        assert [one.field for one in refusal.value.violations] == [field]


async def test_performance_says_how_sure_it_is_where_users_repeat(mongo: Mongo) -> None:
    sent = traffic(330, first=FIRST, last=LAST)
    await store(mongo, sent, seed=331)
    statistics = Statistics(mongo, Combination.MAX, clock)
    group_by = [stats_pb2.DIMENSION_ALGORITHM, stats_pb2.DIMENSION_POSITION]
    request = between(stats_pb2.GetPerformanceRequest(group_by=group_by, clustered_intervals=True), FIRST, LAST - timedelta(hours=3))
    rows = (await statistics.performance(request)).rows
    assert rows
    for row in rows:
        own = [
            one
            for one in sent.impressions(FIRST, LAST - timedelta(hours=3))
            if (one.slate.algorithm, str(one.position)) == (row.dimensions["algorithm"], row.dimensions["position"])
        ]
        assert row.user_count == len({one.slate.user_id for one in own})
        assert row.ctr_clustered_interval.low <= row.ctr <= row.ctr_clustered_interval.high
        width = row.ctr_clustered_interval.high - row.ctr_clustered_interval.low
        assert width >= row.ctr_interval.high - row.ctr_interval.low - 1e-9, "users repeat, so it is never narrower"


async def test_the_overview_is_told_at_once_and_again_when_it_has_changed(mongo: Mongo) -> None:
    sent = traffic(340, first=FIRST, last=LAST, slates=5, interactions=30)
    await store(mongo, sent, seed=341)
    statistics = Statistics(mongo, Combination.MAX, clock)
    stop = asyncio.Event()
    watching = Watching(statistics, stop)
    request = between(stats_pb2.WatchOverviewRequest(interval=Duration(seconds=1)), FIRST, LAST)
    stream = watching.overview(request)
    async with asyncio.timeout(30):
        first = (await anext(stream)).overview
        assert first == await statistics.overview(between(stats_pb2.GetOverviewRequest(), FIRST, LAST))
        await click(mongo, sent)
        # Perhaps first that an entry is pending, then that it counts.
        while (told := (await anext(stream)).overview).interaction_count == first.interaction_count:
            pass
        assert told.interaction_count == first.interaction_count + 1
        stop.set()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    for name, span in (("interval", Duration(nanos=1)), ("interval", Duration(seconds=61)), ("lifetime", Duration(seconds=3601))):
        with pytest.raises(InvalidInput) as refusal:
            await anext(watching.overview(stats_pb2.WatchOverviewRequest(**{name: span})))  # type: ignore[arg-type]
        assert [one.field for one in refusal.value.violations] == [name]
    with pytest.raises(InvalidInput):
        await anext(watching.overview(between(stats_pb2.WatchOverviewRequest(), LAST, FIRST)))
    await statistics.close()


async def click(mongo: Mongo, sent: Sent) -> None:
    """One more interaction, folded."""
    one = Interaction(event_id="one more", user_id="u", item_id=sent.slates[0].items[0].item_id, type="click")
    one.occur_time.FromDatetime(FIRST.astimezone(UTC))
    limits = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)
    await Tracking(mongo, Ledger.open(mongo, limits), Quarantine(mongo), LabelSettings().policy(), clock).track([one])
    lease = Lease(mongo, "fold", "click", 600, clock)
    assert await lease.claim()
    worker = FoldWorker(mongo, lease, Combination.MAX, batch_entries=100, poll_seconds=0.01)
    while await worker.fold_once():
        pass
    await lease.release()
