"""Engagement on a real MongoDB against a recount in plain Python."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from collector.labels import Combination
from rankloop.v1 import stats_pb2
from runtime.errors import InvalidInput
from runtime.mongo import Mongo
from server.statistics.statistics import Statistics
from tests.integration.measured import between, plain, same, store
from tests.recount import Sent, traffic
from tests.recount_engagement import active, engagement, scores

FIRST, LAST = datetime(2024, 1, 20, tzinfo=UTC), datetime(2024, 3, 5, tzinfo=UTC)
NOW = datetime(2024, 3, 20, 12, tzinfo=UTC)
SPAN = timedelta(days=7)


def clock() -> datetime:
    return NOW


def lively(seed: int) -> Sent:
    """Weeks of many users, in bursts; sessions with pages and without, pages and features in what was done."""
    random_ = random.Random(seed)
    sent = traffic(seed, first=FIRST, last=LAST, slates=20, interactions=420, outcomes=0)
    at = FIRST
    for one in sorted(sent.interactions, key=lambda entry: entry.event_id):
        one.user_id = f"u{random_.randrange(25)}"
        if random_.random() < 0.6:  # soon after another, perhaps over midnight
            at = max(FIRST, min(LAST, at + timedelta(minutes=random_.choice([1, 10, 30, 31]))))
        else:
            at = FIRST + timedelta(minutes=random_.randrange((LAST - FIRST) // timedelta(minutes=1)))
        one.occur_time.FromDatetime(at)
        one.session_id = random_.choice(["", f"{one.user_id}-s", "shared", "s0", "s1", "s2"])
        for key in ("page", "feature", "device"):
            if random_.random() < 0.4:
                one.context[key] = random_.choice(["home", "jobs", "a.b$c"])
    for place, session in enumerate(sent.sessions):
        session.user_id = "only a session" if place == 0 else f"u{place}"
        session.start_time.FromDatetime(FIRST + timedelta(days=7 * place, hours=23, minutes=50))
        session.pages.extend(["home", "jobs", "home"][: random_.randint(0, 3)])
        if place:
            session.end_time.FromDatetime(FIRST + timedelta(days=7 * place + 1, minutes=place))
        session.device = random_.choice(["phone", ""])
    return sent


async def test_engagement_over_any_period_equals_a_recount(mongo_both: Mongo) -> None:
    sent = lively(100)
    await store(mongo_both, sent, seed=101)
    statistics = Statistics(mongo_both, Combination.MAX, clock)
    for start, end in (
        (FIRST, LAST),
        (FIRST + timedelta(days=9, hours=7, minutes=13), LAST - timedelta(days=5, hours=3)),
        (datetime(2024, 1, 31, 23, 50, tzinfo=UTC), datetime(2024, 2, 1, 0, 20, tzinfo=UTC)),
        (NOW - timedelta(days=1), NOW),
    ):
        answer = await statistics.analyses.engagement(between(stats_pb2.GetEngagementRequest(), start, end))
        found = stats_pb2.GetEngagementResponse()
        found.CopyFrom(answer)
        for name in ("scores", "as_of_time", "start_time", "end_time"):
            found.ClearField(name)
        interval = found.sessions.bounce_rate_interval
        if found.sessions.session_count:
            assert 0 <= interval.low <= found.sessions.bounce_rate <= interval.high <= 1
        found.sessions.ClearField("bounce_rate_interval")
        same(found, engagement(sent, start, end, SPAN))
        expected = [score for score, *_ in scores(sent, end).values()]
        assert list(answer.scores.decile_counts) == [sum(place == min(9, int(score // 10)) for score in expected) for place in range(10)]
        assert answer.scores.user_count == len(expected)
        assert answer.as_of_time.ToDatetime(tzinfo=UTC) == NOW
    assert answer.active_user_count == 0
    assert not answer.HasField("stickiness")
    await statistics.close()


async def test_a_users_score_and_its_parts_equal_a_recount(mongo: Mongo) -> None:
    sent = lively(110)
    await store(mongo, sent, seed=111)
    statistics = Statistics(mongo, Combination.MAX, clock)
    end = LAST - timedelta(days=4, hours=2, minutes=9)
    expected = scores(sent, end)
    for user_id in [*sorted(active(sent, FIRST, LAST)), "nobody"]:
        request = between(stats_pb2.GetUserStatsRequest(user_id=user_id), end - timedelta(days=1), end)
        found = (await statistics.user(request)).stats
        if user_id not in expected:
            assert not found.HasField("engagement_score")
            continue
        parts = plain(found.engagement)
        assert [parts[name] for name in ("score", "recency", "frequency", "depth", "breadth")] == pytest.approx(expected[user_id])
        assert found.engagement_score == found.engagement.score
        assert found.engagement.user_count == len(expected)
    await statistics.close()


@pytest.mark.parametrize("span", [Duration(), Duration(seconds=86_399), Duration(seconds=32 * 86_400), Duration(seconds=86_400, nanos=1)])
async def test_cohorts_of_other_than_whole_days_are_refused(mongo: Mongo, span: Duration) -> None:
    statistics = Statistics(mongo, Combination.MAX, clock)
    with pytest.raises(InvalidInput) as refusal:
        await statistics.analyses.engagement(stats_pb2.GetEngagementRequest(cohort_span=span))
    assert [one.field for one in refusal.value.violations] == ["cohort_span"]


async def test_another_server_reads_packed_days_and_what_came_since(mongo: Mongo) -> None:
    sent = lively(120)
    await store(mongo, sent, seed=121)
    whole = between(stats_pb2.GetEngagementRequest(), FIRST, LAST)
    first = Statistics(mongo, Combination.MAX, clock)
    before = await first.analyses.engagement(whole)
    packed = await mongo.collection("interaction_days").estimated_count()
    assert packed == len({one.occur_time.ToDatetime().date() for one in sent.interactions})
    # What the ledger says of these days is not read again: another label would be seen.
    await mongo.collection("interactions").update_many({}, {"$set": {"session_id": "one and the same"}})
    again = Statistics(mongo, Combination.MAX, clock)
    assert (await again.analyses.engagement(whole)).sessions == before.sessions
    # One that was there and not yet taken in by the fold is counted once it is.
    some = sorted(sent.interactions, key=lambda one: one.event_id)[0]
    await mongo.collection("interactions").update_one({"_id": some.event_id}, {"$set": {"pending": NOW}})
    await mongo.collection("interaction_days").delete_many({})
    without = await Statistics(mongo, Combination.MAX, clock).analyses.engagement(whole)
    assert without.interaction_count == before.interaction_count - 1
    await mongo.collection("interactions").update_one({"_id": some.event_id}, {"$unset": {"pending": ""}})
    after = await Statistics(mongo, Combination.MAX, clock).analyses.engagement(whole)
    assert after.interaction_count == before.interaction_count
    await first.close()
    await again.close()
