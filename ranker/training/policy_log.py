"""Slates of an exploring policy, as another policy is held against them.

All of them count, those that nobody touched too: a value that is estimated from the slates with a label only is that of another question.
A slate tells what another order of its candidates would have been worth only if all of its candidates were shown: of the others it is not
known what the policy would have put in their places.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from runtime.mongo import Document, Mongo

MAX_SLATES = 20_000
"""Read at most, the latest."""

BATCH_SLATES = 500


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PolicyLog:
    """Impressions of whole slates, by slate and, within it, by position from 1 on."""

    matrix: NDArray[np.float64]
    """(rows, features) float64, columns as asked for."""
    rewards: NDArray[np.float64]
    """(rows,) float64: the label, 0 where nobody touched the impression."""
    propensities: NDArray[np.float64]
    """(rows,) float64."""
    item_ids: NDArray[np.object_]
    """(rows,) str."""
    offsets: NDArray[np.int64]
    """(slates + 1,) int64."""
    has_propensities: bool
    """Whether any slate has propensities, be they all 1."""
    slates_of_more_candidates: int
    """Left out: some of their candidates were not shown."""

    @property
    def slate_codes(self) -> NDArray[np.int64]:
        """(rows,) int64: the place of each row's slate."""
        return np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))

    @property
    def positions(self) -> NDArray[np.int64]:
        """(rows,) int64, from 1."""
        return np.arange(int(self.offsets[-1])) - np.repeat(self.offsets[:-1], np.diff(self.offsets)) + 1


async def read_policy_log(mongo: Mongo, start: datetime, end: datetime, names: tuple[str, ...]) -> PolicyLog:
    """The latest slates shown in [start, end) with propensities and features, these in columns `names`; NaN for what a slate lacks."""
    schemas = {one["_id"]: tuple(one["names"]) for one in await mongo.collection("feature_schemas").find({}, limit=10_000)}
    shown = {"show_time": {"$gte": start, "$lt": end}, "features": {"$exists": True}}
    # Where chance had no say, every propensity is 1.
    query = {**shown, "items.propensity": {"$lt": 1.0}}
    columns = {"features": 1, "schema_hash": 1, "candidate_count": 1, "items.item_id": 1, "items.position": 1, "items.propensity": 1}
    left_out: Counter[str] = Counter()
    kept: list[tuple[NDArray[np.float64], list[float], list[float], list[str]]] = []
    async for batch in mongo.collection("slates").batches(query, columns, sort=[("show_time", -1)], batch_size=BATCH_SLATES):
        labels = await _labels(mongo, [slate["_id"] for slate in batch])
        for slate in batch:
            if (fault := _fault(slate)) is not None:
                left_out[fault] += 1
                continue
            found = schemas.get(slate["schema_hash"])
            items = slate["items"]
            if found is None or len(slate["features"]) != 8 * len(items) * len(found):
                continue
            order = sorted(range(len(items)), key=lambda place, items=items: items[place]["position"])  # type: ignore[misc]
            values = np.frombuffer(slate["features"], dtype="<f8").reshape(len(items), len(found))[order]
            rewards = [labels.get((slate["_id"], items[place]["item_id"]), 0.0) for place in order]
            chances = [float(items[place]["propensity"]) for place in order]
            kept.append((_named(values, found, names), rewards, chances, [items[place]["item_id"] for place in order]))
        if len(kept) >= MAX_SLATES:
            break
    any_chance = {**shown, "items.propensity": {"$gt": 0.0}}
    has_propensities = bool(kept) or await mongo.collection("slates").find_one(any_chance, {"_id": 1}) is not None
    sizes = [len(rewards) for _, rewards, _, _ in kept]
    return PolicyLog(
        matrix=np.concatenate([values for values, _, _, _ in kept]) if kept else np.empty((0, len(names))),
        rewards=np.array([reward for _, rewards, _, _ in kept for reward in rewards]),
        propensities=np.array([chance for _, _, chances, _ in kept for chance in chances]),
        item_ids=np.array([item_id for _, _, _, item_ids in kept for item_id in item_ids], dtype=np.object_),
        offsets=np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int64),
        has_propensities=has_propensities,
        slates_of_more_candidates=left_out["more candidates"],
    )


def _fault(slate: Document) -> str | None:
    items = slate["items"]
    chances = [item.get("propensity") for item in items]
    if any(chance is None or not 0.0 < chance <= 1.0 for chance in chances):
        return "no propensity"
    # Slates that a caller reports have no count of candidates; they hold all of them as far as anybody knows.
    if slate.get("candidate_count", len(items)) > len(items):
        return "more candidates"
    positions = sorted(item.get("position", 0) for item in items)
    return None if len(items) > 1 and positions == list(range(1, len(items) + 1)) else "not whole"


async def _labels(mongo: Mongo, ranking_ids: list[str]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    query = {"ranking_id": {"$in": ranking_ids}}
    async for batch in mongo.collection("attributions").batches(query, {"label": 1}, batch_size=10_000):
        for one in batch:
            if one.get("label") is not None:
                found[one["_id"]["ranking_id"], one["_id"]["item_id"]] = float(one["label"])
    return found


def _named(values: NDArray[np.float64], found: tuple[str, ...], names: tuple[str, ...]) -> NDArray[np.float64]:
    if found == names:
        return values
    places = {name: place for place, name in enumerate(found)}
    chosen = np.full((values.shape[0], len(names)), np.nan)
    for target, name in enumerate(names):
        if (place := places.get(name)) is not None:
            chosen[:, target] = values[:, place]
    return chosen
