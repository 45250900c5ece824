"""Whose figures a transaction of the fold may have changed, written down for those who follow.

Readouts of experiments are made of sums over users, so they have to know of whom there is news (`server.experiments.follower`). The fold
writes it down in its own transaction, one small document, and only while somebody follows: what is folded and what is written down as
touched can never differ.
"""

from __future__ import annotations

from typing import Any

from collector.batch import Batch
from runtime.lease import unfollow
from runtime.mongo import Long, Mongo

MOST_REVISIONS = 20_000
"""Written down at most, about: some hours of a busy fold. Whoever follows and stays away longer looks everything up anew."""


def users_of(batch: Batch) -> list[str]:
    """Whoever did something, was shown something, or owns a slate that somebody did something with."""
    entries = (*batch.interactions, *batch.slates, *batch.outcomes, *batch.folded_slates.values())
    return list({entry["user_id"]: None for entry in entries})


async def write_touched(mongo: Mongo, revision: int, batch: Batch, session: Any) -> None:
    """Within the transaction of that revision."""
    await mongo.collection("touched_users").insert_one({"_id": Long(revision), "user_ids": users_of(batch)}, session=session)


async def bound_touched(mongo: Mongo) -> bool:
    """Stops writing down for those who follow, once too much waits for them; says whether it did."""
    if await mongo.collection("touched_users").estimated_count() <= MOST_REVISIONS:
        return False
    await forget_touched(mongo)
    return True


async def forget_touched(mongo: Mongo) -> None:
    """Nobody follows any more, and what was written down goes.

    Somebody may begin to follow meanwhile: from a later revision than those that are taken away.
    """
    touched = mongo.collection("touched_users")
    newest = await touched.find({}, {"_id": 1}, sort=[("_id", -1)], limit=1)
    await unfollow(mongo, "fold")
    if newest:
        await touched.delete_many({"_id": {"$lte": newest[0]["_id"]}})
