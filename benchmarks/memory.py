"""What a ranking worker's knowledge takes in memory: items as columns, users as histories."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from resource import RUSAGE_SELF, getpagesize, getrusage
from typing import Any

import numpy as np

from ranker.features import request
from ranker.features.counters import COUNTERS, LABEL_NANOS
from ranker.features.history import LIMIT
from ranker.features.schema import default_schema
from ranker.state.history import history_of
from ranker.state.items import ItemState, day_of
from scripts.steps import Steps

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BATCH = 2000
TYPES, TAGS, TAGS_PER_ITEM = 50, 5000, 3


@dataclass(frozen=True, slots=True)
class Memory:
    """What was measured, in bytes of resident memory."""

    items: int
    days_per_item: int
    catalogue_bytes: int
    tallies_bytes: int
    peak_bytes: int
    """Most that the whole process held while it filled."""
    fill_seconds: float
    users: int
    interactions_per_user: int
    users_bytes: int

    @property
    def items_bytes(self) -> int:
        """Catalogue and tallies."""
        return self.catalogue_bytes + self.tallies_bytes


def measure(*, items: int, days: int, embedding_size: int, users: int, interactions: int, progress: Steps) -> Memory:
    """Fills an item state as a follower does, batch by batch in the order of the days, and a cache of users."""
    rng = np.random.default_rng(1)
    schema, today = default_schema(), day_of(NOW.timestamp())
    state = ItemState(schema.names[schema.families[request.FAMILY]], today=today)
    began, empty = time.perf_counter(), _resident()
    progress.step("catalogue", items)
    for first in range(0, items, BATCH):
        state.catalogue.replace([_item(number, embedding_size, rng) for number in range(first, min(items, first + BATCH))])
        progress.advance(BATCH)
    gc.collect()
    with_catalogue = _resident()
    progress.step("tallies", items * days)
    for ago in range(days):
        for first in range(0, items, BATCH):
            keys = [f"item-{number:09d}" for number in range(first, min(items, first + BATCH))]
            counted = rng.integers(0, 50, (len(keys), len(COUNTERS)))
            counted[:, LABEL_NANOS] *= 250_000_000
            state.tallies.replace(keys, [today - ago] * len(keys), counted.tolist())
            progress.advance(BATCH)
    gc.collect()
    with_tallies, filled = _resident(), time.perf_counter()
    progress.step("users", users)
    kept: dict[str, Any] = {}
    for user in range(users):
        documents = [
            {
                "item_id": f"item-{item:09d}",
                "type": "click",
                "label": 0.4,
                "acts": True,
                "occur_time": NOW - timedelta(minutes=place),
                "item_type": f"type{item % TYPES}",
            }
            for place, item in enumerate(rng.integers(0, items, min(interactions, LIMIT)).tolist())
        ]
        kept[f"user-{user:09d}"] = history_of(documents, state)
        progress.advance(1)
    gc.collect()
    return Memory(
        items=items,
        days_per_item=days,
        catalogue_bytes=with_catalogue - empty,
        tallies_bytes=with_tallies - with_catalogue,
        peak_bytes=getrusage(RUSAGE_SELF).ru_maxrss * 1024,
        fill_seconds=filled - began,
        users=len(kept),
        interactions_per_user=min(interactions, LIMIT),
        users_bytes=_resident() - with_tallies,
    )


def _item(number: int, embedding_size: int, rng: np.random.Generator) -> dict[str, Any]:
    item: dict[str, Any] = {
        "_id": f"item-{number:09d}",
        "item_type": f"type{number % TYPES}",
        "tags": [f"tag{tag}" for tag in rng.integers(0, TAGS, TAGS_PER_ITEM).tolist()],
        "attributes": {"tier": ("gold", "silver")[number % 2]},
        "numbers": {"cost": float(number)},
        "create_time": NOW,
        "update_time": NOW,
    }
    if embedding_size:
        item["embedding"] = rng.normal(size=embedding_size).astype("<f4").tobytes()
    return item


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()
