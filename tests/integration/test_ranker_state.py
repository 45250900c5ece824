"""The ranking worker against a real database: what it reads at start, what it follows, and how it ends."""

from __future__ import annotations

import asyncio
import datetime
import json
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ranker.models.registry import ModelRegistry
from ranker.process import register_schema
from ranker.state.follower import ItemFollower
from ranker.state.items import ItemState, day_of
from ranker.state.users import UserHistories
from rankloop.v1.ranking_pb2 import Candidate
from rankloop.v1.ranking_pb2 import RankRequest as PublicRankRequest
from rankloop.worker.v1 import worker_pb2_grpc
from rankloop.worker.v1.worker_pb2 import GetStatusRequest, RankRequest
from runtime.mongo import InsertOne, Long, Mongo, ReplaceOne
from runtime.settings import MongoSettings
from tests.integration.bundles import SCHEMA, bundle

MIDNIGHT = datetime.datetime(2026, 3, 5, tzinfo=datetime.UTC)
NOON = MIDNIGHT + datetime.timedelta(hours=12)
TODAY = day_of(MIDNIGHT.timestamp())
DAY = datetime.timedelta(days=1)


class Clock:
    """The present, moved by hand."""

    now = NOON

    def __call__(self) -> float:
        return self.now.timestamp()


def tally(scope: str, key: str, start: datetime.datetime, revision: int, **day: int) -> ReplaceOne[dict[str, Any]]:
    identity = {"scope": scope, "start": start, "key": key}
    return ReplaceOne({"_id": identity}, {"_id": identity, "revision": Long(revision), "day": day, "hours": {}}, upsert=True)


def state() -> ItemState:
    return ItemState(SCHEMA.names[SCHEMA.families["request"]], today=TODAY)


def follower(mongo: Mongo, items: ItemState, clock: Clock, *, overlap_seconds: float = 60.0) -> ItemFollower:
    return ItemFollower(mongo, items, poll_seconds=1.0, overlap_seconds=overlap_seconds, clock=clock)


def impressions(items: ItemState, item_id: str) -> list[int]:
    """Over 1, 7, 30 days and all time."""
    counted: list[int] = items.tallies.at(items.rows.find([item_id], 1))[0, :, 0].tolist()
    return counted


async def test_everything_at_start_then_what_changed_and_the_same_twice_changes_nothing(mongo_both: Mongo) -> None:
    mongo, items, clock = mongo_both, state(), Clock()
    tallies = mongo.collection("tallies")
    await tallies.bulk_write(
        [
            tally("item", "a", MIDNIGHT, 1, impressions=5, clicked=2),
            tally("item", "a", MIDNIGHT - 10 * DAY, 1, impressions=7),
            tally("item", "b", MIDNIGHT - 40 * DAY, 1, impressions=11),
            tally("type", "t", MIDNIGHT, 1, impressions=5),
            tally("all", "", MIDNIGHT, 1, impressions=5),
            tally("surface", "home", MIDNIGHT, 1, impressions=99),
        ]
    )
    following = follower(mongo, items, clock)
    for _ in range(2):
        await following.poll()
        assert impressions(items, "a") == [5, 5, 12, 12]
        assert impressions(items, "b") == [0, 0, 0, 11]
        assert impressions(items, "home") == [0, 0, 0, 0]
    await tallies.bulk_write(
        [tally("item", "a", MIDNIGHT, 2, impressions=6, clicked=2), tally("item", "c", MIDNIGHT - DAY, 3, impressions=1)]
    )
    await following.poll()
    assert impressions(items, "a") == [6, 6, 13, 13]
    assert impressions(items, "c") == [0, 1, 1, 1]


async def test_many_documents_of_one_commit_are_all_read(mongo: Mongo) -> None:
    items = state()
    await mongo.collection("tallies").bulk_write([tally("item", f"i{n}", MIDNIGHT, 7, impressions=n) for n in range(4500)])
    await follower(mongo, items, Clock()).poll()
    assert items.item_count == 4500
    assert impressions(items, "i4499")[0] == 4499


async def test_windows_move_at_midnight(mongo: Mongo) -> None:
    items, clock = state(), Clock()
    await mongo.collection("tallies").bulk_write([tally("item", "a", MIDNIGHT, 1, impressions=5)])
    following = follower(mongo, items, clock)
    await following.poll()
    for days, expected in ((1, [0, 5, 5, 5]), (6, [0, 5, 5, 5]), (7, [0, 0, 5, 5]), (29, [0, 0, 5, 5]), (30, [0, 0, 0, 5])):
        clock.now = MIDNIGHT + days * DAY
        await following.poll()
        assert impressions(items, "a") == expected, days


async def test_rebuilt_tallies_are_read_from_the_start(mongo: Mongo) -> None:
    items = state()
    following = follower(mongo, items, Clock())
    await mongo.collection("tallies").bulk_write([tally("item", "a", MIDNIGHT, 50, impressions=5)])
    await following.poll()
    await mongo.collection("tallies").delete_many({})
    await following.poll()
    await mongo.collection("tallies").bulk_write([tally("item", "a", MIDNIGHT, 1, impressions=6)])
    await following.poll()
    assert impressions(items, "a") == [6, 6, 6, 6]


async def test_catalogue_changes_of_servers_with_slow_clocks_are_seen_within_the_overlap(mongo_both: Mongo) -> None:
    mongo, items, clock = mongo_both, state(), Clock()
    catalogue = mongo.collection("items")
    await catalogue.insert_many(
        [{"_id": "a", "item_type": "t", "update_time": NOON}, {"_id": "b", "item_type": "t", "update_time": NOON - 9 * DAY}]
    )
    following = follower(mongo, items, clock)
    await following.poll()
    assert (items.item_type("a"), items.item_type("b")) == ("t", "t")
    # Written now, by a server whose clock is 40 seconds behind that of the one that wrote `a`.
    await catalogue.insert_one({"_id": "late", "item_type": "u", "update_time": NOON - datetime.timedelta(seconds=40)})
    await catalogue.replace_one({"_id": "a"}, {"item_type": "v", "update_time": NOON})
    clock.now += datetime.timedelta(seconds=1)
    await following.poll()
    assert (items.item_type("late"), items.item_type("a")) == ("u", "v")
    await catalogue.replace_one({"_id": "b"}, {"deleted": True, "update_time": clock.now})
    await following.poll()
    assert items.item_type("b") == ""


async def test_an_item_as_the_catalogue_stores_it(mongo: Mongo) -> None:
    items = state()
    await mongo.collection("items").insert_one(
        {
            "_id": "a",
            "item_type": "t",
            "tags": ["x", "y"],
            "attributes": {"tier": "gold", "colour": "red"},
            "numbers": {"price": 3.5},
            "embedding": struct.pack("<2f", 3.0, 4.0),
            "create_time": NOON - DAY,
            "update_time": NOON,
            "available": True,
        }
    )
    await follower(mongo, items, Clock()).poll()
    assert items.tags("a") == ("x", "y")
    found = items.embeddings(["a"])
    assert found is not None
    np.testing.assert_allclose(found[0], [[0.6, 0.8]], rtol=1e-6)


async def test_a_users_newest_interactions_by_one_indexed_read(mongo_both: Mongo) -> None:
    mongo = mongo_both
    interactions = mongo.collection("interactions")
    await interactions.insert_many(
        [
            {
                "_id": f"e{n}",
                "user_id": "u" if n else "other",
                "item_id": f"i{n}",
                "item_type": "t",
                "type": "dismiss" if n == 7 else "click",
                "label": 0.0 if n == 7 else 0.4,
                "acts": n != 7,
                "occur_time": NOON - datetime.timedelta(minutes=n),
                "receive_time": NOON,
            }
            for n in range(260)
        ]
    )
    users = UserHistories(interactions, state(), capacity=10, fresh_seconds=60.0, timeout_seconds=10.0)
    history = await users.get("u")
    assert len(history.seconds) == 200
    assert history.seconds[0] == (NOON - datetime.timedelta(minutes=1)).timestamp()
    assert history.dismissed == {"i7"}
    plan = await interactions.explain({"user_id": "u"}, sort=[("user_id", 1), ("occur_time", -1), ("_id", -1)])
    assert "SORT" not in str(plan["queryPlanner"]["winningPlan"])


async def test_the_schema_is_written_down_once(mongo: Mongo) -> None:
    await register_schema(mongo, SCHEMA)
    await register_schema(mongo, SCHEMA)
    stored = await mongo.collection("feature_schemas").find_one({"_id": SCHEMA.hash})
    assert stored is not None
    assert stored["names"] == list(SCHEMA.names)


# The process

MAIN = """
import asyncio, sys
from pathlib import Path
from ranker.process import run
from ranker.settings import FeatureSettings, RankerSettings
from runtime.settings import LogSettings, MetricsSettings, MongoSettings
uri, database, ready = sys.argv[1:]
asyncio.run(run(ranker=RankerSettings(model_poll_seconds=0.05, item_poll_seconds=0.05), features=FeatureSettings(),
    mongo=MongoSettings(uri=uri, database=database), log_settings=LogSettings(), metrics=MetricsSettings(), ready_file=Path(ready)))
"""


async def test_the_process_serves_swaps_and_ends_on_sigterm(mongo: Mongo, mongo_settings: MongoSettings, tmp_path: Path) -> None:
    await mongo.collection("items").bulk_write([InsertOne({"_id": "a", "item_type": "t", "update_time": NOON})])
    ready = tmp_path / "ready.json"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", MAIN, mongo_settings.uri, mongo_settings.database, str(ready))
    try:
        async with asyncio.timeout(60):
            while not ready.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
            address = json.loads(ready.read_text())["address"]
            async with grpc.aio.insecure_channel(address) as channel:
                health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
                assert health.status == health_pb2.HealthCheckResponse.SERVING
                stub = worker_pb2_grpc.WorkerServiceStub(channel)
                request = RankRequest(
                    request=PublicRankRequest(
                        user_id="u",
                        candidates=[Candidate(item_id="a", features={"cost": -1.0}), Candidate(item_id="b", features={"cost": 1.0})],
                    ),
                    ranking_id="r",
                    request_time=Timestamp(seconds=int(NOON.timestamp())),
                )
                answer = await stub.Rank(request)
                assert answer.response.fallback_reason == "NO_MODEL"
                assert list(answer.served.item_types) == ["t", ""]
                registry = ModelRegistry(mongo)
                await registry.publish(bundle("one"), NOON)
                await registry.promote("one", NOON)
                while (await stub.GetStatus(GetStatusRequest())).model_version != "one":
                    await asyncio.sleep(0.02)
                answer = await stub.Rank(request)
                assert [item.item_id for item in answer.response.items] == ["b", "a"]
                assert answer.response.model_version == "one"
                request.request.model_version = "nobody"
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Rank(request)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
                request.request.ClearField("candidates")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Rank(request)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
