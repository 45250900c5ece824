"""The cache of users' histories."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from ranker.features.history import NO_HISTORY
from ranker.state.items import ItemState
from ranker.state.users import UserHistories
from runtime.errors import Unavailable

MOMENT = datetime.datetime(2026, 3, 5, tzinfo=datetime.UTC)


class Ledger:
    """Interactions that are in memory, and can be away."""

    def __init__(self) -> None:
        self.count_of: dict[str, int] = {}
        self.reads: list[str] = []
        self.away = False
        self.stuck = False

    async def find(
        self,
        query: Mapping[str, Any],
        projection: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int,
    ) -> list[dict[str, Any]]:
        self.reads.append(query["user_id"])
        if self.away:
            raise Unavailable("away")
        if self.stuck:
            await asyncio.Event().wait()
        one = {"item_id": "a", "type": "click", "label": 0.4, "acts": True, "occur_time": MOMENT}
        return [one] * min(limit, self.count_of.get(query["user_id"], 0))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def histories(ledger: Ledger, clock: Clock, *, capacity: int = 10, timeout_seconds: float = 5.0) -> UserHistories:
    items = ItemState((), today=0)
    return UserHistories(ledger, items, capacity=capacity, fresh_seconds=2.0, timeout_seconds=timeout_seconds, clock=clock)


async def test_read_once_while_fresh_and_again_after() -> None:
    ledger, clock = Ledger(), Clock()
    users = histories(ledger, clock)
    ledger.count_of["u"] = 1
    assert len((await users.get("u")).seconds) == 1
    ledger.count_of["u"] = 2
    clock.now = 2.0
    assert len((await users.get("u")).seconds) == 1
    clock.now = 2.1
    assert len((await users.get("u")).seconds) == 2
    assert ledger.reads == ["u", "u"]
    users.forget("u")
    await users.get("u")
    assert len(ledger.reads) == 3
    assert (users.hit_count, users.miss_count, users.failure_count) == (1, 3, 0)


async def test_the_least_recently_asked_for_goes_first() -> None:
    ledger, clock = Ledger(), Clock()
    users = histories(ledger, clock, capacity=2)
    for user_id in ("a", "b", "a", "c", "a", "b"):
        await users.get(user_id)
    assert ledger.reads == ["a", "b", "c", "b"]
    assert len(users) == 2


async def test_an_unknown_visitor_is_not_looked_up() -> None:
    ledger = Ledger()
    assert await histories(ledger, Clock()).get("") is NO_HISTORY
    assert ledger.reads == []


async def test_a_ledger_that_is_away_or_stuck_costs_the_news_and_not_the_ranking() -> None:
    ledger, clock = Ledger(), Clock()
    users = histories(ledger, clock, timeout_seconds=0.001)
    ledger.count_of["u"] = 3
    await users.get("u")
    clock.now = 100.0
    for ledger.away, ledger.stuck in ((True, False), (False, True)):
        assert len((await users.get("u")).seconds) == 3
        assert await users.get("stranger") is NO_HISTORY
    assert users.failure_count == 4
    ledger.stuck = False
    ledger.count_of["u"] = 4
    assert len((await users.get("u")).seconds) == 4


async def test_news_are_seen_at_once_however_fresh_what_is_known() -> None:
    ledger = Ledger()
    users = histories(ledger, Clock())
    ledger.count_of["u"] = 1
    assert len((await users.get("u")).seconds) == 1
    ledger.count_of["u"] = 2
    assert len((await users.get("u")).seconds) == 1
    assert len((await users.get("u", news_seconds=50.0)).seconds) == 2
    ledger.count_of["u"] = 3
    for older in (50.0, 49.0):
        assert len((await users.get("u", news_seconds=older)).seconds) == 2, "news that were seen are no news"
    assert len((await users.get("u", news_seconds=50.5)).seconds) == 3
    assert (users.hit_count, users.miss_count) == (3, 3)


async def test_who_asks_at_once_shares_a_read_and_news_start_another() -> None:
    ledger = Ledger()
    users = histories(ledger, Clock())
    ledger.count_of["u"] = 1
    before = [asyncio.create_task(users.get("u")) for _ in range(3)]
    await asyncio.sleep(0)
    after = [asyncio.create_task(users.get("u", news_seconds=5.0)) for _ in range(2)]
    before[0].cancel()
    found = await asyncio.gather(*before[1:], *after)
    assert [len(history.seconds) for history in found] == [1] * 4
    assert ledger.reads == ["u", "u"]
    assert (users.miss_count, users.shared_count) == (2, 3)
    # The read for the news is the one that stays, whichever came back first.
    assert len((await users.get("u", news_seconds=5.0)).seconds) == 1
    assert len(ledger.reads) == 2
