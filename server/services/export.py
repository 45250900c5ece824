"""ExportService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from rankloop.v1 import export_pb2 as pb
from rankloop.v1 import export_pb2_grpc
from server.export.exporter import Exporter


class ExportServicer(export_pb2_grpc.ExportServiceServicer):
    """Decodes, asks, encodes."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    async def ExportRecords(self, request: pb.ExportRecordsRequest, context: Any) -> AsyncIterator[pb.ExportRecordsResponse]:
        async for piece in self._exporter.export(request):
            yield piece
