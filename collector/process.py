"""The collector's process: the fold, and TrackingService on a port of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Iterable
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
from runtime.logs import get_logger
from runtime.mongo import Mongo
from runtime.process import ground
from runtime.rpc.server import RpcServer, Service
from runtime.settings import LogSettings, MetricsSettings, MongoSettings

log = get_logger("collector")


def open_ledger(mongo: Mongo, settings: CollectorSettings) -> Ledger:
    """The ledger of a database, within the limits that are set."""
    limits = CommitLimits(
        capacity_entries=settings.capacity_entries,
        capacity_bytes=settings.capacity_bytes,
        write_entries=settings.write_entries,
        writes_at_once=settings.writes_at_once,
    )
    return Ledger.open(mongo, limits)


def open_tracking(
    mongo: Mongo,
    settings: CollectorSettings,
    labels: LabelSettings,
    retention: RetentionSettings,
    *,
    tell: Callable[[Iterable[str]], None] = lambda user_ids: None,
) -> Tracking:
    """The accept path, for this process or for the server that mounts it. `tell` as `Tracking`."""
    quarantine = Quarantine(mongo, retention.quarantine_limits())
    return Tracking(mongo, open_ledger(mongo, settings), quarantine, labels.policy(), utc_now, tell=tell)


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
    async with ground("collector", mongo=mongo, log_settings=log_settings, metrics=metrics, metrics_port=collector.metrics_port) as on:
        tracking = open_tracking(on.mongo, collector, labels, retention)
        service = Service.of(tracking_pb2, tracking_pb2_grpc, "TrackingService", TrackingServicer(tracking))
        server = RpcServer(collector, [service], log_calls=log_settings.calls)
        await server.start()
        async with asyncio.TaskGroup() as work:
            work.create_task(_fold_worker(on.mongo, collector, labels).run(on.stop))
            work.create_task(tracking.intake.run(on.stop))
            work.create_task(watch_lag(on.mongo, on.stop, utc_now))
            work.create_task(keep_sweeping(on.mongo, retention, on.stop, utc_now))
            await server.set_serving()
            on.tell_ready(ready_file, server.address)
            log.info("collector ready", address=server.address)
            await on.stop.wait()
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
