"""Statistics on a real MongoDB against a recount in plain Python, over periods that begin and end anywhere."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from collector.commit import CommitLimits
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.settings import LabelSettings
from collector.tracking import Tracking
from rankloop.v1 import stats_pb2
from runtime.mongo import Mongo
from server.statistics.statistics import Statistics
from tests.integration.measured import FIRST, LAST, NOW, between, clock, periods, same, store
from tests.recount import DIMENSIONS, Sent, traffic


async def test_every_figure_over_any_period_equals_a_recount(mongo_both: Mongo) -> None:
    sent = traffic(20, first=FIRST, last=LAST)
    await store(mongo_both, sent, seed=21)
    statistics = Statistics(mongo_both, Combination.MAX, clock)
    items = sorted({item.item_id for slate in sent.slates for item in slate.items})
    users = sorted({slate.user_id for slate in sent.slates})
    for start, end in periods(22, 14):
        item_answer = await statistics.item(between(stats_pb2.GetItemStatsRequest(item_id=items[0]), start, end))
        same(item_answer.stats, sent.item(items[0], start, end))
        assert item_answer.start_time.ToDatetime(tzinfo=UTC) == start
        assert item_answer.end_time.ToDatetime(tzinfo=UTC) == end
        assert item_answer.as_of_time.ToDatetime(tzinfo=UTC) == NOW
        for user_id in users:
            user_answer = await statistics.user(between(stats_pb2.GetUserStatsRequest(user_id=user_id), start, end))
            for name in ("engagement", "engagement_score"):  # test_engagement recounts them
                user_answer.stats.ClearField(name)
            same(user_answer.stats, sent.user(user_id, start, end))
        overview = await statistics.overview(between(stats_pb2.GetOverviewRequest(), start, end))
        inside = [one for one in sent.interactions if start <= one.occur_time.ToDatetime(tzinfo=UTC) < end]
        assert overview.interaction_count == len(inside)
        assert dict(overview.counts) == Counter(one.type for one in inside)
        assert overview.pending_count == 0
        total = sent.performance(start, end).get((), stats_pb2.PerformanceRow())
        same(overview.performance, total)
        await performance_agrees(statistics, sent, start, end, ["algorithm"], ["position", "tier"])
    whole = (FIRST - timedelta(days=1), LAST + timedelta(days=1))
    for item_id in items:
        found = await statistics.item(between(stats_pb2.GetItemStatsRequest(item_id=item_id), *whole))
        same(found.stats, sent.item(item_id, *whole))


async def performance_agrees(statistics: Statistics, sent: Sent, start: datetime, end: datetime, *groupings: Sequence[str]) -> None:
    """Rows by these groupings equal a recount, most impressions first."""
    for names in groupings:
        request = stats_pb2.GetPerformanceRequest(group_by=[DIMENSIONS[name][0] for name in names])
        rows = (await statistics.performance(between(request, start, end))).rows
        expected = sent.performance(start, end, *((name, DIMENSIONS[name][1]) for name in names))
        found = {tuple(row.dimensions[name] for name in names): row for row in rows}
        assert found.keys() == expected.keys()
        assert [row.impression_count for row in rows] == sorted((row.impression_count for row in expected.values()), reverse=True)
        for key, row in found.items():
            same(row, expected[key])


async def test_every_grouping_equals_a_recount(mongo: Mongo) -> None:
    sent = traffic(30, first=FIRST, last=LAST, slates=25, interactions=150)
    await store(mongo, sent, seed=31)
    statistics = Statistics(mongo, Combination.MAX, clock)
    groupings: list[Sequence[str]] = [(), *((name,) for name in DIMENSIONS), *itertools.combinations(DIMENSIONS, 2)]
    # In the other order, too: the caller's order of dimensions means nothing.
    await performance_agrees(statistics, sent, FIRST + timedelta(minutes=95), LAST, *groupings, ("tier", "algorithm"))


async def test_days_add_up_to_the_period(mongo: Mongo) -> None:
    sent = traffic(40, first=FIRST, last=LAST)
    await store(mongo, sent, seed=41)
    statistics = Statistics(mongo, Combination.MAX, clock)
    start, end = FIRST + timedelta(minutes=17, milliseconds=3), LAST - timedelta(minutes=41)
    cuts = [start, datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 2, 29, 13, 7, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC), end]
    whole = await statistics.overview(between(stats_pb2.GetOverviewRequest(), start, end))
    parts = [await statistics.overview(between(stats_pb2.GetOverviewRequest(), since, until)) for since, until in itertools.pairwise(cuts)]
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    assert counts == Counter(whole.counts)
    for name in ("slate_count", "impression_count", "clicked_impression_count", "acted_count", "ignored_count", "untouched_count"):
        assert sum(getattr(part.performance, name) for part in parts) == getattr(whole.performance, name), name
        if name in ("slate_count", "impression_count", "clicked_impression_count"):
            assert sum(getattr(day, name) for day in whole.days) == getattr(whole.performance, name), name
    assert sum(day.interaction_count for day in whole.days) == whole.interaction_count
    assert [day.day_time.ToDatetime() for day in whole.days] == [datetime(2024, 2, 28), datetime(2024, 2, 29), datetime(2024, 3, 1)]
    users = sorted({slate.user_id for slate in sent.slates})
    for user_id in users:
        request = stats_pb2.GetUserStatsRequest(user_id=user_id)
        of_parts = [(await statistics.user(between(request, *cut))).stats for cut in itertools.pairwise(cuts)]
        of_whole = (await statistics.user(between(request, start, end))).stats
        for name in ("interaction_count", "impression_count", "slate_count", "session_count", "dismissed_impression_count"):
            assert sum(getattr(part, name) for part in of_parts) == getattr(of_whole, name), (user_id, name)


async def test_a_history_is_paged_without_gaps_or_repeats(mongo: Mongo) -> None:
    sent = traffic(50, first=FIRST, last=FIRST + timedelta(hours=1), interactions=200)
    for one in sent.interactions:  # many at the same moment, so that pages end between them
        one.occur_time.FromDatetime(one.occur_time.ToDatetime().replace(second=0, microsecond=0))
    await store(mongo, sent, seed=51)
    statistics = Statistics(mongo, Combination.MAX, clock)
    user_id = sent.interactions[0].user_id
    asked = stats_pb2.ListUserInteractionsRequest(user_id=user_id, types=["click", "view"], page_size=5)
    listed: list[str] = []
    while True:
        page = await statistics.user_interactions(asked)
        listed += [one.interaction.event_id for one in page.interactions]
        if not page.next_page_token:
            break
        assert len(page.interactions) == 5
        asked.page_token = page.next_page_token
    mine = [one for one in sent.interactions if one.user_id == user_id and one.type in ("click", "view")]
    mine.sort(key=lambda one: (one.occur_time.ToNanoseconds(), one.event_id), reverse=True)
    assert listed == [one.event_id for one in mine]
    assert len(listed) > 10


async def test_figures_before_the_fold_say_how_far_they_reach(mongo: Mongo) -> None:
    sent = traffic(60, first=FIRST, last=LAST, slates=5, interactions=20)
    limits = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)
    received = NOW - timedelta(minutes=3)
    tracking = Tracking(mongo, Ledger.open(mongo, limits), Quarantine(mongo), LabelSettings().policy(), lambda: received)
    await tracking.track(sent.interactions)
    overview = await Statistics(mongo, Combination.MAX, clock).overview(between(stats_pb2.GetOverviewRequest(), FIRST, LAST))
    assert overview.pending_count == 20
    assert overview.interaction_count == 0
    assert overview.as_of_time.ToDatetime(tzinfo=UTC) == received


async def test_unknown_ids_have_empty_figures_not_errors(mongo: Mongo) -> None:
    statistics = Statistics(mongo, Combination.MAX, clock)
    item = (await statistics.item(stats_pb2.GetItemStatsRequest(item_id="nobody"))).stats
    assert item == stats_pb2.ItemStats(item_id="nobody")
    user = (await statistics.user(stats_pb2.GetUserStatsRequest(user_id="nobody"))).stats
    assert user == stats_pb2.UserStats(user_id="nobody")
    assert not (await statistics.performance(stats_pb2.GetPerformanceRequest())).rows


@pytest.mark.parametrize("end", [datetime(9999, 12, 31, 23, 59, 59, 999_000), datetime(9999, 12, 31), datetime(1, 2, 1), datetime(2, 1, 1)])
async def test_periods_may_end_where_the_calendar_does(mongo: Mongo, end: datetime) -> None:
    statistics = Statistics(mongo, Combination.MAX, clock)
    request = stats_pb2.GetPerformanceRequest(group_by=[stats_pb2.DIMENSION_TIER])
    request.end_time.FromDatetime(end)
    answer = await statistics.performance(request)
    assert not answer.rows
    assert answer.end_time.ToDatetime() == end
