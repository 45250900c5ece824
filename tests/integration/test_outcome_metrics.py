"""Outcomes, the funnel, stories and the quality of slates on a real MongoDB against a recount in plain Python."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from collector.labels import Combination
from rankloop.v1 import stats_pb2
from rankloop.v1.tracking_pb2 import Outcome
from runtime.errors import InvalidInput
from runtime.mongo import Mongo
from server.statistics.statistics import Statistics
from tests.integration.measured import FIRST, LAST, NOW, between, clock, periods, same, store
from tests.recount import Sent, occurred, traffic
from tests.recount_outcomes import funnel, goals, improvement, of_type, quality

TYPES = ["income", "application", "goal", "revenue", "satisfaction"]


def earning(seed: int) -> Sent:
    """Traffic with outcomes of every kind."""
    random_ = random.Random(seed)
    sent = traffic(seed, first=FIRST, last=LAST, slates=40, interactions=250, outcomes=250)
    sent.costs = {item_id: float(place) for place, item_id in enumerate(sent.catalogue)}
    for one in sent.outcomes:
        one.type = random_.choice([*TYPES, "application"])
        if random_.random() < 0.5:
            one.before_value = random_.choice([0.0, -5.0, 10.0, 250.0, 1000.0])
        if random_.random() < 0.3:
            one.attributes["cost"] = str(random_.randrange(1, 50))
        if one.type == "application" and random_.random() < 0.9:
            one.attributes["result"] = random_.choice(["applied", "interview", "offer", "accepted", "rejected"])
        if one.type == "goal":
            match random_.randrange(3):
                case 0:
                    one.attributes["target"] = "100"
                case 1:
                    one.attributes["result"] = random_.choice(["reached", "missed"])
        if random_.random() < 0.3:
            one.ranking_id = ""
    return sent


@pytest.mark.parametrize("stated_only", [False, True])
async def test_outcomes_over_any_period_equal_a_recount(mongo_both: Mongo, stated_only: bool) -> None:
    sent = earning(200)
    await store(mongo_both, sent, seed=201)
    statistics = Statistics(mongo_both, Combination.MAX, clock)
    rule = stats_pb2.ATTRIBUTION_RULE_STATED if stated_only else stats_pb2.ATTRIBUTION_RULE_UNSPECIFIED
    for place, (start, end) in enumerate(periods(202, 8)):
        window = timedelta(hours=[720, 5][place % 2])
        request = between(stats_pb2.GetOutcomeMetricsRequest(attribution_rule=rule), start, end)
        if place % 2:
            request.attribution_window.FromTimedelta(window)
        answer = await statistics.analyses.outcomes(request)
        assert answer.attribution_window.ToTimedelta() == window
        inside = [one for one in sent.outcomes if start <= occurred(one) < end]
        assert {row.type for row in answer.types} == {one.type for one in inside}
        for row in answer.types:
            found = stats_pb2.OutcomeTypeMetrics()
            found.CopyFrom(row)
            for name in ("avg_value", "avg_improvement"):
                interval = getattr(found, f"{name}_interval")
                assert not found.HasField(f"{name}_interval") or interval.low <= getattr(found, name) <= interval.high
                found.ClearField(f"{name}_interval")
            same(found, of_type(sent, row.type, start, end, window, stated_only=stated_only))
        assert (answer.goals.goal_count, answer.goals.reached_count) == goals(sent, start, end)
        expected = funnel(sent, start, end, window, stated_only=stated_only)
        stages = {
            None if row.total else row.tier: [
                row.shown_count,
                row.viewed_count,
                row.applied_count,
                row.interview_count,
                row.offer_count,
                row.accepted_count,
            ]
            for row in answer.funnel
        }
        assert stages == expected
    await statistics.close()


async def test_stories_are_told_without_names_and_only_of_many(mongo: Mongo) -> None:
    sent = Sent(catalogue={"thing": "kind"})
    for number in range(6):
        for before, after in ((100, 100 + 10 * number), (100, 90)):
            one = Outcome(event_id=f"{number} {after}", user_id=f"user {number}", type="income", before_value=before, value=after)
            one.occur_time.FromDatetime(FIRST)
            sent.outcomes.append(one)
    await store(mongo, sent, seed=1)
    statistics = Statistics(mongo, Combination.MAX, clock)
    request = between(stats_pb2.GetOutcomeMetricsRequest(story_count=3), FIRST, LAST)
    told = (await statistics.analyses.outcomes(request)).types[0].stories
    assert [story.improvement for story in told] == pytest.approx([0.5, 0.4, 0.3])
    assert [story.improvement for story in told] == pytest.approx(
        sorted((found for one in sent.outcomes if (found := improvement(one))), reverse=True)[:3]
    )
    assert not any("user" in str(story) for story in told)
    assert len({story.pseudonym for story in told}) == 3
    again = (await Statistics(mongo, Combination.MAX, clock).analyses.outcomes(request)).types[0].stories
    assert [story.pseudonym for story in again] == [story.pseudonym for story in told], "the same name in every answer"
    request.story_min_users = 7
    assert not (await statistics.analyses.outcomes(request)).types[0].stories
    await statistics.close()


async def test_quality_equals_a_recount(mongo_both: Mongo) -> None:
    sent = traffic(210, first=FIRST, last=LAST, slates=40, interactions=60)
    sent.catalogue |= {f"never shown {number}": "kind0" for number in range(5)}
    await store(mongo_both, sent, seed=211)
    statistics = Statistics(mongo_both, Combination.MAX, clock)
    for start, end in [
        (FIRST - timedelta(days=1), LAST + timedelta(days=1)),
        (FIRST + timedelta(hours=2, minutes=7), LAST - timedelta(hours=3)),
    ]:
        request = between(stats_pb2.GetSlateQualityRequest(by_algorithm=True, by_day=True), start, end)
        rows = (await statistics.analyses.quality(request)).rows
        days = [datetime(2024, 2, 28, tzinfo=UTC) + timedelta(days=number) for number in range(3)]
        expected = []
        for day in (None, *days):
            since, until = (start, end) if day is None else (max(start, day), min(end, day + timedelta(days=1)))
            for algorithm in (None, "hybrid", "popular", ""):
                row = quality(sent, since, until, (start, end), algorithm, day)
                if row is not None:
                    expected.append(row)
        expected.sort(key=lambda row: (row.HasField("day_time"), row.day_time.seconds, not row.total, -row.impression_count, row.algorithm))
        assert len(rows) == len(expected)
        for found, wanted in zip(rows, expected, strict=True):
            same(found, wanted)
        plain = (await statistics.analyses.quality(between(stats_pb2.GetSlateQualityRequest(), start, end))).rows
        assert len(plain) == 1
        same(plain[0], expected[0])
    await statistics.close()


async def test_questions_that_make_no_sense_are_refused_by_field(mongo: Mongo) -> None:
    analyses = Statistics(mongo, Combination.MAX, clock).analyses
    refused = [
        (stats_pb2.GetOutcomeMetricsRequest(attribution_rule=9), "attribution_rule"),  # type: ignore[arg-type]
        (stats_pb2.GetOutcomeMetricsRequest(attribution_window=Duration()), "attribution_window"),
        (stats_pb2.GetOutcomeMetricsRequest(attribution_window=Duration(seconds=366 * 86_400)), "attribution_window"),
        (stats_pb2.GetOutcomeMetricsRequest(attribution_window=Duration(seconds=-(10**18))), "attribution_window"),
        (stats_pb2.GetOutcomeMetricsRequest(story_count=101), "story_count"),
        (stats_pb2.GetOutcomeMetricsRequest(story_min_users=4), "story_min_users"),
        (stats_pb2.GetOutcomeMetricsRequest(types=["a"] * 65), "types"),
    ]
    for request, field in refused:
        with pytest.raises(InvalidInput) as refusal:
            await analyses.outcomes(request)
        assert [one.field for one in refusal.value.violations] == [field]
    long = between(stats_pb2.GetSlateQualityRequest(by_day=True), NOW - timedelta(days=93), NOW)
    with pytest.raises(InvalidInput) as refusal:
        await analyses.quality(long)
    assert [one.field for one in refusal.value.violations] == ["by_day"]
