"""Documents in an order that stays, whatever order they were inserted in, at the memory of a few of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime
from operator import itemgetter
from typing import Any

from runtime.mongo import Collection, Document

MOST_AT_A_MOMENT = 2000
"""Documents of one moment that are ordered here; of more than that the database orders them."""


async def by_time(
    collection: Collection,
    field: str,
    start: datetime,
    end: datetime,
    *,
    after: tuple[datetime, str] | None = None,
    projection: Mapping[str, Any] | None = None,
    batch_size: int = 500,
) -> AsyncIterator[list[Document]]:
    """The documents of `[start, end)` by time and then by id, in small lists; those behind `after`.

    The index on time gives them by time. Those of one moment come in the order of their insertion, which another database need not have,
    so they are gathered and ordered; where a moment has very many (a history imported by day, say), the database orders that moment alone.
    """
    moment, last_id = after if after is not None else (start, "")
    if after is not None:  # what is left of the moment in which the answer before ended
        async for documents in _of_moment(collection, field, moment, last_id, projection, batch_size):
            yield documents
    query: dict[str, Any] = {field: {"$gt" if after is not None else "$gte": moment, "$lt": end}}
    crowded = True
    while crowded:
        crowded = False
        gathered: list[Document] = []
        async with aclosing(collection.batches(query, projection, sort=[(field, 1)], batch_size=batch_size, hint="time")) as batches:
            async for batch in batches:
                gathered += batch
                newest = gathered[-1][field]
                whole = [document for document in gathered if document[field] < newest]
                if whole:
                    gathered = gathered[len(whole) :]
                    yield sorted(whole, key=itemgetter(field, "_id"))
                if len(gathered) > MOST_AT_A_MOMENT:
                    crowded = True
                    break
        if crowded:
            crowd = gathered[0][field]
            gathered = []
            async for documents in _of_moment(collection, field, crowd, "", projection, batch_size):
                yield documents
            query = {field: {"$gt": crowd, "$lt": end}}
        elif gathered:
            yield sorted(gathered, key=itemgetter(field, "_id"))


async def _of_moment(
    collection: Collection, field: str, moment: datetime, last_id: str, projection: Mapping[str, Any] | None, batch_size: int
) -> AsyncIterator[list[Document]]:
    query = {field: moment, "_id": {"$gt": last_id}}
    async for documents in collection.batches(query, projection, sort=[("_id", 1)], batch_size=batch_size, hint="time"):
        yield documents


async def by_id(
    collection: Collection, query: Mapping[str, Any], *, after: Any = None, batch_size: int = 500
) -> AsyncIterator[list[Document]]:
    """The documents that match by id, those behind `after`."""
    behind = {} if after is None else {"_id": {"$gt": after}}
    async for documents in collection.batches({**behind, **query}, sort=[("_id", 1)], batch_size=batch_size, hint="_id_"):
        yield documents
