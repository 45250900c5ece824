"""What has come in since: how many labelled interactions a training would find that an earlier one did not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.mongo import Mongo


async def folded_interactions(mongo: Mongo) -> int:
    """Interactions that the fold has taken in since the ledger began, however late they came. Each has its label by then."""
    pipeline: list[Mapping[str, Any]] = [
        {"$match": {"_id": {"$gte": {"scope": "all"}, "$lt": {"scope": "all\0"}}}},
        {"$group": {"_id": None, "count": {"$sum": "$day.interactions"}}},
    ]
    found = await mongo.collection("tallies").aggregate(pipeline, limit=1)
    return int(found[0]["count"]) if found else 0
