"""The worker's RPCs."""

from __future__ import annotations

from typing import Any

from ranker.admission import Admission
from ranker.worker import Worker
from rankloop.worker.v1 import worker_pb2, worker_pb2_grpc


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Decodes, asks, encodes. Candidates that are unavailable, or that the user dismissed, are ranked: the caller offers them."""

    def __init__(self, worker: Worker, admission: Admission) -> None:
        self._worker = worker
        self._admission = admission

    async def Rank(self, request: worker_pb2.RankRequest, context: Any) -> worker_pb2.RankResponse:
        """Ranks one request."""
        with self._admission.admitted(context.time_remaining()):
            return await self._worker.rank(request)

    async def GetStatus(self, request: worker_pb2.GetStatusRequest, context: Any) -> worker_pb2.GetStatusResponse:
        """Tells what the worker serves with."""
        return self._worker.status()
