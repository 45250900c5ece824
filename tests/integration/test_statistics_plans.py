"""How statistics ask the database, as its profiler sees it: by indexes, and of one user only that user's entries."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from collector.labels import Combination
from rankloop.v1 import stats_pb2
from runtime.mongo import Document, Mongo
from server.statistics.statistics import Statistics
from tests.integration.measured import FIRST, LAST, between, clock, store
from tests.recount import traffic

LEDGER = ("interactions", "slates", "outcomes", "sessions")


async def profiled(mongo: Mongo, call: Any) -> list[Document]:
    """What a call asked, as the profiler saw it."""
    await mongo.command({"profile": 0})
    await mongo.drop_collection("system.profile")
    await mongo.command({"profile": 2})
    await call
    await mongo.command({"profile": 0})
    found = await mongo.collection("system.profile").find({"planSummary": {"$exists": True}}, limit=1000)
    return [one for one in found if not one["ns"].endswith("system.profile")]


async def test_no_question_walks_a_collection(mongo: Mongo) -> None:
    sent = traffic(400, first=FIRST, last=LAST)
    sent.interactions[0].context["page"] = "home"
    await store(mongo, sent, seed=401)
    statistics = Statistics(mongo, Combination.MAX, clock)
    edged = FIRST + timedelta(hours=3, minutes=7), LAST - timedelta(minutes=20)
    dimensions = [stats_pb2.DIMENSION_ALGORITHM, stats_pb2.DIMENSION_TIER]
    calls: list[tuple[Any, Any]] = [
        (statistics.item, stats_pb2.GetItemStatsRequest(item_id="i1")),
        (statistics.user, stats_pb2.GetUserStatsRequest(user_id="u1")),
        (statistics.user_interactions, stats_pb2.ListUserInteractionsRequest(user_id="u1", types=["click"], item_id="i1", ranking_id="r1")),
        (statistics.types, stats_pb2.GetTypeMetricsRequest()),
        (statistics.performance, stats_pb2.GetPerformanceRequest(group_by=dimensions, clustered_intervals=True)),
        (statistics.overview, stats_pb2.GetOverviewRequest()),
        (statistics.analyses.top_items, stats_pb2.ListTopItemsRequest(item_type="kind1")),
        (statistics.analyses.active_users, stats_pb2.ListActiveUsersRequest()),
        (statistics.analyses.engagement, stats_pb2.GetEngagementRequest()),
        (statistics.analyses.outcomes, stats_pb2.GetOutcomeMetricsRequest()),
        (statistics.analyses.quality, stats_pb2.GetSlateQualityRequest(by_algorithm=True, by_day=True)),
    ]
    for method, request in calls:
        asked = await profiled(mongo, method(between(request, *edged)))
        assert asked, request
        for one in asked:
            assert "COLLSCAN" not in one["planSummary"], (type(request).__name__, one["ns"], one["command"])
    await statistics.close()


async def test_what_a_user_costs_is_what_that_user_did(mongo: Mongo) -> None:
    sent = traffic(410, first=FIRST, last=LAST)
    await store(mongo, sent, seed=411)
    statistics = Statistics(mongo, Combination.MAX, clock)
    request = between(stats_pb2.GetUserStatsRequest(user_id="u1"), FIRST, LAST)
    await statistics.user(request)  # counts all users once, and remembers them
    asked = await profiled(mongo, statistics.user(request))
    read: Counter[str] = Counter()
    for one in asked:
        read[one["ns"].rpartition(".")[2]] += one.get("docsExamined", 0)
    own = sum(one.user_id == "u1" for one in sent.interactions)
    assert own < len(sent.interactions) / 2
    # Figures, and once more the engagement score's four values.
    assert 0 < read["interactions"] <= 2 * own
    named = {one.ranking_id for one in sent.interactions if one.user_id == "u1"} | {
        one.ranking_id for one in sent.slates if one.user_id == "u1"
    }
    assert read["slates"] <= 2 * len(named)
    history = await profiled(
        mongo, statistics.user_interactions(between(stats_pb2.ListUserInteractionsRequest(user_id="u1", page_size=5), FIRST, LAST))
    )
    assert sum(one.get("docsExamined", 0) for one in history if one["ns"].endswith(LEDGER)) == 6, "a page, and whether there is another"
    await statistics.close()
