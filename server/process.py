"""The server's process: every public service on one port."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from collector.process import open_ledger, open_tracking
from collector.service import TrackingServicer
from collector.settings import CollectorSettings, LabelSettings, RetentionSettings
from collector.tracking import utc_now
from ranker.features.schema import default_schema
from ranker.settings import FeatureSettings
from rankloop.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    experiment_pb2,
    experiment_pb2_grpc,
    export_pb2,
    export_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    stats_pb2,
    stats_pb2_grpc,
    tracking_pb2,
    tracking_pb2_grpc,
)
from runtime.ending import end
from runtime.lease import Lease
from runtime.logs import get_logger
from runtime.process import ground
from runtime.rpc.server import RpcServer, Service
from runtime.settings import LogSettings, MetricsSettings, MongoSettings
from server.catalog import Catalog
from server.experiments.experiments import Experiments
from server.experiments.follower import DigestFollower
from server.experiments.keeper import LEASE_NAME, LEASE_SECONDS, ExperimentKeeper
from server.experiments.running import RunningExperiments
from server.experiments.store import ExperimentStore
from server.export.exporter import Exporter
from server.health.examination import Glance
from server.models import Models
from server.news import UserNews
from server.rankers import RankerPool
from server.ranking import Ranking
from server.services.catalog import CatalogServicer
from server.services.experiments import ExperimentServicer
from server.services.export import ExportServicer
from server.services.models import ModelServicer
from server.services.ranking import RankingServicer
from server.services.stats import StatsServicer
from server.settings import ServerSettings
from server.slates import SlateRecorder
from server.statistics.statistics import Statistics
from server.statistics.watching import Watching
from server.surfaces import Surfaces

log = get_logger("server")


async def run(
    *,
    server: ServerSettings,
    collector: CollectorSettings,
    labels: LabelSettings,
    retention: RetentionSettings,
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
    async with (
        ground("server", mongo=mongo, log_settings=log_settings, metrics=metrics, metrics_port=server.metrics_port) as on,
        AsyncExitStack() as stack,
    ):
        pool = RankerPool(
            server.rankers,
            rest_seconds=server.ranker_rest_seconds,
            in_flight_limit=server.ranker_in_flight,
            queue_capacity=server.rank_queue_capacity,
        )
        stack.push_async_callback(pool.close)
        recorder = SlateRecorder(
            open_ledger(on.mongo, collector), capacity=server.slate_capacity, linger_seconds=server.slate_linger_seconds
        )
        news = UserNews(capacity=server.news_capacity, clock=utc_now)
        tracking = open_tracking(on.mongo, collector, labels, retention, tell=news.hear)
        store = ExperimentStore(on.mongo)
        running = RunningExperiments(store, poll_seconds=server.experiment_poll_seconds)
        await running.refresh()
        ranking = Ranking(
            on.mongo,
            pool,
            recorder,
            surfaces=Surfaces(server.surfaces),
            news=news,
            experiments=running,
            timeout_seconds=server.rank_timeout_seconds,
            explain_timeout_seconds=server.explain_timeout_seconds,
            repeat_capacity=server.repeat_capacity,
            new_id=_new_id,
            clock=utc_now,
        )
        glance = Glance(on.mongo, utc_now)
        stack.push_async_callback(glance.close)
        statistics = Statistics(on.mongo, labels.combination, utc_now, glance)
        stack.push_async_callback(statistics.close)
        models = Models(on.mongo, default_schema(features.request), new_id=_new_id, clock=utc_now)
        experiments = Experiments(on.mongo, store, running, new_id=_new_id, clock=utc_now)
        keeper = ExperimentKeeper(
            experiments,
            store,
            running,
            Lease(on.mongo, LEASE_NAME, _holder(), LEASE_SECONDS, utc_now),
            watch=timedelta(seconds=server.experiment_watch_seconds),
            clock=utc_now,
        )
        services = {
            "tracking": Service.of(tracking_pb2, tracking_pb2_grpc, "TrackingService", TrackingServicer(tracking)),
            "ranking": Service.of(ranking_pb2, ranking_pb2_grpc, "RankingService", RankingServicer(ranking)),
            "catalog": Service.of(catalog_pb2, catalog_pb2_grpc, "CatalogService", CatalogServicer(Catalog(on.mongo, utc_now))),
            "stats": Service.of(stats_pb2, stats_pb2_grpc, "StatsService", StatsServicer(statistics, Watching(statistics, on.stop))),
            "experiments": Service.of(experiment_pb2, experiment_pb2_grpc, "ExperimentService", ExperimentServicer(experiments)),
            "export": Service.of(export_pb2, export_pb2_grpc, "ExportService", ExportServicer(Exporter(on.mongo, utc_now, time.monotonic))),
            "models": Service.of(model_pb2, model_pb2_grpc, "ModelService", ModelServicer(models)),
        }
        digests = DigestFollower(
            on.mongo,
            store,
            Lease(on.mongo, "digests", _holder(), server.experiment_digest_lease_seconds, utc_now),
            poll_seconds=server.experiment_digest_seconds,
            clock=utc_now,
        )
        rpc = RpcServer(server, [services[name] for name in dict.fromkeys(server.services)], log_calls=log_settings.calls)
        await rpc.start()
        async with asyncio.TaskGroup() as work:
            recording, keeping = work.create_task(recorder.run()), work.create_task(pool.run())
            following = work.create_task(running.run())
            looking_after = work.create_task(keeper.run(server.experiment_poll_seconds))
            work.create_task(digests.run(on.stop))
            work.create_task(tracking.intake.run(on.stop))
            await rpc.set_serving()
            on.tell_ready(ready_file, rpc.address)
            log.info("server ready", address=rpc.address)
            await on.stop.wait()
            await rpc.drain()
            await tracking.wait_idle()
            if not await recorder.wait_idle(timeout_seconds=server.drain_seconds):
                log.warning("stopped with slates that could not be recorded")
            await end(recording, keeping, following, looking_after)
    log.info("server stopped")


def _new_id() -> str:
    return uuid.uuid4().hex


def _holder() -> str:
    """This process, as leases name it."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
