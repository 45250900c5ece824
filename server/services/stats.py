"""StatsService."""

from __future__ import annotations

from typing import Any

from rankloop.v1 import stats_pb2 as pb
from rankloop.v1 import stats_pb2_grpc
from server.statistics.statistics import Statistics


class StatsServicer(stats_pb2_grpc.StatsServiceServicer):
    """Decodes, asks, encodes."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

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

    async def GetOverview(self, request: pb.GetOverviewRequest, context: Any) -> pb.GetOverviewResponse:
        return await self._statistics.overview(request)
