"""The server's process: every public service on one port."""

from __future__ import annotations

import asyncio
import os
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

from collector.commit import CommitLimits
from collector.ledger import Ledger
from collector.process import open_tracking
from collector.service import TrackingServicer
from collector.settings import CollectorSettings, LabelSettings
from collector.tracking import utc_now
from ranker.features.schema import default_schema
from ranker.settings import FeatureSettings
from rankloop.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    stats_pb2,
    stats_pb2_grpc,
    tracking_pb2,
    tracking_pb2_grpc,
)
from runtime.logs import configure_logs, get_logger
from runtime.metrics import MetricsPort
from runtime.mongo import Mongo
from runtime.process import settle_memory, stop_on_signals, write_ready_file
from runtime.rpc.server import RpcServer, Service
from runtime.schema import migrate
from runtime.settings import LogSettings, MetricsSettings, MongoSettings
from server.catalog import Catalog
from server.models import Models
from server.rankers import RankerPool
from server.ranking import Ranking
from server.services.catalog import CatalogServicer
from server.services.models import ModelServicer
from server.services.ranking import RankingServicer
from server.services.stats import StatsServicer
from server.settings import ServerSettings
from server.slates import SlateRecorder
from server.statistics.statistics import Statistics

log = get_logger("server")


async def run(
    *,
    server: ServerSettings,
    collector: CollectorSettings,
    labels: LabelSettings,
    features: FeatureSettings,
    mongo: MongoSettings,
    log_settings: LogSettings,
    metrics: MetricsSettings,
    ready_file: Path | None = None,
) -> None:
    """Runs until a signal says stop.

    Raises:
        Misconfigured: it cannot start like this.
        Unavailable: the database does not answer.
    """
    configure_logs(log_settings, process="server")
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        metrics_port = MetricsPort(metrics.host, server.metrics_port)
        stack.callback(metrics_port.close)
        opened = await Mongo.open(mongo)
        stack.push_async_callback(opened.close)
        await migrate(opened)
        pool = RankerPool(server.rankers, rest_seconds=server.ranker_rest_seconds)
        stack.push_async_callback(pool.close)
        limits = CommitLimits(
            capacity_entries=collector.capacity_entries,
            capacity_bytes=collector.capacity_bytes,
            write_entries=collector.write_entries,
            writes_at_once=collector.writes_at_once,
        )
        recorder = SlateRecorder(Ledger.open(opened, limits), capacity=server.slate_capacity)
        tracking = open_tracking(opened, collector, labels)
        ranking = Ranking(
            opened,
            pool,
            recorder,
            timeout_seconds=server.rank_timeout_seconds,
            repeat_capacity=server.repeat_capacity,
            new_id=_new_id,
            clock=utc_now,
        )
        statistics = Statistics(opened, labels.combination, utc_now)
        models = Models(opened, default_schema(features.request), new_id=_new_id, clock=utc_now)
        services = {
            "tracking": Service.of(tracking_pb2, tracking_pb2_grpc, "TrackingService", TrackingServicer(tracking)),
            "ranking": Service.of(ranking_pb2, ranking_pb2_grpc, "RankingService", RankingServicer(ranking)),
            "catalog": Service.of(catalog_pb2, catalog_pb2_grpc, "CatalogService", CatalogServicer(Catalog(opened, utc_now))),
            "stats": Service.of(stats_pb2, stats_pb2_grpc, "StatsService", StatsServicer(statistics)),
            "models": Service.of(model_pb2, model_pb2_grpc, "ModelService", ModelServicer(models)),
        }
        rpc = RpcServer(server, [services[name] for name in dict.fromkeys(server.services)], log_calls=log_settings.calls)
        await rpc.start()
        async with asyncio.TaskGroup() as work:
            recording = work.create_task(recorder.run())
            await rpc.set_serving()
            write_ready_file(ready_file, {"address": rpc.address, "metrics": metrics_port.address, "pid": os.getpid()})
            settle_memory()
            log.info("server ready", address=rpc.address)
            await stop.wait()
            await rpc.drain()
            await tracking.wait_idle()
            if not await recorder.wait_idle(timeout_seconds=server.drain_seconds):
                log.warning("stopped with slates that could not be recorded")
            recording.cancel()
    log.info("server stopped")


def _new_id() -> str:
    return uuid.uuid4().hex
