"""The ranking worker's process."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from ranker import metrics as figures
from ranker.admission import Admission
from ranker.compiled import NoCompiler
from ranker.features import request
from ranker.features.scanning import CandidateReaders
from ranker.features.schema import FeatureSchema
from ranker.models.loader import ModelLoader
from ranker.models.refusal import RankerNotes
from ranker.models.registry import ModelRegistry
from ranker.scoring.engine import FOREST, LIGHTGBM, EngineChoice
from ranker.scoring.quickscorer import compiled_kernel
from ranker.service import WorkerServicer
from ranker.settings import FeatureSettings, RankerSettings, schema_of
from ranker.state.follower import ItemFollower
from ranker.state.items import ItemState, day_of
from ranker.state.users import UserHistories
from ranker.validation import MAX_CANDIDATES
from ranker.worker import Worker
from rankloop.worker.v1 import worker_pb2, worker_pb2_grpc
from runtime.ending import end
from runtime.errors import Misconfigured
from runtime.logs import get_logger
from runtime.mongo import Mongo, UpdateOne
from runtime.process import ground
from runtime.rpc.server import RpcServer, Service
from runtime.settings import LogSettings, MetricsSettings, MongoSettings

log = get_logger("ranker")

EVERY_ADDRESS = ("0.0.0.0", "::", "[::]")


async def register_schema(mongo: Mongo, schema: FeatureSchema) -> None:
    """Writes down what the columns of logged feature values are called, and which callers bring, for whoever reads them later."""
    known = {"names": list(schema.names), "request": list(schema.names[schema.families[request.FAMILY]])}
    await mongo.collection("feature_schemas").bulk_write([UpdateOne({"_id": schema.hash}, {"$set": known}, upsert=True)])


async def compiled(wanted: EngineChoice) -> CandidateReaders | None:
    """What numba compiles, compiled or read from the disk before there are calls: the forest scorer, and what reads candidates.

    Returns None where LightGBM scores and Python reads. Raises Misconfigured if it must be there and is not.
    """
    if wanted == LIGHTGBM:
        return None
    began = time.perf_counter()
    try:
        await asyncio.to_thread(compiled_kernel)
        readers = await asyncio.to_thread(lambda: CandidateReaders(max_candidates=MAX_CANDIDATES))
    except NoCompiler as error:
        if wanted == FOREST:
            raise Misconfigured(f"ranker.scorer is `forest`, and {error}") from error
        log.info("LightGBM scores: there is no compiled scorer", explanation=str(error))
        return None
    log.info("compiled", seconds=round(time.perf_counter() - began, 3))
    return readers


async def run(
    *,
    ranker: RankerSettings,
    features: FeatureSettings,
    mongo: MongoSettings,
    log_settings: LogSettings,
    metrics: MetricsSettings,
    ready_file: Path | None = None,
) -> None:
    """Runs until a signal says stop. Healthy once items and the champion are in memory.

    Raises:
        Misconfigured: it cannot start like this.
        Unavailable: the database does not answer.
    """
    schema = schema_of(features)
    async with ground("ranker", mongo=mongo, log_settings=log_settings, metrics=metrics, metrics_port=ranker.metrics_port) as on:
        await register_schema(on.mongo, schema)
        items = ItemState(
            schema.names[schema.families[request.FAMILY]],
            today=day_of(time.time()),
            item_capacity=ranker.max_items,
            type_capacity=ranker.max_item_types,
        )
        users = UserHistories(
            on.mongo.collection("interactions"),
            items,
            capacity=ranker.user_cache_size,
            fresh_seconds=ranker.user_cache_seconds,
            timeout_seconds=ranker.user_read_timeout_seconds,
        )
        follower = ItemFollower(on.mongo, items, poll_seconds=ranker.item_poll_seconds, overlap_seconds=ranker.item_overlap_seconds)
        registry = ModelRegistry(on.mongo)
        loader = ModelLoader(
            registry,
            RankerNotes(registry, lambda: named(server.address)),
            schema,
            poll_seconds=ranker.model_poll_seconds,
            pinned_limit=ranker.pinned_models,
            budget_seconds=ranker.model_budget_seconds,
            engine=ranker.scorer,
        )
        readers = await compiled(ranker.scorer)
        worker = Worker(ranker, schema, items, users, loader, readers=readers)
        admission = Admission(worker.busy, capacity=ranker.max_concurrent_calls)
        service = Service.of(worker_pb2, worker_pb2_grpc, "WorkerService", WorkerServicer(worker, admission))
        server = RpcServer(ranker, [service], log_calls=log_settings.calls)
        await server.start()
        # A worker without its items or its model would answer, and worse than one that waits a moment.
        await follower.poll()
        await loader.poll()
        admission.open()
        _watch(items, users)
        async with asyncio.TaskGroup() as work:
            following = [work.create_task(follower.follow()), work.create_task(loader.follow())]
            await server.set_serving()
            on.tell_ready(ready_file, server.address)
            log.info("ranker ready", address=server.address, items=items.item_count, models=list(loader.resident_versions))
            await on.stop.wait()
            await server.drain()
            await end(*following)
    log.info("ranker stopped")


def named(address: str) -> str:
    """What a ranker at that address is called: the address, or the machine's name and the port where it answers at every address."""
    host, _, port = address.rpartition(":")
    return f"{socket.gethostname()}:{port}" if host in EVERY_ADDRESS else address


def _watch(items: ItemState, users: UserHistories) -> None:
    figures.watch(figures.ITEMS, lambda: items.item_count)
    figures.watch(figures.ITEMS_REFUSED, lambda: items.refused_count)
    figures.watch(figures.USERS, lambda: len(users))
    figures.watch(figures.USER_READS.labels("hit"), lambda: users.hit_count)
    figures.watch(figures.USER_READS.labels("miss"), lambda: users.miss_count)
    figures.watch(figures.USER_READS.labels("shared"), lambda: users.shared_count)
    figures.watch(figures.USER_READS.labels("failed"), lambda: users.failure_count)
