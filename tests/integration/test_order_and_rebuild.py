"""Outcomes, engagement and the quality of slates do not depend on the order of arrival, nor on who derived what they stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from collector.labels import Combination
from collector.rebuild import rebuild
from rankloop.v1 import stats_pb2 as pb
from runtime.lease import Lease
from runtime.mongo import Mongo
from runtime.schema import migrate
from runtime.settings import MongoSettings
from server.statistics.statistics import Statistics
from tests.integration.measured import FIRST, LAST, between, clock, plain, store
from tests.integration.test_engagement import FIRST as FIRST_VISIT
from tests.integration.test_engagement import LAST as LAST_VISIT
from tests.integration.test_engagement import lively
from tests.integration.test_outcome_metrics import earning
from tests.recount import Sent

EARNED = [(FIRST, LAST), (FIRST.replace(minute=13), LAST - timedelta(hours=4, minutes=7))]
VISITED = [(FIRST_VISIT, LAST_VISIT), (FIRST_VISIT + timedelta(days=9, hours=7, minutes=13), LAST_VISIT - timedelta(days=5, hours=3))]


class Silent:
    def step(self, description: str, total: int | None = None) -> None: ...

    def advance(self, count: int) -> None: ...


async def figures(mongo: Mongo, periods: list[tuple[datetime, datetime]]) -> list[Any]:
    """Everything that these three answer over the periods, by a server that remembers nothing."""
    statistics = Statistics(mongo, Combination.MAX, clock)
    answers: list[Message] = []
    for start, end in periods:
        stated = pb.GetOutcomeMetricsRequest(attribution_rule=pb.ATTRIBUTION_RULE_STATED)
        parted = pb.GetSlateQualityRequest(by_algorithm=True, by_day=True)
        answers += [
            await statistics.analyses.outcomes(between(pb.GetOutcomeMetricsRequest(), start, end)),
            await statistics.analyses.outcomes(between(stated, start, end)),
            await statistics.analyses.engagement(between(pb.GetEngagementRequest(), start, end)),
            await statistics.analyses.quality(between(pb.GetSlateQualityRequest(), start, end)),
            await statistics.analyses.quality(between(parted, start, end)),
        ]
    await statistics.close()
    return [plain(answer) for answer in answers]


@asynccontextmanager
async def beside(settings: MongoSettings) -> AsyncIterator[Mongo]:
    """Another fresh database."""
    other = await Mongo.open(settings.model_copy(update={"database": f"{settings.database}_other"}))
    try:
        await migrate(other)
        yield other
        await other.drop_database()
    finally:
        await other.close()


async def agrees(mongo: Mongo, settings: MongoSettings, sent: Sent, periods: list[tuple[datetime, datetime]]) -> list[Any]:
    """Stores it twice in other orders, portions and folds, then derives one of them anew; returns the figures, which are equal."""
    await store(mongo, sent, seed=1)
    first = await figures(mongo, periods)
    async with beside(settings) as other:
        await store(other, sent, seed=2)
        assert await figures(other, periods) == first
        for name in ("attributions", "tallies"):
            await other.collection(name).delete_many({})
        assert await figures(other, periods) != first
        await rebuild(other, Lease(other, "fold", "rebuild", 600, clock), Combination.MAX, Silent())
        assert await figures(other, periods) == first
    return first


async def test_what_was_earned_is_the_same(mongo: Mongo, mongo_settings: MongoSettings) -> None:
    outcomes, _, _, quality, *_ = await agrees(mongo, mongo_settings, earning(300), EARNED)
    assert sum(row["outcome_count"] for row in outcomes["types"]) > 100
    assert outcomes["funnel"]
    assert quality["rows"][0]["slate_count"] > 30


async def test_what_was_visited_is_the_same(mongo: Mongo, mongo_settings: MongoSettings) -> None:
    _, _, engagement, *_ = await agrees(mongo, mongo_settings, lively(310), VISITED)
    assert engagement["sessions"]["session_count"] > 50
