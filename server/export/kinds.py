"""The kinds that are exported: where they are kept, in what order they come, and what a place in that order looks like in a token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from collector.entries import interaction_message, outcome_message, session_message, slate_message
from ranker.models.registry import ModelRecord
from rankloop.v1.record_pb2 import Record
from runtime.mongo import Document, Mongo
from runtime.timestamps import EPOCH
from server.catalog import LIVE, item_message, user_message
from server.experiments.store import experiment_in
from server.export.derived import attribution_message, changed_within, tally_message
from server.export.ordered import by_id, by_time
from server.models import model_message
from server.statistics.period import Period

MILLISECOND = timedelta(milliseconds=1)
SLATES_AT_ONCE = 50
"""Their features make slates large."""
EXPERIMENTS_AT_ONCE = 10
"""With up to a thousand changes each."""

Place = list[Any]
"""Where a record stands in the order of its kind, as JSON can hold it."""
Placed = tuple[Place, list[Record]]
"""Records that go together, and the place behind them."""


class BadPlace(ValueError):
    """A token speaks of a place that is none."""


class Source(Protocol):
    """A kind of record."""

    def parts(self, period: Period, after: Place | None) -> AsyncIterator[list[Placed]]:
        """The records of the period in their order, those behind `after`. Raises BadPlace, at the first step."""

    async def count(self, period: Period, limit: int) -> int | None:
        """How many there are, `limit` at most; None: nobody knows without going through them."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A kind of the ledger: by time and id."""

    mongo: Mongo
    collection: str
    field: str
    record: Callable[[Document], Record]

    async def parts(self, period: Period, after: Place | None) -> AsyncIterator[list[Placed]]:
        """See Source."""
        behind = None if after is None else timed_place(after)
        async for documents in by_time(self.mongo.collection(self.collection), self.field, period.start, period.end, after=behind):
            # Messages of many entries take a while to make, and calls go on meanwhile.
            yield await asyncio.to_thread(lambda found: [(place_of(one, self.field), [self.record(one)]) for one in found], documents)

    async def count(self, period: Period, limit: int) -> int | None:
        """See Source."""
        return await self.mongo.collection(self.collection).count({self.field: _within(period)}, limit=limit)


class Slates:
    """Slates, with the feature values they were ranked by."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._columns: dict[str, Sequence[str]] = {}

    async def parts(self, period: Period, after: Place | None) -> AsyncIterator[list[Placed]]:
        """See Source."""
        behind = None if after is None else timed_place(after)
        slates = self._mongo.collection("slates")
        found = by_time(slates, "show_time", period.start, period.end, after=behind, projection={"response": 0}, batch_size=SLATES_AT_ONCE)
        async for documents in found:
            await self._learn({document["schema_hash"] for document in documents if "schema_hash" in document})
            yield await asyncio.to_thread(self._records, documents)

    async def count(self, period: Period, limit: int) -> int | None:
        """See Source."""
        return await self._mongo.collection("slates").count({"show_time": _within(period)}, limit=limit)

    def _records(self, documents: list[Document]) -> list[Placed]:
        return [
            (
                place_of(document, "show_time"),
                [Record(slate=slate_message(document, self._columns.get(document.get("schema_hash", ""), ())))],
            )
            for document in documents
        ]

    async def _learn(self, hashes: set[str]) -> None:
        """Reads what the feature columns of these schemas are called."""
        missing = sorted(hashes - self._columns.keys())
        if missing:
            found = await self._mongo.collection("feature_schemas").find({"_id": {"$in": missing}}, limit=len(missing))
            self._columns.update((document["_id"], document["names"]) for document in found)


@dataclass(frozen=True, slots=True)
class Attributions:
    """Those of the slates shown in the period, in the order of the slates and of their items."""

    mongo: Mongo

    async def parts(self, period: Period, after: Place | None) -> AsyncIterator[list[Placed]]:
        """See Source."""
        behind = None if after is None else timed_place(after)
        projection = {"show_time": 1, "items.item_id": 1}
        slates = self.mongo.collection("slates")
        async for shown in by_time(slates, "show_time", period.start, period.end, after=behind, projection=projection):
            for begin in range(0, len(shown), SLATES_AT_ONCE):
                yield await self._of(shown[begin : begin + SLATES_AT_ONCE])

    async def count(self, period: Period, limit: int) -> int | None:
        """See Source."""
        return None

    async def _of(self, shown: list[Document]) -> list[Placed]:
        ids = [slate["_id"] for slate in shown]
        query = {"ranking_id": {"$in": ids}}
        found: dict[tuple[str, str], Document] = {}
        async for documents in self.mongo.collection("attributions").batches(query, hint="ranking"):
            found.update(((one["ranking_id"], one["_id"]["item_id"]), one) for one in documents)
        placed: list[Placed] = []
        for slate in shown:
            items = [found.get((slate["_id"], item["item_id"])) for item in slate["items"]]
            placed.append((place_of(slate, "show_time"), [Record(attribution=attribution_message(one)) for one in items if one]))
        return placed


@dataclass(frozen=True, slots=True)
class Listed:
    """A kind of the catalogue: by id, those created in the period."""

    mongo: Mongo
    collection: str
    query: Mapping[str, Any]
    record: Callable[[Document], Record]

    async def parts(self, period: Period, after: Place | None) -> AsyncIterator[list[Placed]]:
        """See Source."""
        query = {**self.query, "create_time": _within(period)}
        async for documents in by_id(self.mongo.collection(self.collection), query, after=_id_at(after)):
            yield await asyncio.to_thread(lambda found: [([one["_id"]], [self.record(one)]) for one in found], documents)

    async def count(self, period: Period, limit: int) -> int | None:
        """See Source."""
        return None


@dataclass(frozen=True, slots=True)
class ExperimentChanges:
    """By experiment, and then as they were made."""

    mongo: Mongo

    async def parts(self, period: Period, after: Place | None) -> AsyncIterator[list[Placed]]:
        """See Source."""
        query = {"changes": {"$elemMatch": {"time": _within(period)}}}
        found = by_id(self.mongo.collection("experiments"), query, after=_id_at(after), batch_size=EXPERIMENTS_AT_ONCE)
        async for documents in found:
            yield [([one["_id"]], changed_within(one, period)) for one in documents]

    async def count(self, period: Period, limit: int) -> int | None:
        """See Source."""
        return None


@dataclass(frozen=True, slots=True)
class Tallies:
    """By scope, day and key."""

    mongo: Mongo

    async def parts(self, period: Period, after: Place | None) -> AsyncIterator[list[Placed]]:
        """See Source."""
        behind = None if after is None else self._id_at(after)
        query = {"_id.start": _within(period)}
        async for documents in by_id(self.mongo.collection("tallies"), query, after=behind):
            yield [(self._place(one["_id"]), [Record(tally=tally_message(one))]) for one in documents]

    async def count(self, period: Period, limit: int) -> int | None:
        """See Source."""
        return None

    @staticmethod
    def _place(identity: Mapping[str, Any]) -> Place:
        return [identity["scope"], _milliseconds(identity["start"]), identity["key"]]

    @staticmethod
    def _id_at(place: Place) -> Document:
        if len(place) != 3 or not _is_text(place[0]):
            raise BadPlace
        scope, start, key = place
        if not (_is_text(key) or (isinstance(key, list) and all(map(_is_text, key)))):
            raise BadPlace
        return {"scope": scope, "start": _moment(start), "key": key}


def sources(mongo: Mongo) -> Mapping[str, Source]:
    """Every kind that is exported, by its name in the contract.

    Another kind needs its message in Record, its number in RecordKind, and its line here.
    """
    return {
        "interaction": Timed(mongo, "interactions", "occur_time", lambda one: Record(interaction=interaction_message(one))),
        "slate": Slates(mongo),
        "attribution": Attributions(mongo),
        "tally": Tallies(mongo),
        "outcome": Timed(mongo, "outcomes", "occur_time", lambda one: Record(outcome=outcome_message(one))),
        "session": Timed(mongo, "sessions", "start_time", lambda one: Record(session=session_message(one))),
        "user": Listed(mongo, "users", {}, lambda one: Record(user=user_message(one))),
        "item": Listed(mongo, "items", LIVE, lambda one: Record(item=item_message(one))),
        "model": Listed(mongo, "models", {}, lambda one: Record(model=model_message(ModelRecord.from_document(one)))),
        "experiment": Listed(mongo, "experiments", {}, lambda one: Record(experiment=experiment_in(one))),
        "experiment_change": ExperimentChanges(mongo),
    }


def place_of(document: Document, field: str) -> Place:
    """The place of a document in the order of time and id."""
    return [_milliseconds(document[field]), document["_id"]]


def timed_place(place: Place) -> tuple[datetime, str]:
    """The reverse of `place_of`. Raises BadPlace."""
    if len(place) != 2 or not _is_text(place[1]):
        raise BadPlace
    return _moment(place[0]), place[1]


def _id_at(place: Place | None) -> str | None:
    """The id in a place that is nothing but an id. Raises BadPlace."""
    if place is not None and not (len(place) == 1 and _is_text(place[0])):
        raise BadPlace
    return None if place is None else place[0]


def _within(period: Period) -> dict[str, datetime]:
    return {"$gte": period.start, "$lt": period.end}


def _is_text(value: Any) -> bool:
    """Whether it is a text that a database can be asked for: anybody can make a token, with half a character in it."""
    try:
        return isinstance(value, str) and bool(value.encode()) and "\0" not in value
    except UnicodeEncodeError:
        return False


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND


def _moment(milliseconds: Any) -> datetime:
    if type(milliseconds) is not int:
        raise BadPlace
    try:
        return EPOCH + milliseconds * MILLISECOND
    except OverflowError:
        raise BadPlace from None
