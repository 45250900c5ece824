"""StatsService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from rankloop.v1 import stats_pb2 as pb
from rankloop.v1 import stats_pb2_grpc
from server.statistics.statistics import Statistics
from server.statistics.watching import Watching


class StatsServicer(stats_pb2_grpc.StatsServiceServicer):
    """Decodes, asks, encodes."""

    def __init__(self, statistics: Statistics, watching: Watching) -> None:
        self._statistics = statistics
        self._analyses = statistics.analyses
        self._watching = watching

    async def GetItemStats(self, request: pb.GetItemStatsRequest, context: Any) -> pb.GetItemStatsResponse:
        return await self._statistics.item(request)

    async def GetUserStats(self, request: pb.GetUserStatsRequest, context: Any) -> pb.GetUserStatsResponse:
        return await self._statistics.user(request)

    async def ListUserInteractions(self, request: pb.ListUserInteractionsRequest, context: Any) -> pb.ListUserInteractionsResponse:
        return await self._statistics.user_interactions(request)

    async def GetPerformance(self, request: pb.GetPerformanceRequest, context: Any) -> pb.GetPerformanceResponse:
        return await self._statistics.performance(request)

    async def GetTypeMetrics(self, request: pb.GetTypeMetricsRequest, context: Any) -> pb.GetTypeMetricsResponse:
        return await self._statistics.types(request)

    async def ListTopItems(self, request: pb.ListTopItemsRequest, context: Any) -> pb.ListTopItemsResponse:
        return await self._analyses.top_items(request)

    async def ListActiveUsers(self, request: pb.ListActiveUsersRequest, context: Any) -> pb.ListActiveUsersResponse:
        return await self._analyses.active_users(request)

    async def GetOutcomeMetrics(self, request: pb.GetOutcomeMetricsRequest, context: Any) -> pb.GetOutcomeMetricsResponse:
        return await self._analyses.outcomes(request)

    async def GetEngagement(self, request: pb.GetEngagementRequest, context: Any) -> pb.GetEngagementResponse:
        return await self._analyses.engagement(request)

    async def GetSlateQuality(self, request: pb.GetSlateQualityRequest, context: Any) -> pb.GetSlateQualityResponse:
        return await self._analyses.quality(request)

    async def GetOverview(self, request: pb.GetOverviewRequest, context: Any) -> pb.GetOverviewResponse:
        return await self._statistics.overview(request)

    def WatchOverview(self, request: pb.WatchOverviewRequest, context: Any) -> AsyncIterator[pb.WatchOverviewResponse]:
        return self._watching.overview(request)
