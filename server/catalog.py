"""The catalogue: items and users, as the deployment states them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from collector.tracking import rejection
from collector.validation import MAX_MAP_ENTRIES, Faults, check_count
from rankloop.v1.catalog_pb2 import Item, User
from rankloop.v1.tracking_pb2 import Rejection
from runtime.errors import InvalidInput, NotFound, Violation
from runtime.mongo import Document, Mongo, UpdateOne
from runtime.schema import fixed
from runtime.timestamps import at_millisecond, to_datetime, to_timestamp
from server.paging import last_of, page_size, token_after

MAX_EMBEDDING = 4096
LIVE = {"deleted": {"$exists": False}}


@dataclass(slots=True)
class Stored:
    """What became of the entries of a call."""

    accepted_count: int = 0
    rejected: list[Rejection] = field(default_factory=list)


class Catalog:
    """Items and users in MongoDB. A deleted item leaves a tombstone, so that rankers see it go."""

    def __init__(self, mongo: Mongo, clock: Callable[[], datetime]) -> None:
        self._mongo = mongo
        self._items = mongo.collection("items")
        self._users = mongo.collection("users")
        self._clock = clock
        self._embedding_size: int | None = None

    async def upsert_items(self, entries: Sequence[Item]) -> Stored:
        """Creates or replaces items; when it returns, those accepted are durable.

        Raises:
            InvalidInput: there are none, or more than 1,000.
        """
        check_count("items", len(entries))
        now = at_millisecond(self._clock())
        embedding_size = await self._fixed_embedding_size(entries)
        faults = {
            place: found for place, entry in enumerate(entries) if (found := _item_faults(entry, f"items[{place}].", now, embedding_size))
        }
        writes = [
            UpdateOne({"_id": entry.item_id}, _item_update(entry, now), upsert=True)
            for entry in _last_of_each(entries, lambda entry: entry.item_id, faults)
        ]
        await self._items.bulk_write(writes)
        return _stored(entries, lambda entry: entry.item_id, faults)

    async def get_item(self, item_id: str) -> Item:
        """One item. Raises InvalidInput and NotFound."""
        _check_ids({"item_id": item_id})
        found = await self._items.find_one({"_id": item_id, **LIVE})
        if found is None:
            raise NotFound(f"there is no item {item_id[:256]!r}", reason="ITEM_NOT_FOUND")
        return item_message(found)

    async def list_items(self, *, size: int, token: str, item_type: str) -> tuple[list[Item], str]:
        """A page of items by id, and the token of the next one."""
        question = ["items", item_type]
        last = last_of(token, question, str)
        query: dict[str, Any] = dict(LIVE)
        if item_type:
            query["item_type"] = item_type
        if last:
            query["_id"] = {"$gt": last[0]}
        limit = page_size(size)
        found = await self._items.find(query, sort=[("_id", 1)], limit=limit + 1)
        more = token_after(question, [found[limit - 1]["_id"]]) if len(found) > limit else ""
        return [item_message(document) for document in found[:limit]], more

    async def delete_items(self, item_ids: Sequence[str]) -> int:
        """Deletes items; returns how many were there. Raises InvalidInput."""
        check_count("item_ids", len(item_ids))
        _check_ids({f"item_ids[{place}]": item_id for place, item_id in enumerate(item_ids)})
        now = at_millisecond(self._clock())
        query = {"_id": {"$in": list(item_ids)}, **LIVE}
        return await self._items.update_many(query, {"$set": {"deleted": True, "available": False, "update_time": now}})

    async def upsert_users(self, entries: Sequence[User]) -> Stored:
        """Creates or replaces users. Raises as `upsert_items`."""
        check_count("users", len(entries))
        now = at_millisecond(self._clock())
        faults = {place: found for place, entry in enumerate(entries) if (found := _user_faults(entry, f"users[{place}].", now))}
        writes = [
            UpdateOne({"_id": entry.user_id}, _user_update(entry, now), upsert=True)
            for entry in _last_of_each(entries, lambda entry: entry.user_id, faults)
        ]
        await self._users.bulk_write(writes)
        return _stored(entries, lambda entry: entry.user_id, faults)

    async def get_user(self, user_id: str) -> User:
        """One user. Raises InvalidInput and NotFound."""
        _check_ids({"user_id": user_id})
        found = await self._users.find_one({"_id": user_id})
        if found is None:
            raise NotFound(f"there is no user {user_id[:256]!r}", reason="USER_NOT_FOUND")
        return user_message(found)

    async def _fixed_embedding_size(self, entries: Sequence[Item]) -> int | None:
        """The size that all embeddings of the deployment have; the first one stored fixes it. None: none was, and none comes."""
        if self._embedding_size is None:
            first = next((len(entry.embedding) for entry in entries if 1 <= len(entry.embedding) <= MAX_EMBEDDING), None)
            if first is not None:
                self._embedding_size = int(await fixed(self._mongo, "embedding_size", first))
        return self._embedding_size


def _last_of_each(entries: Sequence[Any], id_of: Callable[[Any], str], faults: Container[int]) -> list[Any]:
    """The entries without faults; of those with one id, only the last."""
    return list({id_of(entry): entry for place, entry in enumerate(entries) if place not in faults}.values())


def _check_ids(ids: Mapping[str, str]) -> None:
    """Ids by field: 1 to 256 bytes. Raises InvalidInput."""
    faults = Faults("")
    for name, value in ids.items():
        faults.id(name, value, required=True)
    if faults.found:
        raise InvalidInput(faults.found)


def _stored_keys(entries: Mapping[str, Any]) -> Document:
    """A caller's map as a document. A key in front of which MongoDB's own `$` stands would be read as a command or a reference."""
    return {f"%{ord(key[0]):X}{key[1:]}" if key[0] in "$%" else key: value for key, value in entries.items()}


def _caller_keys(document: Document) -> dict[str, Any]:
    """The reverse of `_stored_keys`."""
    return {chr(int(key[1:3], 16)) + key[3:] if key[0] == "%" else key: value for key, value in document.items()}


def _stored(entries: Sequence[Any], id_of: Callable[[Any], str], faults: Mapping[int, Sequence[Violation]]) -> Stored:
    rejected = [rejection(place, id_of(entries[place]), found) for place, found in sorted(faults.items())]
    return Stored(len(entries) - len(faults), rejected)


def _item_faults(entry: Item, path: str, now: datetime, embedding_size: int | None) -> list[Violation]:
    faults = Faults(path)
    faults.id("item_id", entry.item_id, required=True)
    faults.id("item_type", entry.item_type, required=False)
    faults.tags("tags", entry.tags)
    faults.texts("attributes", entry.attributes)
    faults.numbers("numbers", entry.numbers, most=MAX_MAP_ENTRIES)
    _key_faults(faults, "attributes", entry.attributes)
    _key_faults(faults, "numbers", entry.numbers)
    if entry.embedding:
        if len(entry.embedding) != embedding_size:
            expected = f"expected {embedding_size}, as all others have" if embedding_size else f"expected at most {MAX_EMBEDDING}"
            faults.add("embedding", "WRONG_SIZE", f"has {len(entry.embedding)} values; {expected}")
        elif not np.isfinite(np.fromiter(entry.embedding, dtype=np.float32)).all():
            faults.add("embedding", "NOT_FINITE", "has values that are not finite numbers")
    if entry.HasField("create_time"):
        faults.time("create_time", entry.create_time, now)
    return faults.found


def _user_faults(entry: User, path: str, now: datetime) -> list[Violation]:
    faults = Faults(path)
    faults.id("user_id", entry.user_id, required=True)
    faults.texts("attributes", entry.attributes)
    faults.numbers("numbers", entry.numbers, most=MAX_MAP_ENTRIES)
    _key_faults(faults, "attributes", entry.attributes)
    _key_faults(faults, "numbers", entry.numbers)
    if entry.HasField("create_time"):
        faults.time("create_time", entry.create_time, now)
    return faults.found


def _key_faults(faults: Faults, name: str, entries: Mapping[str, Any]) -> None:
    for key in entries:
        if "\0" in key:
            faults.add(name, "INVALID", "a key holds a NUL character")


def _item_update(entry: Item, now: datetime) -> Document:

    stated: Document = {
        "item_type": entry.item_type,
        "tags": list(entry.tags),
        "attributes": _stored_keys(entry.attributes),
        "numbers": _stored_keys(entry.numbers),
        "available": not entry.HasField("available") or entry.available,
        "update_time": now,
    }
    absent: Document = {"deleted": ""}
    if entry.embedding:
        stated["embedding"] = np.fromiter(entry.embedding, dtype="<f4").tobytes()
    else:
        absent["embedding"] = ""
    update: Document = {"$set": stated, "$unset": absent}
    if entry.HasField("create_time"):
        stated["create_time"] = to_datetime(entry.create_time)
    else:
        update["$setOnInsert"] = {"create_time": now}
    return update


def _user_update(entry: User, now: datetime) -> Document:
    stated: Document = {"attributes": _stored_keys(entry.attributes), "numbers": _stored_keys(entry.numbers), "update_time": now}
    update: Document = {"$set": stated}
    if entry.HasField("create_time"):
        stated["create_time"] = to_datetime(entry.create_time)
    else:
        update["$setOnInsert"] = {"create_time": now}
    return update


def user_message(document: Document) -> User:
    """A user as stored."""
    user = User(user_id=document["_id"], attributes=_caller_keys(document["attributes"]), numbers=_caller_keys(document["numbers"]))
    user.create_time.CopyFrom(to_timestamp(document["create_time"]))
    return user


def item_message(document: Document) -> Item:
    """An item as stored."""
    item = Item(
        item_id=document["_id"],
        item_type=document["item_type"],
        tags=document["tags"],
        attributes=_caller_keys(document["attributes"]),
        numbers=_caller_keys(document["numbers"]),
        available=document["available"],
    )
    if "embedding" in document:
        item.embedding.extend(np.frombuffer(document["embedding"], dtype="<f4").tolist())
    item.create_time.CopyFrom(to_timestamp(document["create_time"]))
    return item
