"""Calls that share writes: who waits for whom, and what it costs. The write itself is an argument."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from collector.commit import WORTH_ENTRIES, CommitLimits, GroupCommit
from runtime.errors import Overloaded, Unavailable

LIMITS = CommitLimits(capacity_entries=2_000, capacity_bytes=10_000, write_entries=1_000, writes_at_once=2)


class Store:
    """What is written, and when it is let go."""

    def __init__(self, *, held: bool) -> None:
        self.writes: list[list[Any]] = []
        self.go = asyncio.Event()
        self.failures = 0
        if not held:
            self.go.set()

    async def __call__(self, documents: Sequence[dict[str, Any]]) -> frozenset[int]:
        ids = [document["_id"] for document in documents]
        there = {one for write in self.writes for one in write}
        self.writes.append(ids)
        await self.go.wait()
        if self.failures:
            self.failures -= 1
            self.writes.pop()
            raise Unavailable("away")
        return frozenset(place for place, one in enumerate(ids) if one in there)


def entries(*ids: Any) -> list[dict[str, Any]]:
    return [{"_id": one} for one in ids]


async def ticks() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_call_that_comes_the_moment_a_write_ends_is_written() -> None:
    store = Store(held=False)
    commit = GroupCommit("t", store, LIMITS)
    async with asyncio.timeout(10):
        for number in range(50):
            assert await commit.append(entries(number), 1) == frozenset()
    assert store.writes == [[number] for number in range(50)]


async def test_a_lone_call_is_written_at_once_and_few_gather_for_the_next_write() -> None:
    store = Store(held=True)
    commit = GroupCommit("t", store, LIMITS)
    calls = [asyncio.create_task(commit.append(entries("first"), 1))]
    await ticks()
    assert store.writes == [["first"]]
    calls += [asyncio.create_task(commit.append(entries(number), 1)) for number in range(20)]
    await ticks()
    assert len(store.writes) == 1
    store.go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*calls)
    assert store.writes == [["first"], list(range(20))]


async def test_what_is_worth_a_write_does_not_wait_for_the_one_under_way() -> None:
    store = Store(held=True)
    commit = GroupCommit("t", store, LIMITS)
    calls = [asyncio.create_task(commit.append(entries("first"), 1))]
    await ticks()
    calls.append(asyncio.create_task(commit.append(entries(*range(WORTH_ENTRIES)), 1)))
    calls.append(asyncio.create_task(commit.append(entries(*range(1000, 1000 + WORTH_ENTRIES)), 1)))
    await ticks()
    # Two writes at once and no more; of what gathered, one write took all.
    assert len(store.writes) == 2
    store.go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*calls)


async def test_each_call_of_a_shared_write_learns_of_its_own_duplicates() -> None:
    store = Store(held=True)
    commit = GroupCommit("t", store, LIMITS)
    store.writes.append(["b", "d"])
    calls = [asyncio.create_task(commit.append(entries(*ids), 1)) for ids in ("x", "ab", "cde")]
    await ticks()
    store.go.set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*calls) == [frozenset(), frozenset({1}), frozenset({1})]


async def test_a_write_that_failed_is_tried_again_and_nothing_overtaken_is_lost() -> None:
    store = Store(held=False)
    store.failures = 2
    commit = GroupCommit("t", store, LIMITS)
    async with asyncio.timeout(10):
        await asyncio.gather(*(commit.append(entries(number), 1) for number in range(5)))
    assert sorted(one for write in store.writes for one in write) == list(range(5))


async def test_more_than_may_wait_is_refused_and_room_comes_back() -> None:
    store = Store(held=True)
    commit = GroupCommit("t", store, LIMITS)
    calls = [asyncio.create_task(commit.append(entries(*range(n, n + 500)), 1)) for n in range(0, 2000, 500)]
    await ticks()
    with pytest.raises(Overloaded):
        await commit.append(entries("more"), 1)
    store.go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*calls)
        await commit.append(entries("more"), 1)
        with pytest.raises(Overloaded):
            await commit.append(entries("large"), 10_001)
        await commit.wait_idle()
