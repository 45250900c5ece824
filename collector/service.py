"""TrackingService."""

from __future__ import annotations

from typing import Any

from collector.tracking import Tracking
from rankloop.v1 import tracking_pb2 as pb
from rankloop.v1 import tracking_pb2_grpc


class TrackingServicer(tracking_pb2_grpc.TrackingServiceServicer):
    """Decodes, asks, encodes."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    async def TrackInteractions(self, request: pb.TrackInteractionsRequest, context: Any) -> pb.TrackInteractionsResponse:
        done = await self._tracking.track(request.interactions)
        return pb.TrackInteractionsResponse(
            accepted_count=done.accepted_count, duplicate_count=done.duplicate_count, rejected=done.rejected
        )

    async def RecordSlates(self, request: pb.RecordSlatesRequest, context: Any) -> pb.RecordSlatesResponse:
        done = await self._tracking.record_slates(request.slates)
        return pb.RecordSlatesResponse(accepted_count=done.accepted_count, duplicate_count=done.duplicate_count, rejected=done.rejected)

    async def RecordOutcomes(self, request: pb.RecordOutcomesRequest, context: Any) -> pb.RecordOutcomesResponse:
        done = await self._tracking.record_outcomes(request.outcomes)
        return pb.RecordOutcomesResponse(accepted_count=done.accepted_count, duplicate_count=done.duplicate_count, rejected=done.rejected)

    async def StartSession(self, request: pb.StartSessionRequest, context: Any) -> pb.StartSessionResponse:
        return pb.StartSessionResponse(session=await self._tracking.start_session(request.session))

    async def EndSession(self, request: pb.EndSessionRequest, context: Any) -> pb.EndSessionResponse:
        return pb.EndSessionResponse(session=await self._tracking.end_session(request))
