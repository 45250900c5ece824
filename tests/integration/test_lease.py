"""A lease whose holder is killed in the middle of a transaction goes to another at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runtime.errors import Aborted, Unavailable
from runtime.lease import Lease
from runtime.mongo import Long, Mongo

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def lease_of(mongo: Mongo, holder: str, *, seconds_later: float = 0.0) -> Lease:
    return Lease(mongo, "fold", holder, 5, lambda: NOW + timedelta(seconds=seconds_later))


@pytest.mark.parametrize("asks", [False, True])
async def test_what_a_dead_holder_left_open_keeps_nobody_waiting(mongo_both: Mongo, asks: bool) -> None:
    dead = lease_of(mongo_both, "dead")
    assert await dead.claim()
    left_open, never = asyncio.Event(), asyncio.Event()

    async def killed_within(session: Any) -> None:
        await dead.next_revision(session)
        await mongo_both.collection("tallies").update_one(
            {"_id": "t"}, {"$inc": {"count": 1}, "$set": {"revision": Long(1)}}, upsert=True, session=session
        )
        left_open.set()
        await never.wait()

    holding = asyncio.create_task(mongo_both.transact(killed_within, session=dead.session))
    await left_open.wait()
    assert not await lease_of(mongo_both, "too early", seconds_later=4).claim()

    async with asyncio.timeout(20):  # MongoDB itself would keep the transaction for a minute
        other = lease_of(mongo_both, "other", seconds_later=6)
        if asks:
            await other.ask()
        assert await other.claim()
        assert await mongo_both.transact(other.next_revision, session=other.session) == 1
    assert await mongo_both.collection("tallies").find_one({"_id": "t"}) is None
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


async def test_a_holder_that_wakes_too_late_can_neither_commit_nor_go_on(mongo_both: Mongo) -> None:
    late, other = lease_of(mongo_both, "late"), lease_of(mongo_both, "other", seconds_later=6)
    assert await late.claim()

    async def stopped_within(session: Any) -> None:
        await late.next_revision(session)
        assert await other.claim()
        await mongo_both.collection("tallies").update_one({"_id": "t"}, {"$set": {"revision": Long(1)}}, upsert=True, session=session)

    with pytest.raises((Aborted, Unavailable)):
        await mongo_both.transact(stopped_within, session=late.session)
    assert await mongo_both.collection("tallies").find_one({"_id": "t"}) is None
    assert not await late.claim()
    assert await mongo_both.transact(other.next_revision, session=other.session) == 1
