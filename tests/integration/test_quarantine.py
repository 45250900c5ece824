"""The quarantine on a real MongoDB: its bounds, what is cut, and what happens to entries that are sent again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from collector.commit import CommitLimits
from collector.inspection import Replay, quarantined, replay
from collector.labels import LabelPolicy, LabelRule
from collector.ledger import Ledger
from collector.quarantine import MAX_KEPT_BYTES, Quarantine, QuarantineLimits
from collector.settings import LabelSettings, RetentionSettings
from collector.tracking import Tracking
from rankloop.v1.tracking_pb2 import Interaction
from runtime.mongo import Mongo

NOW = datetime(2026, 3, 1, 0, 30, tzinfo=UTC)
CAPACITY = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)
MINUTE = timedelta(minutes=1)


def tracking_of(mongo: Mongo, limits: QuarantineLimits, *, now: datetime = NOW, policy: LabelPolicy | None = None) -> Tracking:
    return Tracking(mongo, Ledger.open(mongo, CAPACITY), Quarantine(mongo, limits), policy or LabelSettings().policy(), lambda: now)


def refused(number: int, *, note: str = "") -> Interaction:
    return Interaction(event_id=f"e{number}", user_id="u", item_id="i", type="nonsense", context={"note": note} if note else {})


async def kept_ids(mongo: Mongo) -> list[str]:
    """Oldest first."""
    return [one["entry_id"] for one in reversed(await quarantined(mongo, limit=1000))]


async def test_it_is_bounded_in_number_and_age_and_the_oldest_go_first(mongo: Mongo) -> None:
    wide = QuarantineLimits(entries=100, age=timedelta(days=1))
    for number in range(20):
        await tracking_of(mongo, wide, now=NOW + number * MINUTE).track([refused(number)])
        await tracking_of(mongo, wide, now=NOW + number * MINUTE).track([refused(number)])
    assert await Quarantine(mongo, wide).trim(NOW) == 0
    assert await Quarantine(mongo, QuarantineLimits(entries=5, age=timedelta(days=1))).trim(NOW) == 15
    assert await kept_ids(mongo) == ["e15", "e16", "e17", "e18", "e19"]
    assert await Quarantine(mongo, wide).trim(NOW + timedelta(days=1) + 18 * MINUTE) == 3
    assert await kept_ids(mongo) == ["e18", "e19"]


async def test_of_entries_refused_in_one_call_only_the_surplus_goes(mongo: Mongo) -> None:
    await tracking_of(mongo, QuarantineLimits()).track([refused(number) for number in range(20)])
    assert await Quarantine(mongo, QuarantineLimits(entries=5)).trim(NOW) == 15
    assert len(await kept_ids(mongo)) == 5


async def test_it_is_bounded_in_bytes_and_the_oldest_go_first(mongo: Mongo) -> None:
    for number in range(30):
        await tracking_of(mongo, QuarantineLimits(), now=NOW + number * MINUTE).track([refused(number, note="x" * 10_000)])
    await Quarantine(mongo, QuarantineLimits(byte_count=100_000)).trim(NOW)
    # Each takes its 10,000 bytes and a few hundred of reasons: nine of them fit, ten do not.
    assert await kept_ids(mongo) == [f"e{number}" for number in range(21, 30)]


async def test_a_huge_entry_is_cut_and_says_so_and_cannot_be_replayed(mongo: Mongo) -> None:
    whole, cut = refused(1, note="x" * (MAX_KEPT_BYTES - 1_000)), refused(2, note="ü" * 1_000_000)
    await tracking_of(mongo, QuarantineLimits()).track([whole, cut])
    kept = {one["entry_id"]: one for one in await quarantined(mongo)}
    assert {name: one["cut"] for name, one in kept.items()} == {"e1": False, "e2": True}
    assert MAX_KEPT_BYTES - 1 <= len(kept["e2"]["entry"].encode()) <= MAX_KEPT_BYTES, "an umlaut is two bytes"
    done = await replayed(mongo, {})
    assert (done.refused, done.unreadable) == (1, 1)


async def test_a_flood_is_bounded_before_the_next_sweep(mongo: Mongo) -> None:
    limits = QuarantineLimits(byte_count=2**20)
    tracking = tracking_of(mongo, limits)
    for call in range(20):
        await tracking.track([refused(call * 10 + number, note="x" * 60_000) for number in range(10)])
    (stats,) = await mongo.collection("quarantine").aggregate([{"$collStats": {"storageStats": {}}}])
    assert stats["storageStats"]["size"] <= limits.byte_count + 10 * 61_000, "what was allowed, and one call"
    assert "e199" in await kept_ids(mongo)
    many = tracking_of(mongo, QuarantineLimits(entries=50))
    for number in range(1000, 1200):
        await many.track([refused(number)])
    assert len(await kept_ids(mongo)) <= 50 + 6, "what was allowed, and a tenth"


async def test_the_settings_reach_it() -> None:
    limits = RetentionSettings(quarantine_entries=7, quarantine_bytes=2**21, quarantine_days=2).quarantine_limits()
    assert limits == QuarantineLimits(entries=7, byte_count=2**21, age=timedelta(days=2))
    assert RetentionSettings().quarantine_limits() == QuarantineLimits(), "both say the same defaults"


async def test_what_is_refused_again_for_another_reason_is_kept_once(mongo: Mongo) -> None:
    stranger = Interaction(event_id="e", user_id="u", item_id="i", type="bookmark", value=float("inf"))
    await tracking_of(mongo, QuarantineLimits()).track([stranger])
    policy = LabelPolicy({**LabelSettings().policy().rules, "bookmark": LabelRule(label=0.5, acts=True)}, LabelSettings().combination)
    assert (await replayed(mongo, {}, policy)).refused == 1
    assert [one["reason"] for one in await quarantined(mongo)] == ["NOT_FINITE"]
    assert (await replayed(mongo, {}, policy)).refused == 1
    assert [one["reason"] for one in await quarantined(mongo)] == ["NOT_FINITE"]


async def replayed(mongo: Mongo, query: Mapping[str, str], policy: LabelPolicy | None = None) -> Replay:
    tracking = tracking_of(mongo, QuarantineLimits(), policy=policy)
    return [done async for done in replay(mongo, tracking, query)][-1]
