"""The collector's process: the fold, and TrackingService on a port of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

from collector.commit import CommitLimits
from collector.fold import FoldWorker, watch_lag
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.retention import keep_sweeping
from collector.service import TrackingServicer
from collector.settings import CollectorSettings, LabelSettings, RetentionSettings
from collector.tracking import Tracking, utc_now
from rankloop.v1 import tracking_pb2, tracking_pb2_grpc
from runtime.lease import Lease
from runtime.logs import configure_logs, get_logger
from runtime.metrics import MetricsPort
from runtime.mongo import Mongo
from runtime.process import settle_memory, stop_on_signals, write_ready_file
from runtime.rpc.server import RpcServer, Service
from runtime.schema import migrate
from runtime.settings import LogSettings, MetricsSettings, MongoSettings

log = get_logger("collector")


def open_tracking(mongo: Mongo, settings: CollectorSettings, labels: LabelSettings) -> Tracking:
    """The accept path, for this process or for the server that mounts it."""
    limits = CommitLimits(
        capacity_entries=settings.capacity_entries,
        capacity_bytes=settings.capacity_bytes,
        write_entries=settings.write_entries,
        writes_at_once=settings.writes_at_once,
    )
    return Tracking(mongo, Ledger.open(mongo, limits), Quarantine(mongo), labels.policy(), utc_now)


async def run(
    *,
    collector: CollectorSettings,
    labels: LabelSettings,
    retention: RetentionSettings,
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
    configure_logs(log_settings, process="collector")
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        metrics_port = MetricsPort(metrics.host, collector.metrics_port)
        stack.callback(metrics_port.close)
        opened = await Mongo.open(mongo)
        stack.push_async_callback(opened.close)
        await migrate(opened)
        tracking = open_tracking(opened, collector, labels)
        service = Service.of(tracking_pb2, tracking_pb2_grpc, "TrackingService", TrackingServicer(tracking))
        server = RpcServer(collector, [service], log_calls=log_settings.calls)
        await server.start()
        async with asyncio.TaskGroup() as work:
            work.create_task(_fold_worker(opened, collector, labels).run(stop))
            work.create_task(watch_lag(opened, stop, utc_now))
            work.create_task(keep_sweeping(opened, retention, stop, utc_now))
            await server.set_serving()
            write_ready_file(ready_file, {"address": server.address, "metrics": metrics_port.address, "pid": os.getpid()})
            settle_memory()
            log.info("collector ready", address=server.address)
            await stop.wait()
            await server.drain()
            await tracking.wait_idle()
    log.info("collector stopped")


def fold_lease(mongo: Mongo, settings: CollectorSettings) -> Lease:
    """This process's claim to fold."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    return Lease(mongo, "fold", holder, settings.lease_seconds, utc_now)


def _fold_worker(mongo: Mongo, settings: CollectorSettings, labels: LabelSettings) -> FoldWorker:
    lease = fold_lease(mongo, settings)
    return FoldWorker(mongo, lease, labels.combination, batch_entries=settings.fold_entries, poll_seconds=settings.fold_poll_seconds)
