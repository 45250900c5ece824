"""A law: replaying the ledger gives the features that were logged, bit for bit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from collector.commit import CommitLimits
from collector.fold import FoldWorker
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.settings import LabelSettings
from collector.tracking import Tracking
from ranker.features import request
from ranker.features.schema import default_schema
from ranker.models.loader import ModelLoader
from ranker.models.refusal import RankerNotes
from ranker.models.registry import ModelRegistry
from ranker.settings import RankerSettings
from ranker.state.follower import CATALOGUE_FIELDS, ItemFollower
from ranker.state.items import ItemState, day_of
from ranker.state.users import UserHistories
from ranker.training.replay import Replay
from ranker.worker import Worker
from rankloop.v1.ranking_pb2 import Candidate, RankRequest
from rankloop.v1.tracking_pb2 import Interaction
from rankloop.worker.v1 import worker_pb2
from runtime.lease import Lease
from runtime.mongo import Mongo
from runtime.timestamps import to_timestamp
from server.slates import slate_of

SCHEMA = default_schema()
BEGIN = datetime(2026, 1, 1, 9, 30, tzinfo=UTC)
LIMITS = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)
KINDS = ("view", "click", "save", "implement", "dismiss")


async def test_what_is_replayed_is_what_was_logged(mongo: Mongo) -> None:
    random = np.random.default_rng(2)
    now = BEGIN
    await mongo.collection("items").insert_many(
        [
            {
                "_id": f"i{number}",
                "item_type": ("post", "video")[number % 2],
                "tags": [f"t{number % 3}", f"t{number % 4}"],
                "attributes": {"tier": ("gold", "silver")[number % 2]},
                "embedding": random.normal(size=4).astype("<f4").tobytes(),
                "numbers": {"cost": float(number)},
                "create_time": BEGIN - timedelta(days=number),
                "update_time": BEGIN,
            }
            for number in range(8)
        ]
    )
    items = ItemState(SCHEMA.names[SCHEMA.families[request.FAMILY]], today=day_of(now.timestamp()))
    follower = ItemFollower(mongo, items, poll_seconds=1.0, overlap_seconds=60.0, clock=lambda: now.timestamp())
    users = UserHistories(mongo.collection("interactions"), items, capacity=10, fresh_seconds=3600.0, timeout_seconds=20.0)
    registry = ModelRegistry(mongo)
    models = ModelLoader(registry, RankerNotes(registry, lambda: "here"), SCHEMA, poll_seconds=1, pinned_limit=0, budget_seconds=60)
    worker = Worker(RankerSettings(), SCHEMA, items, users, models)
    ledger = Ledger.open(mongo, LIMITS)
    news: dict[str, datetime] = {}

    def hear(user_ids: object) -> None:
        news.update(dict.fromkeys(user_ids, now))  # type: ignore[call-overload]

    tracking = Tracking(mongo, ledger, Quarantine(mongo), LabelSettings().policy(), lambda: now, tell=hear)
    lease = Lease(mongo, "fold", "w1", 60, lambda: now)
    fold = FoldWorker(mongo, lease, Combination.MAX, batch_entries=500, poll_seconds=0.01)
    for number in range(14):
        # Days with several slates, days without any, and one gap that is longer than every window.
        now += timedelta(days=33 if number == 8 else int(random.integers(0, 4)), minutes=int(random.integers(1, 500)))
        await follower.poll()
        user_id = f"u{random.integers(3)}"
        # Best first, as the slate will be: sums over the list come out the same to the last bit.
        offered = [
            Candidate(item_id=f"i{item}", prior_score=1.0 - place / 10) for place, item in enumerate(random.permutation(9)[:6].tolist())
        ]
        asked = worker_pb2.RankRequest(
            request=RankRequest(user_id=user_id, surface="home", context={"device": "mobile"}, candidates=offered),
            ranking_id=f"r{number:02}",
            request_time=to_timestamp(now),
        )
        if user_id in news:
            asked.user_news_time.CopyFrom(to_timestamp(news[user_id]))
        answer = await worker.rank(asked)
        slate = slate_of(asked.request, answer.response, answer.served, now)
        await ledger.append("slates", [slate], 10_000)
        entries = []
        for place in range(int(random.integers(0, 6))):
            now += timedelta(minutes=1)
            item = slate["items"][int(random.integers(len(slate["items"])))]
            entries.append(
                Interaction(
                    event_id=f"e{number}-{place}",
                    user_id=user_id,
                    item_id=item["item_id"],
                    item_type=item["item_type"],
                    type=KINDS[int(random.integers(len(KINDS)))],
                    occur_time=to_timestamp(now),
                    ranking_id=slate["_id"],
                )
            )
        if entries:
            assert (await tracking.track(entries)).accepted_count == len(entries)
        assert await lease.claim()
        while await fold.fold_once():
            pass

    replay = Replay(SCHEMA)
    replay.items.catalogue.replace(await mongo.collection("items").find({}, CATALOGUE_FIELDS, limit=100))
    slates = await mongo.collection("slates").find({}, limit=100, sort=[("show_time", 1)])
    interactions = await mongo.collection("interactions").find({}, limit=1000, sort=[("occur_time", 1)])
    assert len(slates) == 14
    assert len(interactions) > 20
    seen = set()
    for slate in slates:
        while interactions and interactions[0]["occur_time"] < slate["show_time"]:
            replay.interacted(interactions.pop(0))
        logged = np.frombuffer(slate["features"], dtype="<f8").reshape(len(slate["items"]), len(SCHEMA))
        replayed = replay.features(slate, ())
        # Only what the catalogue says about numbers is as sent; all else has to be found out again.
        differing = [name for column, name in enumerate(SCHEMA.names) if logged[:, column].tobytes() != replayed[:, column].tobytes()]
        assert not differing, (slate["_id"], differing)
        seen |= {name for column, name in enumerate(SCHEMA.names) if np.nanmax(np.nan_to_num(logged[:, column])) > 0}
        replay.showed(slate)
    # The law is not about zeros: nearly every computed feature was something else at some time.
    assert {"item_ctr_7d", "type_act_rate_30d", "user_tag_overlap", "user_item_best_label", "embedding_match", "list_prior_z"} <= seen
