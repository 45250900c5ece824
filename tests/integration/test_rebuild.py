"""Deriving anew, comparing, forgetting what is old, and sending refused entries again: on a real MongoDB."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from collector.fold import FoldWorker
from collector.inspection import replay
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.rebuild import Recount, rebuild, recount, resting_fold
from collector.retention import cut_of, sweep
from collector.settings import LabelSettings, RetentionSettings
from collector.tally import day_of
from collector.tracking import Tracking
from rankloop.v1 import stats_pb2
from rankloop.v1.tracking_pb2 import Interaction
from runtime.lease import Lease
from runtime.mongo import Mongo
from runtime.timestamps import to_timestamp
from server.statistics.statistics import Statistics
from tests.integration.test_fold import LIMITS, NOW, clock, fold_all, tallied, tracking_of, traffic


class Silent:
    def step(self, description: str, total: int | None = None) -> None: ...

    def advance(self, count: int) -> None: ...


def lease_of(mongo: Mongo, holder: str, at: Callable[[], datetime] = clock) -> Lease:
    return Lease(mongo, "fold", holder, 5, at)


async def filled(mongo: Mongo) -> None:
    slates, interactions, outcomes = traffic()
    tracking = tracking_of(mongo)
    await tracking.track(interactions[:70])
    await tracking.record_slates(slates)
    await tracking.track(interactions)
    await tracking.record_outcomes(outcomes)
    await fold_all(mongo)


async def derived(mongo: Mongo) -> dict[str, Any]:
    """Everything derived, without revisions and without counters of 0."""
    found: dict[str, Any] = {}
    for name in ("attributions", "tallies"):
        async for batch in mongo.collection(name).batches({}):
            for one in batch:
                one.pop("revision", None)
                if name == "tallies":
                    one["day"] = {counter: count for counter, count in one["day"].items() if count}
                    hours = {hour: {c: n for c, n in counters.items() if n} for hour, counters in one["hours"].items()}
                    one["hours"] = {hour: counters for hour, counters in hours.items() if counters}
                found[f"{name} {one['_id']}"] = one
    return found


async def compared(mongo: Mongo) -> Recount:
    return await recount(mongo, lease_of(mongo, "doctor"), Combination.MAX, Silent())


async def test_a_rebuild_gives_the_same(mongo_both: Mongo) -> None:
    await filled(mongo_both)
    before = await derived(mongo_both)
    assert len(before) > 100
    assert (await compared(mongo_both)).agrees
    await mongo_both.collection("tallies").delete_many({"_id.scope": "item"})
    await rebuild(mongo_both, lease_of(mongo_both, "rebuild"), Combination.MAX, Silent())
    assert await derived(mongo_both) == before
    assert (await compared(mongo_both)).agrees


async def test_the_doctor_says_exactly_what_differs(mongo: Mongo) -> None:
    await filled(mongo)
    tally = await mongo.collection("tallies").find_one({"_id.scope": "all"})
    attribution = await mongo.collection("attributions").find_one({})
    assert tally is not None
    assert attribution is not None
    await mongo.collection("tallies").update_one({"_id": tally["_id"]}, {"$inc": {"day.interactions": 1}})
    await mongo.collection("attributions").delete_one({"_id": attribution["_id"]})
    await mongo.collection("attributions").insert_one({**attribution, "_id": {"ranking_id": "nowhere", "item_id": "x"}})
    found = await compared(mongo)
    assert found.differing == {"attributions": 2, "tallies": 1}
    wrong = next(one for one in found.examples if one.collection == "tallies")
    assert (wrong.identity, wrong.counter, wrong.kept - wrong.counted) == (tally["_id"], "day.interactions", 1)
    await rebuild(mongo, lease_of(mongo, "rebuild"), Combination.MAX, Silent())
    assert (await compared(mongo)).agrees


async def test_what_arrives_during_a_rebuild_is_counted_afterwards(mongo: Mongo) -> None:
    await filled(mongo)
    late = [Interaction(event_id=f"late{n}", user_id="u", item_id="i1", type="click", ranking_id="r1") for n in range(5)]
    await tracking_of(mongo).track(late)
    before = (await tallied(mongo, "all"))[""]["interactions"]
    await rebuild(mongo, lease_of(mongo, "rebuild"), Combination.MAX, Silent())
    assert (await tallied(mongo, "all"))[""]["interactions"] == before
    assert await fold_all(mongo) == 5
    assert (await tallied(mongo, "all"))[""]["interactions"] == before + 5
    assert (await compared(mongo)).agrees


async def test_a_rebuild_under_another_rule_changes_the_labels(mongo: Mongo) -> None:
    await filled(mongo)
    await rebuild(mongo, lease_of(mongo, "rebuild"), Combination.SUM, Silent())
    found = await mongo.collection("attributions").find({}, limit=1000)
    assert all(one["label"] == pytest.approx(min(1.0, one["label_sum_nanos"] / 1e9)) for one in found)
    assert any(one["label"] > one["label_max_nanos"] / 1e9 for one in found)


async def test_a_fold_worker_lets_go_of_the_lease_when_asked(mongo: Mongo) -> None:
    now = [NOW]

    def at() -> datetime:
        return now[0]

    worker, asker, third = (lease_of(mongo, holder, at) for holder in ("worker", "asker", "third"))
    assert await worker.claim()
    await asker.ask()
    assert not await asker.claim()
    assert not await worker.claim()
    assert not await third.claim()
    assert await asker.claim()
    now[0] += timedelta(seconds=4)
    assert await asker.claim()
    assert not await worker.claim()
    await asker.release()
    assert await third.claim()


async def test_an_asker_that_died_is_not_waited_for_for_ever(mongo: Mongo) -> None:
    asker, worker = lease_of(mongo, "asker"), lease_of(mongo, "worker", lambda: NOW + timedelta(seconds=21))
    await asker.ask()
    assert not await lease_of(mongo, "worker").claim()
    assert await worker.claim()


class Deaf(Lease):
    """Loses a cancellation, as a wait within the driver may before Python 3.12."""

    renewing: asyncio.Event

    async def claim(self) -> bool:
        if self.epoch and not self.renewing.is_set():
            self.renewing.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return await super().claim()


async def test_who_is_done_does_not_take_the_lease_anew(mongo: Mongo) -> None:
    real = lambda: datetime.now(NOW.tzinfo)  # noqa: E731
    lease = Deaf(mongo, "fold", "doctor", 1, real)
    lease.renewing = asyncio.Event()
    before = asyncio.all_tasks()
    async with resting_fold(lease):
        await lease.renewing.wait()
    assert asyncio.all_tasks() == before
    worker = lease_of(mongo, "worker", real)
    assert await worker.claim()
    assert lease.epoch == 0


async def test_a_running_worker_makes_way_and_goes_on(mongo: Mongo) -> None:
    await filled(mongo)
    await tracking_of(mongo).track([Interaction(event_id="more", user_id="u", item_id="i1", type="click")])
    stop = asyncio.Event()
    real = lambda: datetime.now(NOW.tzinfo)  # noqa: E731
    worker = FoldWorker(mongo, Lease(mongo, "fold", "worker", 1, real), Combination.MAX, batch_entries=10, poll_seconds=0.02)
    running = asyncio.create_task(worker.run(stop))
    try:
        await rebuild(mongo, Lease(mongo, "fold", "rebuild", 1, real), Combination.MAX, Silent())
        async with asyncio.timeout(20):
            while await mongo.collection("interactions").count({"pending": {"$exists": True}}, limit=1):
                await asyncio.sleep(0.02)
    finally:
        stop.set()
        await running
    assert (await recount(mongo, Lease(mongo, "fold", "doctor", 1, real), Combination.MAX, Silent())).agrees


async def test_old_entries_go_and_their_tallies_stay(mongo: Mongo) -> None:
    await filled(mongo)
    before = await derived(mongo)
    keep = RetentionSettings(interactions_days=10, slates_days=10)
    assert await sweep(mongo, keep, NOW + timedelta(days=9)) == 0
    assert await cut_of(mongo) is None
    newest = Interaction(event_id="new", user_id="u", item_id="i1", type="click")
    later = NOW + timedelta(days=11)
    await Tracking(mongo, Ledger.open(mongo, LIMITS), Quarantine(mongo), LabelSettings().policy(), lambda: later).track([newest])
    await fold_all(mongo)
    assert await sweep(mongo, keep, later) == 120 + 12
    assert await cut_of(mongo) == day_of(NOW) + timedelta(days=1)
    assert await mongo.collection("interactions").count({}, limit=10) == 1
    assert await mongo.collection("attributions").count({}, limit=1000) == len(
        [name for name in before if (name.startswith("attributions") and "'r12'" in name) or "'r13'" in name]
    )
    after = await derived(mongo)
    assert {name: one for name, one in after.items() if name.startswith("tallies") and one["_id"]["start"] <= day_of(NOW)} == {
        name: one for name, one in before.items() if name.startswith("tallies")
    }
    assert (await compared(mongo)).agrees
    await rebuild(mongo, lease_of(mongo, "rebuild"), Combination.MAX, Silent())
    assert await derived(mongo) == after


async def test_refused_entries_are_stored_once_their_type_is_known(mongo: Mongo) -> None:
    entries = [Interaction(event_id=f"e{n}", user_id="u", item_id="i", type="bookmark" if n % 2 else "nonsense") for n in range(10)]
    await tracking_of(mongo).track(entries)
    policy = LabelSettings(types={"bookmark": {"label": 0.7, "acts": True}}).policy()  # type: ignore[dict-item]
    mended = Tracking(mongo, Ledger.open(mongo, LIMITS), Quarantine(mongo), policy, clock)
    done = [one async for one in replay(mongo, mended, {"reason": "UNKNOWN_TYPE"})][-1]
    assert (done.accepted, done.duplicate, done.refused, done.unreadable) == (5, 0, 5, 0)
    assert await mongo.collection("quarantine").count({}, limit=100) == 5
    assert await mongo.collection("interactions").count({"type": "bookmark", "label": 0.7}, limit=100) == 5


async def test_answers_say_since_when_the_ledger_is_whole(mongo: Mongo) -> None:
    await filled(mongo)
    asked = stats_pb2.GetItemStatsRequest(item_id="i1", start_time=to_timestamp(NOW - timedelta(days=1)))
    statistics = Statistics(mongo, Combination.MAX, lambda: NOW + timedelta(days=12))
    whole = await statistics.item(asked)
    assert not whole.HasField("ledger_start_time")
    everything = {"start_time": to_timestamp(NOW - timedelta(days=30)), "end_time": to_timestamp(NOW + timedelta(days=1))}
    await statistics.types(stats_pb2.GetTypeMetricsRequest(**everything))
    assert (await statistics.analyses.engagement(stats_pb2.GetEngagementRequest(**everything))).active_user_count
    for packs in ("times", "interaction_days"):
        assert await mongo.collection(packs).estimated_count()
    await sweep(mongo, RetentionSettings(interactions_days=10, slates_days=10), NOW + timedelta(days=12))
    for packs in ("times", "interaction_days"):
        assert not await mongo.collection(packs).estimated_count(), "nothing of what is deleted is left elsewhere"
    after = await statistics.item(asked)
    assert after.stats == whole.stats
    assert after.ledger_start_time.ToDatetime(NOW.tzinfo) == day_of(NOW) + timedelta(days=1)
    own = await statistics.user(stats_pb2.GetUserStatsRequest(user_id="u1"))
    assert (own.stats.interaction_count, own.HasField("ledger_start_time")) == (0, True)
    for server in (statistics, Statistics(mongo, Combination.MAX, lambda: NOW + timedelta(days=12))):
        await server.analyses.engagement(stats_pb2.GetEngagementRequest(**everything))
        await server.close()
    assert not await mongo.collection("interaction_days").estimated_count()
