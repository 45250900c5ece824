"""A client: every service's stub on one channel, with retries where a retry cannot count anything twice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import grpc

from rankloop.v1 import catalog_pb2_grpc, export_pb2_grpc, model_pb2_grpc, ranking_pb2_grpc, stats_pb2_grpc, tracking_pb2_grpc
from rankloop.v1.ranking_pb2 import Candidate, RankRequest, RankResponse
from rankloop.v1.tracking_pb2 import Interaction, TrackInteractionsRequest, TrackInteractionsResponse

MAX_MESSAGE_BYTES = 16 * 2**20
MAX_ENTRIES = 1000

# Entries carry ids, so sending them again is harmless; so are reading and ranking again. Promoting a model twice is not.
# A server that shuts down answers CANCELLED to calls that reach it between its last look and its goodbye; it has not begun them.
_RETRIED_SERVICES = ("TrackingService", "RankingService", "CatalogService", "StatsService")
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": f"rankloop.v1.{service}"} for service in _RETRIED_SERVICES],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ]
    }
)


class Client:
    """Speaks to a Rankloop server. Belongs to one event loop; one is enough for a process.

    The stubs `tracking`, `ranking`, `catalog`, `stats`, `models` and `export` have every call of the contract; `rank` and `track` are the
    two that everybody needs.
    """

    def __init__(self, address: str) -> None:
        """`address` is host:port. Nothing is sent before the first call."""
        self._channel = grpc.aio.insecure_channel(
            address,
            options=(
                ("grpc.service_config", _SERVICE_CONFIG),
                ("grpc.enable_retries", 1),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ),
        )
        self.tracking = tracking_pb2_grpc.TrackingServiceStub(self._channel)
        self.ranking = ranking_pb2_grpc.RankingServiceStub(self._channel)
        self.export = export_pb2_grpc.ExportServiceStub(self._channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(self._channel)
        self.stats = stats_pb2_grpc.StatsServiceStub(self._channel)
        self.models = model_pb2_grpc.ModelServiceStub(self._channel)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def rank(self, user_id: str, candidates: Iterable[Candidate], *, timeout_seconds: float = 5.0, **fields: Any) -> RankResponse:
        """Ranks candidates for a user; `fields` are further fields of RankRequest (`surface`, `top_k`, …).

        A server answers within `server.rank_timeout_seconds` (half a second) or a little more, by your own order if it must; the default
        here leaves time for the first connection.

        Raises:
            grpc.aio.AioRpcError: with INVALID_ARGUMENT where a field is wrong, UNAVAILABLE where no server answered.
        """
        return await self.ranking.Rank(RankRequest(user_id=user_id, candidates=candidates, **fields), timeout=timeout_seconds)

    async def track(self, interactions: Sequence[Interaction], *, timeout_seconds: float = 10.0) -> TrackInteractionsResponse:
        """Records interactions, in as many calls as they need; returns the sum of what became of them.

        Raises:
            grpc.aio.AioRpcError: what was not yet recorded may be sent again with the same ids.
        """
        total = TrackInteractionsResponse()
        for start in range(0, len(interactions), MAX_ENTRIES):
            request = TrackInteractionsRequest(interactions=interactions[start : start + MAX_ENTRIES])
            done = await self.tracking.TrackInteractions(request, timeout=timeout_seconds)
            total.accepted_count += done.accepted_count
            total.duplicate_count += done.duplicate_count
            for rejection in done.rejected:
                rejection.index += start
                total.rejected.append(rejection)
        return total
