"""What is read from the ledger, beside the documents it was written from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from collector.fold import FoldWorker
from collector.labels import Combination
from ranker.features.schema import default_schema
from ranker.training import dataset
from ranker.training.data import TrainingData
from ranker.training.dataset import count_interactions, load
from ranker.training.failures import CannotTrain
from runtime.lease import Lease
from runtime.mongo import Mongo
from tests.integration.learnable import NOW, History, Silent


async def read(mongo: Mongo, days: float = 90.0) -> TrainingData:
    data, _ = await load(mongo, NOW - timedelta(days=days), NOW, Silent())
    return data


async def test_every_value_is_the_one_that_was_logged(mongo_both: Mongo) -> None:
    history = await History(slates=450).write(mongo_both)
    slates, _, attributions = history.documents()
    labels = {(one["ranking_id"], one["_id"]["item_id"]): one["label"] for one in attributions}
    data = await read(mongo_both)
    touched = [slate for slate in slates if any(slate["_id"] == ranking_id for ranking_id, _ in labels)]
    assert list(data.ranking_ids) == [slate["_id"] for slate in touched]
    assert data.feature_names == history.names
    assert data.schema_hash == history.schema_hash
    assert data.matrix.flags.c_contiguous
    codes: dict[str, int] = {}
    for place, slate in enumerate(touched):
        part = data.part(place, place + 1)
        assert part.matrix.astype("<f8").tobytes() == slate["features"]
        assert list(part.labels) == [labels.get((slate["_id"], item["item_id"]), 0.0) for item in slate["items"]]
        assert list(part.positions) == [item["position"] for item in slate["items"]]
        assert part.users[0] == codes.setdefault(slate["user_id"], len(codes))
        assert part.show_times[0] == int(slate["show_time"].timestamp() * 1000)


async def test_slates_come_by_time_whatever_order_they_were_stored_in(mongo: Mongo) -> None:
    history = await History(slates=60).write(mongo)
    slates = mongo.collection("slates")
    documents = history.documents()[0]
    await slates.delete_many({})
    moment = documents[30]["show_time"]
    for document in documents[25:35]:
        document["show_time"] = moment
    await slates.insert_many(list(reversed(documents)))
    data = await read(mongo)
    assert list(data.ranking_ids) == sorted(data.ranking_ids)
    assert (np.diff(data.show_times) >= 0).all()


async def test_another_schema_is_mapped_by_name_and_the_newest_one_rules(mongo: Mongo) -> None:
    older = await History(slates=50, days=40, names=("item_cost", "gone_since", "item_quality"), schema_hash="old", seed=2).write(mongo)
    await History(slates=50, days=10, first=1000).write(mongo)
    data = await read(mongo)
    assert data.schema_hash == "schema-one"
    assert data.feature_names == History().names
    mapped = [place for place, ranking_id in enumerate(data.ranking_ids) if ranking_id < "r001000"]
    logged = {slate["_id"]: np.frombuffer(slate["features"]).reshape(-1, 3) for slate in older.documents()[0]}
    for place in mapped:
        part, values = data.part(place, place + 1), logged[data.ranking_ids[place]]
        np.testing.assert_array_equal(part.columns(("item_cost", "item_quality")), values[:, [0, 2]])
        assert np.isnan(part.columns(("prior_score", "user_mood", "never_sent"))).all()
    assert len(mapped) > 20
    newer = [place for place, ranking_id in enumerate(data.ranking_ids) if ranking_id >= "r001000"]
    assert not any(np.isnan(data.part(place, place + 1).columns(("prior_score",))).any() for place in newer)


async def test_an_unknown_schema_is_counted_not_guessed(mongo: Mongo) -> None:
    await History(slates=60).write(mongo)
    await mongo.collection("slates").update_many({"_id": {"$lt": "r000010"}}, {"$set": {"schema_hash": "never recorded"}})
    data, counts = await load(mongo, NOW - timedelta(days=90), NOW, Silent())
    assert counts.slates_with_bad_features == 10
    assert data.ranking_ids[0] >= "r000010"
    await mongo.collection("feature_schemas").delete_many({})
    with pytest.raises(CannotTrain, match="not recorded in feature_schemas"):
        await read(mongo)


async def test_visitors_without_an_id_are_not_one_user(mongo: Mongo) -> None:
    await History(slates=60, users=3).write(mongo)
    await mongo.collection("slates").update_many({"_id": {"$lt": "r000010"}}, {"$set": {"user_id": ""}})
    data = await read(mongo)
    unknown = int((data.ranking_ids < "r000010").sum())
    assert np.unique(data.users).size == unknown + 3


async def test_the_window_is_half_open(mongo: Mongo) -> None:
    history = await History(slates=60).write(mongo)
    moments = sorted(one["occur_time"] for one in history.documents()[1])
    assert await count_interactions(mongo, moments[3], moments[9]) == sum(moments[3] <= moment < moments[9] for moment in moments)


async def test_more_rows_than_the_first_room_hold_together(mongo: Mongo) -> None:
    # Room is made for every impression of the window, and slates without a label leave theirs unused.
    history = await History(slates=600, items=20).write(mongo)
    data = await read(mongo)
    assert data.matrix.shape == (data.row_count, len(history.names))
    assert data.row_count > 8192
    logged = {slate["_id"]: slate["features"] for slate in history.documents()[0]}
    assert np.ascontiguousarray(data.matrix).tobytes() == b"".join(logged[ranking_id] for ranking_id in data.ranking_ids)


SCHEMA = default_schema(["item_quality", "item_cost", "user_mood"])


async def test_slates_without_features_get_those_of_their_moment(mongo_both: Mongo) -> None:
    await History(slates=60).write(mongo_both)
    await mongo_both.collection("slates").update_many({}, {"$unset": {"features": "", "schema_hash": ""}})
    data, counts = await load(mongo_both, NOW - timedelta(days=20), NOW, Silent(), schema=SCHEMA)
    assert (data.feature_names, data.schema_hash) == (SCHEMA.names, SCHEMA.hash)
    assert counts.slates_replayed == counts.slates == 39
    assert counts.slates_without_features == 0
    # What was shown before the window counts, too, and nothing of the slate itself: slate 21 is the first of the window.
    shown = await mongo_both.collection("slates").find({}, {"items": 1, "user_id": 1, "show_time": 1}, sort=[("_id", 1)], limit=60)
    interactions = await mongo_both.collection("interactions").find({}, limit=10_000)
    for place, ranking_id in enumerate(data.ranking_ids):
        slate = shown[int(ranking_id[1:])]
        known = [one for one in interactions if one["user_id"] == slate["user_id"] and one["occur_time"] < slate["show_time"]]
        assert set(data.part(place, place + 1).columns(["user_interactions_all"])[:, 0]) == {len(known)}
    # Labels do not depend on where the features come from.
    with_features = {one["ranking_id"] for one in await mongo_both.collection("attributions").find({}, limit=10_000)}
    assert set(data.ranking_ids) <= with_features


async def test_what_callers_brought_is_completed_and_what_rankers_logged_stays(mongo: Mongo) -> None:
    logged = await History(slates=30, days=10).write(mongo)
    brought = History(slates=30, days=20, first=1000, names=("item_cost", "prior_score"), schema_hash="columns-of-a-caller", seed=2)
    await brought.write(mongo)
    data, counts = await load(mongo, NOW - timedelta(days=90), NOW, Silent(), schema=SCHEMA)
    # Rankers logged something: theirs are the columns, and the rest is mapped by name.
    assert data.feature_names == logged.names
    assert counts.slates_replayed == 30
    values = {slate["_id"]: slate["features"] for slate in (*logged.documents()[0], *brought.documents()[0])}
    for place, ranking_id in enumerate(data.ranking_ids):
        part = data.part(place, place + 1)
        if ranking_id < "r001000":
            assert part.matrix.tobytes() == values[ranking_id]
        else:
            given = np.frombuffer(values[ranking_id]).reshape(-1, 2)
            np.testing.assert_array_equal(part.columns(("item_cost", "prior_score")), given)
    without, counts = await load(mongo, NOW - timedelta(days=90), NOW, Silent())
    assert counts.slates_replayed == 0
    assert without.feature_names == logged.names


async def test_one_user_is_no_crowd(mongo: Mongo) -> None:
    await History(slates=120, users=2).write(mongo)
    await mongo.collection("slates").update_many({"_id": {"$gte": "r000030"}}, {"$set": {"user_id": "robot"}})
    data, counts = await load(mongo, NOW - timedelta(days=90), NOW, Silent(), max_slates_per_user=10)
    of_user = {user: int(count) for user, count in zip(*np.unique(data.users, return_counts=True), strict=True)}
    assert max(of_user.values()) <= 10
    assert counts.slates_over_cap == 120 - sum(min(10, count) for count in await sizes(mongo))
    robots = [int(ranking_id[1:]) for ranking_id in data.ranking_ids if ranking_id >= "r000030"]
    # Evenly spread over its time: the first of them in the first fifth, the last in the last.
    assert min(robots) < 30 + 18
    assert max(robots) >= 120 - 18


async def sizes(mongo: Mongo) -> list[int]:
    """Slates per user."""
    slates = await mongo.collection("slates").find({}, {"user_id": 1}, limit=10_000)
    users = [slate["user_id"] for slate in slates]
    return [users.count(user) for user in set(users)]


@pytest.mark.parametrize(("rule", "label"), [("max", 0.4), ("sum", 0.4 + 0.1), ("last", 0.1), ("decayed", 0.1 + 0.4 / 2)])
async def test_labels_are_those_of_the_deployments_rule(mongo: Mongo, rule: str, label: float) -> None:
    # A click on the first item, and then a glance at it; a click on the second; nothing on the third.
    shown = NOW - timedelta(hours=2)
    entry = {"user_id": "u", "receive_time": shown, "pending": shown}
    items = [{"item_id": item_id, "item_type": "post", "position": place} for place, item_id in enumerate("abc", start=1)]
    await mongo.collection("slates").insert_many([{**entry, "_id": "r", "show_time": shown, "items": items}])
    touches = [("a", "click", 0.4, 5), ("a", "view", 0.1, 9), ("b", "click", 0.4, 7)]
    await mongo.collection("interactions").insert_many(
        [
            {
                **entry,
                "_id": f"e{second}",
                "item_id": item_id,
                "type": kind,
                "label": worth,
                "acts": kind == "click",
                "ranking_id": "r",
                "occur_time": shown + timedelta(seconds=second),
            }
            for item_id, kind, worth, second in touches
        ]
    )
    lease = Lease(mongo, "fold", "w", 60, lambda: NOW)
    assert await lease.claim()
    worker = FoldWorker(mongo, lease, Combination(rule), batch_entries=100, poll_seconds=1)
    while await worker.fold_once():
        pass
    data, _ = await load(mongo, NOW - timedelta(days=90), NOW, Silent(), untouched="negative", schema=SCHEMA)
    assert list(data.labels) == pytest.approx([label, 0.4, 0.0])


async def test_slates_that_come_while_it_reads_wait_for_the_next_training(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    await History(slates=60).write(mongo)
    look = dataset._look

    async def slow_look(of: Mongo, shown: Mapping[str, Any]) -> Any:
        window = await look(of, shown)
        await History(slates=300, first=5000, seed=3).write(of)
        return window

    expected = await read(mongo)
    monkeypatch.setattr(dataset, "_look", slow_look)
    data = await read(mongo)
    np.testing.assert_array_equal(data.matrix, expected.matrix)
    assert list(data.ranking_ids) == list(expected.ranking_ids)
