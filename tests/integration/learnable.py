"""Slates, interactions and attributions from which something can be learned, written as the ledger and the fold write them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from runtime.mongo import Mongo

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NAMES = ["prior_score", "item_quality", "item_cost", "user_mood", "never_sent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happened. Utility is quality minus half the cost; the caller's prior is a noisy guess of it."""

    seed: int = 1
    slates: int = 400
    users: int = 60
    items: int = 10
    days: float = 30.0
    names: tuple[str, ...] = tuple(NAMES)
    schema_hash: str = "schema-one"
    prior_noise: float = 1.5
    utility_sign: float = 1.0
    now: datetime = NOW
    """The last slate was shown just before."""
    first: int = 0
    """Number of the first slate; another history in the same database begins after it."""

    def documents(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Slates, interactions, attributions."""
        random = np.random.default_rng(self.seed)
        slates, interactions, attributions = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
        for number in range(self.slates):
            ranking_id, user_id = f"r{self.first + number:06d}", f"u{random.integers(self.users)}"
            show_time = self.now - timedelta(days=self.days * (1 - number / self.slates)) - timedelta(minutes=1)
            quality, cost, mood = random.normal(size=self.items), random.normal(size=self.items), random.normal()
            utility = self.utility_sign * (quality - cost / 2)
            prior = utility + self.prior_noise * random.normal(size=self.items)
            order = np.argsort(-prior)
            values = {"prior_score": prior, "item_quality": quality, "item_cost": cost, "user_mood": np.full(self.items, mood)}
            matrix = np.column_stack([values.get(name, np.full(self.items, np.nan)) for name in self.names])[order]
            item_ids = [f"i{random.integers(10**6)}-{place}" for place in range(self.items)]
            slates.append(
                {
                    "_id": ranking_id,
                    "user_id": user_id,
                    "surface": "home",
                    "algorithm": "lambdarank",
                    "model_version": "",
                    "show_time": show_time,
                    "receive_time": show_time,
                    "items": [
                        {"item_id": item_id, "item_type": "post", "position": place} for place, item_id in enumerate(item_ids, start=1)
                    ],
                    "features": np.ascontiguousarray(matrix, dtype="<f8").tobytes(),
                    "schema_hash": self.schema_hash,
                }
            )
            for place, item_id in enumerate(item_ids):
                chance = 1 / (1 + np.exp(-2 * utility[order[place]] + 2))
                if random.random() >= chance:
                    continue
                kind, label = ("implement", 1.0) if random.random() < chance / 2 else ("click", 0.4)
                moment = show_time + timedelta(seconds=20 + place)
                interactions.append(
                    {
                        "_id": f"e-{ranking_id}-{place}",
                        "user_id": user_id,
                        "item_id": item_id,
                        "type": kind,
                        "label": label,
                        "acts": True,
                        "occur_time": moment,
                        "receive_time": moment,
                        "ranking_id": ranking_id,
                    }
                )
                attributions.append(
                    {
                        "_id": {"ranking_id": ranking_id, "item_id": item_id},
                        "ranking_id": ranking_id,
                        "user_id": user_id,
                        "label": label,
                        "counts": {kind: 1},
                    }
                )
        return slates, interactions, attributions

    async def write(self, mongo: Mongo) -> History:
        """Stores all of it, the feature schema too."""
        slates, interactions, attributions = self.documents()
        await mongo.collection("feature_schemas").replace_one(
            {"_id": self.schema_hash}, {"_id": self.schema_hash, "names": list(self.names)}, upsert=True
        )
        for name, documents in (("slates", slates), ("interactions", interactions), ("attributions", attributions)):
            for begin in range(0, len(documents), 1000):
                assert not await mongo.collection(name).insert_many(documents[begin : begin + 1000])
        return self


class Silent:
    """Nobody watches."""

    def step(self, description: str, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""
