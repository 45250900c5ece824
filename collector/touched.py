"""Whose figures a transaction of the fold may have changed, written down for those who follow.

Readouts of experiments are made of sums over users, so they have to know of whom there is news (`server.experiments.follower`). The fold
writes it down in its own transaction, one small document, and only while somebody follows: what is folded and what is written down as
touched can never differ.
"""

from __future__ import annotations

from typing import Any

from collector.batch import Batch
from runtime.mongo import Long, Mongo


def users_of(batch: Batch) -> list[str]:
    """Whoever did something, was shown something, or owns a slate that somebody did something with."""
    entries = (*batch.interactions, *batch.slates, *batch.outcomes, *batch.folded_slates.values())
    return list({entry["user_id"]: None for entry in entries})


async def write_touched(mongo: Mongo, revision: int, batch: Batch, session: Any) -> None:
    """Within the transaction of that revision."""
    await mongo.collection("touched_users").insert_one({"_id": Long(revision), "user_ids": users_of(batch)}, session=session)
