"""Whoever follows the fold hears of every user of whom there is news, from the first revision that it is promised."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from collector.commit import CommitLimits
from collector.fold import FoldWorker
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.settings import LabelSettings
from collector.tracking import Tracking
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Slate, SlateItem
from runtime.lease import Lease, follow, unfollow
from runtime.mongo import Mongo

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LIMITS = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)


def tracking_of(mongo: Mongo) -> Tracking:
    return Tracking(mongo, Ledger.open(mongo, LIMITS), Quarantine(mongo), LabelSettings().policy(), lambda: NOW)


async def fold_all(mongo: Mongo) -> None:
    lease = Lease(mongo, "fold", "w", 5, lambda: NOW)
    assert await lease.claim()
    worker = FoldWorker(mongo, lease, Combination.MAX, batch_entries=10, poll_seconds=1)
    while await worker.fold_once():
        pass
    await lease.release()


async def heard(mongo: Mongo) -> list[set[str]]:
    """By revision."""
    return [set(one["user_ids"]) for one in await mongo.collection("touched_users").find({}, sort=[("_id", 1)], limit=100)]


def click(number: int, user_id: str, ranking_id: str = "") -> Interaction:
    return Interaction(event_id=f"e{number}", user_id=user_id, item_id="i", type="click", ranking_id=ranking_id)


async def test_users_are_written_down_while_somebody_follows(mongo_both: Mongo) -> None:
    tracking = tracking_of(mongo_both)
    await tracking.track([click(1, "before")])
    await fold_all(mongo_both)
    assert await heard(mongo_both) == []
    since = await follow(mongo_both, "fold")
    await tracking.record_slates([Slate(ranking_id="r", user_id="shown", algorithm="x", items=[SlateItem(item_id="i")])])
    await tracking.record_outcomes([Outcome(event_id="o", user_id="paid", type="revenue", value=1.0)])
    await fold_all(mongo_both)
    # The click changes what became of a slate of somebody else.
    await tracking.track([click(2, "clicked", "r")])
    await fold_all(mongo_both)
    assert await heard(mongo_both) == [{"shown", "paid"}, {"clicked", "shown"}]
    assert await follow(mongo_both, "fold") == since
    await unfollow(mongo_both, "fold")
    await tracking.track([click(3, "after")])
    await fold_all(mongo_both)
    assert len(await heard(mongo_both)) == 2


async def test_a_fold_that_never_worked_can_be_followed(mongo_both: Mongo) -> None:
    assert await follow(mongo_both, "fold") == 0
    await tracking_of(mongo_both).track([click(1, "u")])
    await fold_all(mongo_both)
    assert await heard(mongo_both) == [{"u"}]


async def test_a_transaction_under_way_commits_before_it_is_followed_or_knows_of_it(mongo_both: Mongo) -> None:
    lease = Lease(mongo_both, "fold", "w", 5, lambda: NOW)
    assert await lease.claim()
    begun, go = asyncio.Event(), asyncio.Event()
    told: list[tuple[int, bool]] = []

    async def work(session: Any) -> None:
        revision = await lease.next_revision(session)
        begun.set()
        await go.wait()
        told.append((revision, lease.followed))

    async def begin_late(session: Any) -> None:
        # Its snapshot is older than the promise, and it has not touched the lease yet.
        await mongo_both.collection("tallies").find_one({"_id": "nothing"}, session=session)
        if not begun.is_set():
            begun.set()
            await go.wait()
        told.append((await lease.next_revision(session), lease.followed))

    under_way = asyncio.create_task(mongo_both.transact(work, session=lease.session))
    await begun.wait()
    following = asyncio.create_task(follow(mongo_both, "fold"))
    await asyncio.wait([following], timeout=0.2)
    go.set()
    await under_way
    since = await following
    assert all(followed == (revision > since) for revision, followed in told)
    await unfollow(mongo_both, "fold")

    begun.clear(), go.clear(), told.clear()
    under_way = asyncio.create_task(mongo_both.transact(begin_late, session=lease.session))
    await begun.wait()
    since = await follow(mongo_both, "fold")
    go.set()
    await under_way
    assert told == [(since + 1, True)]
    await lease.release()
