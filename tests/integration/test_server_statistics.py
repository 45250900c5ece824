"""Statistics on a real MongoDB against a recount in plain Python, over periods that begin and end anywhere."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message

from collector.commit import CommitLimits
from collector.fold import FoldWorker
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.settings import LabelSettings
from collector.tracking import Tracking
from rankloop.v1 import catalog_pb2, stats_pb2
from runtime.lease import Lease
from runtime.mongo import Mongo
from server.catalog import Catalog
from server.statistics.statistics import Statistics
from tests.recount import DIMENSIONS, Sent, traffic

FIRST, LAST = datetime(2024, 2, 28, 21, tzinfo=UTC), datetime(2024, 3, 1, 4, tzinfo=UTC)
NOW = datetime(2024, 3, 20, 12, 0, 0, 500_000, tzinfo=UTC)


def clock() -> datetime:
    return NOW


async def store(mongo: Mongo, sent: Sent, seed: int) -> None:
    """Sends everything in random order and portions, part of it twice, and folds now and then."""
    random_ = random.Random(seed)
    limits = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)
    tracking = Tracking(mongo, Ledger.open(mongo, limits), Quarantine(mongo), LabelSettings().policy(), clock)
    await Catalog(mongo, clock).upsert_items(
        [catalog_pb2.Item(item_id=item_id, item_type=item_type) for item_id, item_type in sent.catalogue.items()]
    )
    lease = Lease(mongo, "fold", "test", 600, clock)
    assert await lease.claim()
    worker = FoldWorker(mongo, lease, Combination.MAX, batch_entries=40, poll_seconds=0.01)
    for session in sent.sessions:
        await tracking.start_session(session)
    entries: list[Any] = [*sent.slates, *sent.interactions, *sent.outcomes]
    entries += random_.sample(entries, len(entries) // 4)
    random_.shuffle(entries)
    while entries:
        portion, entries = entries[:60], entries[60:]
        for name, send in (
            ("Slate", tracking.record_slates),
            ("Interaction", tracking.track),
            ("Outcome", tracking.record_outcomes),
        ):
            of_kind: Sequence[Any] = [one for one in portion if one.DESCRIPTOR.name == name]
            if of_kind:
                receipt = await send(of_kind)
                assert not receipt.rejected
        if random_.random() < 0.5:
            await worker.fold_once()
    while await worker.fold_once():
        pass
    await lease.release()


def periods(seed: int, count: int) -> list[tuple[datetime, datetime]]:
    """Periods whose ends are anywhere: within one hour, on full hours, over midnight, before and after everything."""
    random_ = random.Random(seed)
    span = (LAST - FIRST) // timedelta(milliseconds=1)
    found = [
        (FIRST - timedelta(days=2), LAST + timedelta(days=2)),
        (FIRST.replace(hour=22), FIRST.replace(hour=23)),
        (FIRST.replace(hour=22, minute=10), FIRST.replace(hour=22, minute=50, microsecond=1000)),
        (FIRST.replace(hour=22, minute=59, second=59, microsecond=999_000), FIRST.replace(hour=23, microsecond=1000)),
        (datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    ]
    while len(found) < count:
        moments = sorted(FIRST + timedelta(milliseconds=random_.randrange(span)) for _ in range(2))
        if random_.random() < 0.3:
            moments[random_.randrange(2)] = moments[0].replace(minute=0, second=0, microsecond=0)
            moments.sort()
        if moments[0] < moments[1]:
            found.append((moments[0], moments[1]))
    return found


def between(request: Any, start: datetime, end: datetime) -> Any:
    """The request over a period."""
    request.start_time.FromDatetime(start)
    request.end_time.FromDatetime(end)
    return request


def plain(message: Message) -> dict[str, Any]:
    """A message as values that compare; fields without presence are there with their zero."""
    found: dict[str, Any] = {}
    for descriptor in message.DESCRIPTOR.fields:
        value = getattr(message, descriptor.name)
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            found[descriptor.name] = dict(value)
        elif not descriptor.has_presence or message.HasField(descriptor.name):
            found[descriptor.name] = plain(value) if isinstance(value, Message) else value
    return found


def close(message: Message) -> Any:
    """The same, to compare with what floating point allows."""
    return _close(plain(message))


def _close(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _close(inner) for key, inner in value.items()}
    return pytest.approx(value, rel=1e-9, abs=1e-7) if isinstance(value, float) else value


def same(found: Message, expected: Message) -> None:
    """Equal figures; a mean span to the millisecond."""
    ours, theirs = plain(found), plain(expected)
    spans = [(one.pop("avg_time_to_action", None)) for one in (ours, theirs)]
    assert ours == _close(theirs)
    assert (spans[0] is None) == (spans[1] is None)
    if spans[0] is not None and spans[1] is not None:
        seconds = [one["seconds"] + one["nanos"] / 1e9 for one in spans]
        assert seconds[0] == pytest.approx(seconds[1], abs=1e-3)


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
    asked = stats_pb2.ListUserInteractionsRequest(user_id=user_id, types=["click", "view"], page_size=7)
    listed: list[str] = []
    while True:
        page = await statistics.user_interactions(asked)
        listed += [one.interaction.event_id for one in page.interactions]
        if not page.next_page_token:
            break
        assert len(page.interactions) == 7
        asked.page_token = page.next_page_token
    mine = [one for one in sent.interactions if one.user_id == user_id and one.type in ("click", "view")]
    mine.sort(key=lambda one: (one.occur_time.ToNanoseconds(), one.event_id), reverse=True)
    assert listed == [one.event_id for one in mine]
    assert len(listed) > 14


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
