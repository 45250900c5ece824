"""What the storage promises, on both drivers and a real MongoDB."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from runtime.errors import DuplicateKey, Misconfigured, Unavailable
from runtime.mongo import InsertOne, Mongo, UpdateOne
from runtime.schema import COLLECTIONS, MIGRATIONS, fixed, migrate
from runtime.settings import MongoSettings

NOW = datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)


def interaction(event_id: str) -> dict[str, Any]:
    return {"_id": event_id, "user_id": "u", "item_id": "i", "type": "view", "label": 0.1, "occur_time": NOW, "receive_time": NOW}


async def test_insert_many_names_the_ids_that_were_there(mongo_both: Mongo) -> None:
    ledger = mongo_both.collection("interactions")
    assert await ledger.insert_many([interaction("a"), interaction("b")]) == frozenset()
    assert await ledger.insert_many([interaction("c"), interaction("a"), interaction("d"), interaction("b")]) == {1, 3}
    assert await ledger.count({}, limit=10) == 4


async def test_what_the_validator_refuses_is_not_taken_for_a_duplicate(mongo_both: Mongo) -> None:
    broken = interaction("x")
    del broken["user_id"]
    with pytest.raises(Unavailable):
        await mongo_both.collection("interactions").insert_many([interaction("y"), broken])


async def test_values_come_back_as_they_went_in(mongo_both: Mongo) -> None:
    await mongo_both.collection("meta").insert_one({"_id": "x", "time": NOW, "blob": b"\0\1", "n": 2**40})
    assert await mongo_both.collection("meta").find_one({"_id": "x"}) == {"_id": "x", "time": NOW, "blob": b"\0\1", "n": 2**40}


async def test_batches_walk_everything_once(mongo_both: Mongo) -> None:
    await mongo_both.collection("meta").insert_many([{"_id": n} for n in range(2500)])
    sizes, seen = [], []
    async for batch in mongo_both.collection("meta").batches({"_id": {"$type": "int"}}, sort=[("_id", 1)], batch_size=1000):
        sizes.append(len(batch))
        seen += [document["_id"] for document in batch]
    assert seen == list(range(2500))
    assert max(sizes) <= 1000


async def test_a_transaction_is_all_or_nothing(mongo_both: Mongo) -> None:
    meta = mongo_both.collection("meta")

    async def half(session: Any) -> None:
        await meta.insert_one({"_id": "first"}, session=session)
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError):
        await mongo_both.transact(half)
    assert await meta.find_one({"_id": "first"}) is None


async def test_transactions_that_meet_are_repeated(mongo_both: Mongo) -> None:
    meta = mongo_both.collection("meta")
    await meta.insert_one({"_id": "counter", "n": 0})

    async def add(session: Any) -> None:
        found = await meta.find_one({"_id": "counter"}, session=session)
        assert found is not None
        await meta.bulk_write([UpdateOne({"_id": "counter"}, {"$set": {"n": found["n"] + 1}})], session=session)

    await asyncio.gather(*(mongo_both.transact(add) for _ in range(4)))
    assert await meta.find_one({"_id": "counter"}) == {"_id": "counter", "n": 4}


async def test_bulk_inserts_that_meet_an_id_say_so(mongo_both: Mongo) -> None:
    await mongo_both.collection("meta").insert_one({"_id": "a"})
    with pytest.raises(DuplicateKey):
        await mongo_both.collection("meta").bulk_write([InsertOne({"_id": "a"}), InsertOne({"_id": "b"})])


async def test_blobs(mongo_both: Mongo) -> None:
    blobs, content = mongo_both.blobs, bytes(range(256)) * 4000
    assert await blobs.get("b") is None
    await blobs.put("b", content)
    with pytest.raises(DuplicateKey):
        await blobs.put("b", b"other")
    assert await blobs.get("b") == content
    assert await blobs.exists("b")
    await blobs.delete("b")
    await blobs.delete("b")
    assert not await blobs.exists("b")


async def test_migrating_twice_and_at_once_does_nothing_more(mongo_both: Mongo) -> None:
    await mongo_both.drop_database()
    await asyncio.gather(*(migrate(mongo_both) for _ in range(3)))
    assert await mongo_both.collection("meta").find_one({"_id": "schema"}) == {"_id": "schema", "version": len(MIGRATIONS)}
    assert len({collection.name for collection in COLLECTIONS}) == len(COLLECTIONS)


async def test_a_database_of_a_later_release_is_left_alone(mongo_both: Mongo) -> None:
    await mongo_both.collection("meta").update_one({"_id": "schema"}, {"$set": {"version": 999}})
    with pytest.raises(Misconfigured, match="schema version 999"):
        await migrate(mongo_both)


async def test_the_first_word_fixes_a_fact(mongo_both: Mongo) -> None:
    assert set(await asyncio.gather(*(fixed(mongo_both, "size", n) for n in range(5)))) == {await fixed(mongo_both, "size", 99)}


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize(
    ("uri", "failure", "words"),
    [
        ("", Misconfigured, "RANKLOOP_MONGO_URI"),
        ("http://x", Misconfigured, "mongodb://"),
        ("mongodb://user:secret@127.0.0.1:1/", Unavailable, "no MongoDB answers"),
    ],
)
async def test_a_wrong_uri_is_one_sentence_without_the_password(driver: Any, uri: str, failure: type[Exception], words: str) -> None:
    settings = MongoSettings(uri=uri, driver=driver, server_selection_timeout_seconds=0.3)
    with pytest.raises(failure, match=words) as caught:
        await Mongo.open(settings)
    assert "secret" not in str(caught.value)


async def test_a_snapshot_reads_one_moment(mongo_both: Mongo) -> None:
    things = mongo_both.collection("things")
    await things.insert_one({"_id": 1})
    async with mongo_both.snapshot() as session:
        assert await things.find({}, limit=10, session=session) == [{"_id": 1}]
        await things.insert_one({"_id": 2})
        await things.delete_one({"_id": 1})
        assert await things.find_one({}, session=session) == {"_id": 1}
        assert [batch async for batch in things.batches({}, session=session)] == [[{"_id": 1}]]
    assert await things.find({}, limit=10) == [{"_id": 2}]
