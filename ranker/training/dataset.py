"""What is learned from: slates as they were served, with what became of each of their impressions.

Features are those logged when the slate was ranked, so what was served is what is learned from. Slates arrive by the time they were
shown and stay in that order; a part of the data is then a view of it, never a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ranker.training.data import DatasetCounts, TrainingData
from ranker.training.failures import CannotTrain
from ranker.training.settings import Untouched
from runtime.mongo import Document, Mongo

BATCH_SLATES = 200
"""Slates read at once: at most about 100 MB even if each has a thousand candidates."""

SAMPLED_SLATES = 1_000
"""Slates that are looked at to tell whether views show who looked."""

GROWTH = 1.25
"""The matrix grows in place by this factor, so that it never needs much more memory than it ends with."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Progress(Protocol):
    """Whom to tell how far the work is."""

    def step(self, description: str, total: int | None = None) -> None:
        """A new step begins; `total` is its size where that is known."""

    def advance(self, count: int) -> None:
        """So much more of the step is done."""


async def count_interactions(mongo: Mongo, start: datetime, end: datetime) -> int:
    """Interactions that occurred in [start, end)."""
    return await mongo.collection("interactions").count({"occur_time": {"$gte": start, "$lt": end}}, limit=2**31 - 1)


async def load(
    mongo: Mongo, start: datetime, end: datetime, progress: Progress, *, untouched: Untouched = "auto"
) -> tuple[TrainingData, DatasetCounts]:
    """The labelled slates shown in [start, end), by show_time, in the columns of the newest of them.

    `untouched` says what an impression means that nobody interacted with, see `TrainerSettings`.

    Raises:
        CannotTrain: no slate of the window has logged features.
    """
    slates = mongo.collection("slates")
    shown = {"show_time": {"$gte": start, "$lt": end}}
    featured = {**shown, "features": {"$exists": True}, "schema_hash": {"$exists": True}}
    total = await slates.count(shown, limit=2**31 - 1)
    newest = await slates.find_one(featured, {"schema_hash": 1}, sort=[("show_time", -1)])
    if newest is None:
        recorded = f"{total} were recorded without them" if total else "none was recorded at all"
        raise CannotTrain(f"no slate of the look-back window has logged features ({recorded}): let Rank serve slates first", "NO_FEATURES")
    schemas = await _schemas(mongo)
    names = schemas.get(newest["schema_hash"])
    if names is None:
        raise CannotTrain("the feature schema of the newest slate is not recorded in feature_schemas", "UNKNOWN_SCHEMA")
    seen_only = untouched == "unseen" or (untouched == "auto" and await _views_show_who_looked(mongo, featured))
    builder = _Builder(feature_names=names, schema_hash=newest["schema_hash"], schemas=schemas, seen_only=seen_only)
    projection = {"user_id": 1, "show_time": 1, "features": 1, "schema_hash": 1, "items.item_id": 1, "items.position": 1}
    with_features = 0
    progress.step("reading slates", total)
    async for batch in slates.batches(featured, projection, sort=[("show_time", 1)], batch_size=BATCH_SLATES):
        with_features += len(batch)
        labels = await _labels(mongo, [slate["_id"] for slate in batch])
        for slate in sorted(batch, key=lambda slate: (slate["show_time"], slate["_id"])):
            builder.add(slate, labels.get(slate["_id"], {}))
        progress.advance(len(batch))
    data = builder.finished()
    interactions, unmatched = await _unmatched(mongo, start, end, progress)
    counts = DatasetCounts(
        interactions=interactions,
        unmatched_interactions=unmatched,
        slates=total,
        slates_without_features=max(0, total - with_features),
        slates_with_bad_features=builder.counts["bad"],
        slates_of_one_item=builder.counts["one item"],
        slates_without_label=builder.counts["no label"],
        slates_of_other_schemas=builder.counts["other schema"],
        used_slates=data.slate_count,
        used_rows=data.row_count,
        used_users=len(builder.user_codes),
        labelled_rows=int((data.labels > 0).sum()),
        unseen_rows=builder.counts["unseen"],
    )
    return data, counts


async def _schemas(mongo: Mongo) -> dict[str, tuple[str, ...]]:
    return {one["_id"]: tuple(one["names"]) for one in await mongo.collection("feature_schemas").find({}, limit=10_000)}


async def _labels(mongo: Mongo, ranking_ids: list[str]) -> dict[str, dict[str, float]]:
    """Labels by ranking and item, of impressions that have one."""
    found: dict[str, dict[str, float]] = {}
    query = {"ranking_id": {"$in": ranking_ids}}
    async for batch in mongo.collection("attributions").batches(query, {"ranking_id": 1, "label": 1}, batch_size=10_000):
        for one in batch:
            if one.get("label") is not None:
                found.setdefault(one["ranking_id"], {})[one["_id"]["item_id"]] = float(one["label"])
    return found


async def _views_show_who_looked(mongo: Mongo, featured: Mapping[str, Any]) -> bool:
    """Whether most impressions of the newest slates that had an interaction had a view: then one without any was not looked at."""
    newest = await mongo.collection("slates").find(featured, {"_id": 1}, sort=[("show_time", -1)], limit=SAMPLED_SLATES)
    touched = viewed = 0
    query = {"ranking_id": {"$in": [slate["_id"] for slate in newest]}}
    async for batch in mongo.collection("attributions").batches(query, {"counts.view": 1}, batch_size=10_000):
        touched += len(batch)
        viewed += sum(1 for one in batch if one.get("counts", {}).get("view"))
    return touched > 0 and viewed >= touched / 2


async def _unmatched(mongo: Mongo, start: datetime, end: datetime, progress: Progress) -> tuple[int, int]:
    """Interactions of the window, and those among them that belong to no slate of the window."""
    known: set[int] = set()
    # Hashes instead of ids: a few dozen bytes per slate, however long the ids are.
    async for batch in mongo.collection("slates").batches({"show_time": {"$gte": start, "$lt": end}}, {"_id": 1}, batch_size=20_000):
        known.update(hash(slate["_id"]) for slate in batch)
    progress.step("matching interactions")
    seen = unmatched = 0
    query = {"occur_time": {"$gte": start, "$lt": end}}
    async for batch in mongo.collection("interactions").batches(query, {"_id": 0, "ranking_id": 1}, batch_size=20_000):
        seen += len(batch)
        unmatched += sum(1 for one in batch if hash(one.get("ranking_id", "")) not in known)
        progress.advance(len(batch))
    return seen, unmatched


@dataclass(slots=True)
class _Builder:
    """Columns that grow slate by slate."""

    feature_names: tuple[str, ...]
    schema_hash: str
    schemas: Mapping[str, tuple[str, ...]]
    seen_only: bool
    counts: Counter[str] = field(default_factory=Counter)
    user_codes: dict[str, int] = field(default_factory=dict)
    _matrix: NDArray[np.float64] = field(init=False)
    _labels: list[NDArray[np.float64]] = field(default_factory=list)
    _positions: list[int] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)
    _show_times: list[int] = field(default_factory=list)
    _users: list[int] = field(default_factory=list)
    _ranking_ids: list[str] = field(default_factory=list)
    _rows: int = 0
    _mappings: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._matrix = np.empty((4096, len(self.feature_names)))

    def add(self, slate: Document, labels: Mapping[str, float]) -> None:
        """Takes a slate in, or counts why not."""
        items: Sequence[Mapping[str, Any]] = slate["items"]
        names = self.schemas.get(slate["schema_hash"])
        if names is None or len(slate["features"]) != 8 * len(items) * len(names):
            self.counts["bad"] += 1
            return
        if len(items) < 2:
            self.counts["one item"] += 1
            return
        values = np.frombuffer(slate["features"], dtype="<f8").reshape(len(items), len(names))
        if not any(label > 0 for label in labels.values()):
            self.counts["no label"] += 1
            return
        places = list(range(len(items)))
        if self.seen_only:
            places = [place for place in places if items[place]["item_id"] in labels]
            if len(places) < 2:
                self.counts["one item"] += 1
                return
            self.counts["unseen"] += len(items) - len(places)
            values = values[places]
        labelled = np.array([labels.get(items[place]["item_id"], 0.0) for place in places])
        if not (labelled > 0).any():
            self.counts["no label"] += 1
            return
        self._put(values, slate["schema_hash"], names)
        self._labels.append(labelled)
        self._positions.extend(items[place].get("position", place + 1) for place in places)
        self._sizes.append(len(places))
        self._show_times.append((slate["show_time"] - _EPOCH) // _MILLISECOND)
        # Visitors without an id are not one person: each of their slates counts as a user of its own.
        user = slate["user_id"] or f"\0{slate['_id']}"
        self._users.append(self.user_codes.setdefault(user, len(self.user_codes)))
        self._ranking_ids.append(slate["_id"])

    def _put(self, values: NDArray[np.float64], schema_hash: str, names: Sequence[str]) -> None:
        begin, end = self._rows, self._rows + len(values)
        if end > len(self._matrix):
            self._matrix.resize((max(end, int(len(self._matrix) * GROWTH)), self._matrix.shape[1]), refcheck=False)
        if schema_hash == self.schema_hash:
            self._matrix[begin:end] = values
        else:
            self.counts["other schema"] += 1
            sources, targets = self._mapping(schema_hash, names)
            self._matrix[begin:end] = np.nan
            self._matrix[begin:end, targets] = values[:, sources]
        self._rows = end

    def _mapping(self, schema_hash: str, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """The columns of another schema that have a place in this one, and their places."""
        if schema_hash not in self._mappings:
            places = {name: column for column, name in enumerate(self.feature_names)}
            common = [(source, places[name]) for source, name in enumerate(names) if name in places]
            self._mappings[schema_hash] = ([source for source, _ in common], [target for _, target in common])
        return self._mappings[schema_hash]

    def finished(self) -> TrainingData:
        """What was taken in."""
        self._matrix.resize((self._rows, self._matrix.shape[1]), refcheck=False)
        return TrainingData(
            feature_names=self.feature_names,
            schema_hash=self.schema_hash,
            matrix=self._matrix,
            labels=np.concatenate(self._labels) if self._labels else np.empty(0),
            positions=np.array(self._positions, dtype=np.int32),
            offsets=np.concatenate(([0], np.cumsum(self._sizes, dtype=np.int64))).astype(np.int64),
            show_times=np.array(self._show_times, dtype=np.int64),
            users=np.array(self._users, dtype=np.int64),
            ranking_ids=np.array(self._ranking_ids, dtype=np.object_),
        )
