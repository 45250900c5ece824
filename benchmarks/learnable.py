"""A ledger to learn from: slates with features, interactions and attributions, written as the server and the fold write them.

Every slate is drawn by its number, so that every run writes the same. Utility is a smooth function of a few of the features; the caller's
prior is a noisy guess of it, in whose order slates are shown.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np

from benchmarks.traffic import ITEMS, SLATE_ITEMS, TYPES, USERS
from runtime.mongo import Mongo

SCHEMA = "bench-train"
SLATES_AT_ONCE = 1_000
DAYS = 60.0


def names(feature_count: int) -> list[str]:
    """`prior_score` and numbered ones."""
    return ["prior_score", *(f"feature_{number:02d}" for number in range(1, feature_count))]


async def write(mongo: Mongo, *, first: int, slates: int, feature_count: int, start: datetime, days: float) -> None:
    """Stores slates `first` to `first + slates` − 1, spread evenly over the days from `start` on, and what became of them."""
    await mongo.collection("feature_schemas").replace_one(
        {"_id": SCHEMA}, {"_id": SCHEMA, "names": names(feature_count), "declared": []}, upsert=True
    )
    for begin in range(first, first + slates, SLATES_AT_ONCE):
        numbers = range(begin, min(begin + SLATES_AT_ONCE, first + slates))
        moments = [start + timedelta(days=days * (number - first) / slates) for number in numbers]
        documents = _drawn(numbers, moments, feature_count)
        for collection, found in documents.items():
            await mongo.collection(collection).insert_many(found)


def _drawn(numbers: range, moments: list[datetime], feature_count: int) -> dict[str, list[dict[str, Any]]]:
    random = np.random.default_rng([20_260_101, numbers.start])
    values = random.normal(size=(len(numbers), SLATE_ITEMS, feature_count))
    utility = values[:, :, 1] - values[:, :, 2] / 2 + np.abs(values[:, :, 3]) * 0.7 + 0.4 * values[:, :, 4] * values[:, :, 5]
    values[:, :, 0] = utility + 1.5 * random.normal(size=utility.shape)
    order = np.argsort(-values[:, :, 0], axis=1)
    values = np.take_along_axis(values, order[:, :, None], axis=1)
    chance = 1 / (1 + np.exp(1.5 - np.take_along_axis(utility, order, axis=1)))
    clicked = random.random(chance.shape) < chance
    implemented = clicked & (random.random(chance.shape) < chance / 2)
    # Some values are missing, as they are in life.
    values[:, :, feature_count // 2 :][random.random(values[:, :, feature_count // 2 :].shape) < 0.1] = np.nan
    found: dict[str, list[dict[str, Any]]] = {"slates": [], "interactions": [], "attributions": []}
    for place, (number, moment) in enumerate(zip(numbers, moments, strict=True)):
        ranking_id, user_id = f"bench-{number:010d}", f"user-{number % USERS}"
        item_ids = [f"item-{(number * 31 + item * 97) % ITEMS}" for item in range(SLATE_ITEMS)]
        found["slates"].append(
            {
                "_id": ranking_id,
                "user_id": user_id,
                "surface": "home",
                "algorithm": "prior_score",
                "model_version": "",
                "show_time": moment,
                "receive_time": moment,
                "candidate_count": SLATE_ITEMS,
                "items": [
                    {"item_id": item_id, "item_type": f"type-{(number + item) % TYPES}", "position": item + 1, "propensity": 1.0}
                    for item, item_id in enumerate(item_ids)
                ],
                "features": np.ascontiguousarray(values[place], dtype="<f8").tobytes(),
                "schema_hash": SCHEMA,
            }
        )
        for item in np.flatnonzero(clicked[place]).tolist():
            kind, label = ("implement", 1.0) if implemented[place, item] else ("click", 0.4)
            acted = moment + timedelta(seconds=5 + item)
            found["interactions"].append(
                {
                    "_id": f"{ranking_id}-{item}",
                    "user_id": user_id,
                    "item_id": item_ids[item],
                    "type": kind,
                    "label": label,
                    "acts": True,
                    "occur_time": acted,
                    "receive_time": acted,
                    "ranking_id": ranking_id,
                }
            )
            identity = {"ranking_id": ranking_id, "item_id": item_ids[item]}
            found["attributions"].append(
                {"_id": identity, "ranking_id": ranking_id, "user_id": user_id, "label": label, "counts": {kind: 1}}
            )
    return found
