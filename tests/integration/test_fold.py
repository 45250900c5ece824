"""The ledger and the fold on a real MongoDB: exact, once, and against a recount."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from collector.attribution import NANOS
from collector.commit import CommitLimits
from collector.fold import MARKED, FoldWorker
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.rebuild import recount
from collector.receipts import Receipt, Receipts
from collector.settings import LabelSettings
from collector.tally import scope_of
from collector.tracking import Tracking
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Slate, SlateItem
from runtime.errors import Aborted, InvalidInput
from runtime.lease import Lease
from runtime.mongo import Collection, Mongo
from runtime.timestamps import to_timestamp

NOW = datetime(2026, 3, 1, 0, 30, tzinfo=UTC)
LIMITS = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)


def clock() -> datetime:
    return NOW


def tracking_of(mongo: Mongo) -> Tracking:
    return Tracking(mongo, Ledger.open(mongo, LIMITS), Quarantine(mongo), LabelSettings().policy(), clock)


async def fold_all(mongo: Mongo, size: int = 7) -> int:
    lease = Lease(mongo, "fold", "w1", 5, clock)
    assert await lease.claim()
    worker = FoldWorker(mongo, lease, Combination.MAX, batch_entries=size, poll_seconds=0.01)
    total = 0
    while count := await worker.fold_once():
        total += count
    await lease.release()
    return total


def traffic() -> tuple[list[Slate], list[Interaction], list[Outcome]]:
    """Slates on both sides of midnight, interactions with them, late ones, and some that know no slate."""
    slates = [
        Slate(
            ranking_id=f"r{number}",
            user_id=f"u{number % 5}",
            algorithm="hybrid" if number % 3 else "popular",
            surface="home",
            show_time=to_timestamp(NOW - timedelta(minutes=7 * number)),
            items=[SlateItem(item_id=f"i{(number + place) % 12}", item_type=f"t{place % 2}") for place in range(4)],
        )
        for number in range(12)
    ]
    types = ["view", "click", "save", "implement", "dismiss", "rate"]
    interactions = []
    for number in range(120):
        kind = types[number % len(types)]
        entry = Interaction(
            event_id=f"e{number}",
            user_id=f"u{number % 5}",
            item_id=f"i{number % 12}",
            type=kind,
            occur_time=to_timestamp(NOW - timedelta(minutes=number)),
            ranking_id=f"r{number % 14}",
        )
        if kind == "rate":
            entry.value = number % 6
        interactions.append(entry)
    outcomes = [
        Outcome(event_id=f"o{n}", user_id="u1", type="revenue", value=n + 0.1, ranking_id=f"r{n}", item_id=f"i{n}") for n in range(6)
    ]
    return slates, interactions, outcomes


def recounted_performance(slates: Sequence[Slate], interactions: Sequence[Interaction]) -> dict[str, Counter[str]]:
    rows: dict[str, Counter[str]] = {}
    for slate in slates:
        row = rows.setdefault(slate.algorithm, Counter())
        row["slates"] += 1
        for item in slate.items:
            types = {one.type for one in interactions if (one.ranking_id, one.item_id) == (slate.ranking_id, item.item_id)}
            row["impressions"] += 1
            row["clicked"] += "click" in types
            row["untouched"] += not types
    return rows


async def tallied(mongo: Mongo, scope: str) -> dict[Any, Counter[str]]:
    rows: dict[Any, Counter[str]] = {}
    async for batch in mongo.collection("tallies").batches({"_id.scope": scope}):
        for tally in batch:
            key = tally["_id"]["key"]
            row = rows.setdefault(key if isinstance(key, str) else tuple(key), Counter())
            row.update(tally["day"])
            by_hour: Counter[str] = Counter()
            for counters in tally["hours"].values():
                by_hour.update(counters)
            assert by_hour == Counter(tally["day"])
    return rows


@pytest.mark.parametrize("slates_first", [True, False])
async def test_tallies_equal_a_recount(mongo_both: Mongo, slates_first: bool) -> None:
    slates, interactions, outcomes = traffic()
    tracking = tracking_of(mongo_both)
    if slates_first:
        assert (await tracking.record_slates(slates)).accepted_count == len(slates)
        await fold_all(mongo_both)
    assert (await tracking.track(interactions)).accepted_count == len(interactions)
    assert (await tracking.record_outcomes(outcomes)).accepted_count == len(outcomes)
    await fold_all(mongo_both)
    if not slates_first:
        await tracking.record_slates(slates)
        await fold_all(mongo_both)

    performance = {key[0]: row for key, row in (await tallied(mongo_both, scope_of(["algorithm"]))).items()}
    for algorithm, expected in recounted_performance(slates, interactions).items():
        assert {name: performance[algorithm][name] for name in expected} == dict(expected)
    whole = (await tallied(mongo_both, scope_of([])))[()]
    assert whole["outcome_units"] + whole["outcome_nanos"] / NANOS == pytest.approx(sum(n + 0.1 for n in range(6)))
    items = await tallied(mongo_both, "item")
    for item, expected in Counter(one.item_id for one in interactions).items():
        assert items[item]["interactions"] == expected
    assert await mongo_both.collection("interactions").count({"pending": {"$exists": True}}, limit=10) == 0


async def test_an_entry_counts_once_however_often_it_is_sent(mongo_both: Mongo) -> None:
    slates, interactions, _ = traffic()
    tracking = tracking_of(mongo_both)
    await tracking.record_slates(slates)
    await tracking.track(interactions[:60])
    await fold_all(mongo_both)
    again = await tracking.track(interactions)
    assert (again.accepted_count, again.duplicate_count) == (60, 60)
    assert (await tracking.record_slates(slates)).duplicate_count == len(slates)
    await fold_all(mongo_both)
    whole = (await tallied(mongo_both, "all"))[""]
    assert whole["interactions"] == len(interactions)


async def test_calls_at_once_share_writes_and_lose_nothing(mongo_both: Mongo) -> None:
    tracking = tracking_of(mongo_both)
    calls = [[Interaction(event_id=f"{n}-{k}", user_id="u", item_id="i", type="click") for k in range(3)] for n in range(50)]
    done = await asyncio.gather(*(tracking.track(call) for call in [*calls, *calls[:10]]))
    assert sum(one.accepted_count for one in done) == 150
    assert sum(one.duplicate_count for one in done) == 30
    assert await mongo_both.collection("interactions").count({}, limit=1000) == 150


async def test_the_same_id_with_other_content_is_refused_and_kept(mongo_both: Mongo) -> None:
    tracking = tracking_of(mongo_both)
    first = Interaction(event_id="e", user_id="u", item_id="i", type="click")
    await tracking.track([first])
    done = await tracking.track([first, Interaction(event_id="e", user_id="u", item_id="OTHER", type="click")])
    assert (done.accepted_count, done.duplicate_count) == (0, 1)
    assert [(one.index, one.event_id, one.reason, one.field) for one in done.rejected] == [(1, "e", "CONFLICT", "interactions[1].event_id")]
    stored = await mongo_both.collection("interactions").find_one({"_id": "e"})
    assert stored is not None
    assert stored["item_id"] == "i"
    kept = await mongo_both.collection("quarantine").find({}, limit=10)
    assert [(one["kind"], one["reason"]) for one in kept] == [("interactions", "CONFLICT")]


async def test_valid_entries_are_stored_beside_bad_ones(mongo_both: Mongo) -> None:
    def entry(**fields: Any) -> Interaction:
        return Interaction(**{"event_id": "x", "user_id": "u", "item_id": "i", "type": "click", **fields})

    bad = {
        "type": entry(type="frobnicate"),
        "event_id": entry(event_id=""),
        "user_id": entry(user_id="u" * 257),
        "value": entry(type="rate", value=6.0),
        "position": entry(position=0),
        "occur_time": entry(occur_time=to_timestamp(NOW + timedelta(days=1, minutes=1))),
    }
    worse = {"value": entry(type="view", value=float("nan")), "item_id": entry(item_id="")}
    entries = [entry(event_id="good"), *bad.values(), *worse.values(), entry(event_id="rating", type="rate")]
    done = await tracking_of(mongo_both).track(entries)
    assert done.accepted_count == 1
    assert [one.field for one in done.rejected] == [
        *(f"interactions[{place}].{field}" for place, field in enumerate([*bad, *worse], start=1)),
        "interactions[9].value",
    ]
    assert "frobnicate" in done.rejected[0].description
    assert "watchlist" in done.rejected[0].description
    assert await mongo_both.collection("quarantine").count({}, limit=100) == 9


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_call_has_1_to_1000_entries(mongo: Mongo, count: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 1000"):
        await tracking_of(mongo).track([Interaction(event_id=str(n), user_id="u", item_id="i", type="click") for n in range(count)])


async def test_a_worker_that_lost_the_lease_cannot_commit(mongo_both: Mongo) -> None:
    await tracking_of(mongo_both).track([Interaction(event_id="e", user_id="u", item_id="i", type="click")])
    old, new = Lease(mongo_both, "fold", "old", 5, clock), Lease(mongo_both, "fold", "new", 5, lambda: NOW + timedelta(seconds=6))
    assert await old.claim()
    assert not await Lease(mongo_both, "fold", "third", 5, clock).claim()
    assert await new.claim()
    with pytest.raises(Aborted):
        await FoldWorker(mongo_both, old, Combination.MAX, batch_entries=10, poll_seconds=1).fold_once()
    assert await mongo_both.collection("tallies").count({}, limit=10) == 0
    assert await FoldWorker(mongo_both, new, Combination.MAX, batch_entries=10, poll_seconds=1).fold_once() == 1
    assert not await old.claim()


async def test_a_fold_that_breaks_off_leaves_no_trace(mongo_both: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    slates, interactions, _ = traffic()
    tracking = tracking_of(mongo_both)
    await tracking.record_slates(slates)
    await tracking.track(interactions)
    lease = Lease(mongo_both, "fold", "w1", 5, clock)
    await lease.claim()
    worker = FoldWorker(mongo_both, lease, Combination.MAX, batch_entries=500, poll_seconds=1)
    monkeypatch.setattr(Receipts, "write", killed)
    with pytest.raises(Killed):
        await worker.fold_once()
    monkeypatch.undo()
    assert await mongo_both.collection("tallies").count({}, limit=10) == 0
    assert await mongo_both.collection("attributions").count({}, limit=10) == 0
    await lease.release()
    await fold_all(mongo_both, size=500)
    assert (await tallied(mongo_both, "all"))[""]["interactions"] == len(interactions)


async def test_marks_that_a_killed_worker_left_are_not_counted_again(mongo_both: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    slates, interactions, outcomes = traffic()
    tracking = tracking_of(mongo_both)
    await tracking.record_slates(slates[:6])
    await tracking.track(interactions[:60])
    lease = Lease(mongo_both, "fold", "w1", 5, clock)
    await lease.claim()
    worker = FoldWorker(mongo_both, lease, Combination.MAX, batch_entries=500, poll_seconds=1)
    monkeypatch.setattr(Receipts, "settle", killed)
    assert await worker.fold_once() == 66
    with pytest.raises(Killed):
        await worker.fold_once()
    monkeypatch.undo()
    assert await mongo_both.collection("interactions").count(MARKED, limit=100) == 60
    assert len(await Receipts(mongo_both).outstanding()) == 1
    await lease.release()
    # Its slates are folded, although they are marked: what comes now finds them so.
    await tracking.track(interactions[60:])
    await tracking.record_slates(slates[6:])
    await tracking.record_outcomes(outcomes)
    await fold_all(mongo_both, size=500)
    assert not await Receipts(mongo_both).outstanding()
    performance = {key[0]: row for key, row in (await tallied(mongo_both, scope_of(["algorithm"]))).items()}
    for algorithm, expected in recounted_performance(slates, interactions).items():
        assert {name: performance[algorithm][name] for name in expected} == dict(expected)
    assert (await tallied(mongo_both, "all"))[""]["interactions"] == len(interactions)


async def test_a_transaction_leaves_out_what_stands_on_a_receipt(mongo_both: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks of one batch go while the next is folded, so the next one meets them."""
    slates, interactions, _ = traffic()
    tracking = tracking_of(mongo_both)
    await tracking.record_slates(slates)
    await tracking.track(interactions)
    lease = Lease(mongo_both, "fold", "w1", 5, clock)
    await lease.claim()
    worker = FoldWorker(mongo_both, lease, Combination.MAX, batch_entries=50, poll_seconds=1)
    go = asyncio.Event()
    settle = Receipts.settle

    async def settle_later(receipts: Receipts, receipt: Receipt) -> None:
        await go.wait()
        await settle(receipts, receipt)

    monkeypatch.setattr(Receipts, "settle", settle_later)
    first = await worker.fold_once()
    assert first == 62
    second = asyncio.create_task(worker.fold_once())
    async with asyncio.timeout(20):
        while len(await Receipts(mongo_both).outstanding()) < 2:
            await asyncio.sleep(0.01)
    assert (await tallied(mongo_both, "all"))[""]["interactions"] == 100
    go.set()
    assert await second == 50
    while await worker.fold_once():
        pass
    await lease.release()
    assert (await tallied(mongo_both, "all"))[""]["interactions"] == len(interactions)


async def test_broken_off_at_any_operation_each_entry_counts_once(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    slates, _, _ = traffic()
    tracking = tracking_of(mongo)
    await tracking.record_slates(slates)
    left = 0

    async def step(inner: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        return await inner(*arguments, **options)

    sent, broken = 0, 0
    for operation in range(1, 100):
        entries = [
            Interaction(event_id=f"{operation}-{n}", user_id="u", item_id=f"i{n}", type="click", ranking_id=f"r{n}") for n in range(6)
        ]
        sent += (await tracking.track(entries)).accepted_count
        lease = Lease(mongo, "fold", f"killed {operation}", 5, clock)
        assert await lease.claim()
        worker = FoldWorker(mongo, lease, Combination.MAX, batch_entries=4, poll_seconds=1)
        with monkeypatch.context() as patched:
            for name in ("find", "find_one_and_update", "update_many", "bulk_write", "insert_one", "delete_one"):
                inner = getattr(Collection, name)
                patched.setattr(Collection, name, lambda *a, inner=inner, **o: step(inner, *a, **o))
            left = operation
            try:
                while await worker.fold_once():
                    pass
            except Killed:
                broken += 1
        await asyncio.gather(*([worker._settling] if worker._settling else []), return_exceptions=True)
        finished = left > 0
        await lease.release()
        if finished:
            break
    assert finished
    assert broken > 20
    await fold_all(mongo)
    assert (await tallied(mongo, "all"))[""]["interactions"] == sent
    assert (await recount(mongo, Lease(mongo, "fold", "doctor", 5, clock), Combination.MAX, Silent())).agrees


class Killed(BaseException):
    """What ends a worker at a line of its work."""


async def killed(*_: Any) -> None:
    raise Killed


class Silent:
    def step(self, description: str, total: int | None = None) -> None: ...

    def advance(self, count: int) -> None: ...
