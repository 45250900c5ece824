"""Answers that are kept for a moment: shared, made anew when something was folded, never after a failure."""

from __future__ import annotations

import asyncio

import pytest

from runtime.mongo import Mongo
from server.statistics.remembered import LONGEST_SECONDS, MOST_ANSWERS, Remembered


class Maker:
    """Counts how often it was asked; `cost` passes on the clock meanwhile."""

    def __init__(self, *, cost: float = 0.0) -> None:
        self.now = 1000.0
        self.made = 0
        self.cost = cost
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def make(self) -> int:
        self.made += 1
        made = self.made
        await self.may_end.wait()
        self.now += self.cost
        return made

    def remembered(self, mongo: Mongo) -> Remembered:
        return Remembered(mongo, clock=lambda: self.now)


async def fold_something(mongo: Mongo) -> None:
    """As far as the revision tells."""
    await mongo.collection("leases").update_one({"_id": "fold"}, {"$inc": {"revision": 1}}, upsert=True)


async def test_it_is_made_once_until_something_is_folded_or_a_minute_has_passed(mongo: Mongo) -> None:
    maker = Maker()
    remembered = maker.remembered(mongo)
    assert [await remembered.get("a", maker.make) for _ in range(3)] == [1, 1, 1]
    assert await remembered.get("b", maker.make) == 2
    await fold_something(mongo)
    assert await remembered.get("a", maker.make) == 3
    maker.now += LONGEST_SECONDS - 1
    assert await remembered.get("a", maker.make) == 3
    maker.now += 2
    assert await remembered.get("a", maker.make) == 4
    maker.now += 3
    assert await remembered.get("a", maker.make, longest_seconds=2) == 5


async def test_what_was_costly_is_given_again_though_something_was_folded_but_not_for_long(mongo: Mongo) -> None:
    maker = Maker(cost=2.0)
    remembered = maker.remembered(mongo)
    assert await remembered.get("a", maker.make) == 1
    await fold_something(mongo)
    maker.now += 30
    assert await remembered.get("a", maker.make) == 1
    assert await remembered.get("b", maker.make, stale_seconds=0) == 2
    await fold_something(mongo)
    assert await remembered.get("b", maker.make, stale_seconds=0) == 3, "where nothing stale is wanted"
    maker.now += 20
    assert await remembered.get("a", maker.make) == 4, "for 20 times as long as it took"


async def test_callers_at_once_share_one_and_it_survives_the_one_who_leaves(mongo: Mongo) -> None:
    maker = Maker()
    remembered = maker.remembered(mongo)
    maker.may_end.clear()
    callers = [asyncio.create_task(remembered.get("a", maker.make)) for _ in range(3)]
    while not maker.made:
        await asyncio.sleep(0)
    maker.now += 5
    assert remembered.seconds_in_making("a") == 5
    callers[0].cancel()
    maker.may_end.set()
    assert await asyncio.gather(*callers[1:]) == [1, 1]
    assert remembered.seconds_in_making("a") == 0
    assert await remembered.get("a", maker.make) == 1


async def test_a_failure_is_told_and_not_kept(mongo: Mongo) -> None:
    maker = Maker()
    remembered = maker.remembered(mongo)

    async def fail() -> int:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await remembered.get("a", fail)
    assert await remembered.get("a", maker.make) == 1


async def test_it_is_bounded_and_breaks_off_what_is_left(mongo: Mongo) -> None:
    maker = Maker()
    remembered = maker.remembered(mongo)
    for place in range(MOST_ANSWERS + 1):
        await remembered.get(place, maker.make)
    made = maker.made
    assert await remembered.get(1, maker.make) == 2, "kept"
    assert await remembered.get(0, maker.make) == made + 1, "gone"
    maker.may_end.clear()
    waiting = asyncio.create_task(remembered.get("never", maker.make))
    while maker.made < made + 2:
        await asyncio.sleep(0)
    await remembered.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
