"""RankingService."""

from __future__ import annotations

from typing import Any

from rankloop.v1 import ranking_pb2 as pb
from rankloop.v1 import ranking_pb2_grpc
from server.ranking import Ranking


class RankingServicer(ranking_pb2_grpc.RankingServiceServicer):
    """Decodes, asks, encodes."""

    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking

    async def Rank(self, request: pb.RankRequest, context: Any) -> pb.RankResponse:
        return await self._ranking.rank(request, remaining_seconds=context.time_remaining())
