"""Faults planted in the data are found, named, counted and told with examples; sound data are let alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from collector.commit import CommitLimits
from collector.fold import FoldWorker
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.settings import LabelSettings
from collector.tracking import Tracking
from ranker.models.registry import ModelRegistry
from rankloop.v1.catalog_pb2 import Item
from rankloop.v1.tracking_pb2 import Interaction, Slate
from runtime.lease import Lease
from runtime.mongo import Mongo
from server.catalog import Catalog
from server.health.examination import Examination, Glance
from server.health.finding import Finding, Scope, Severity
from tests.integration.bundles import bundle
from tests.integration.learnable import NOW as LEARNED_UNTIL
from tests.integration.learnable import History

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
SCOPE = Scope(start=NOW - timedelta(days=7), end=NOW + timedelta(days=1), most_entries=10_000, most_slates=500)


def clock() -> datetime:
    return NOW


def opened(mongo: Mongo) -> Tracking:
    limits = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)
    return Tracking(mongo, Ledger.open(mongo, limits), Quarantine(mongo), LabelSettings().policy(), clock)


def click(event_id: str, item_id: str, moment: datetime = NOW, ranking_id: str = "") -> Interaction:
    entry = Interaction(event_id=event_id, user_id="ann", item_id=item_id, type="click", ranking_id=ranking_id)
    entry.occur_time.FromDatetime(moment)
    return entry


def slate(ranking_id: str, *item_ids: str, moment: datetime) -> Slate:
    shown = Slate(ranking_id=ranking_id, user_id="ann")
    shown.show_time.FromDatetime(moment)
    for place, item_id in enumerate(item_ids, start=1):
        shown.items.add(item_id=item_id, position=place)
    return shown


async def fold(mongo: Mongo) -> None:
    lease = Lease(mongo, "fold", "test", 600, clock)
    assert await lease.claim()
    worker = FoldWorker(mongo, lease, Combination.MAX, batch_entries=100, poll_seconds=0.01)
    while await worker.fold_once():
        pass
    await lease.release()


async def by_name(mongo: Mongo, scope: Scope = SCOPE) -> dict[str, Finding]:
    found = {one.name: one for one in await Examination(mongo).findings(scope)}
    assert all(one.advice and one.description and 0 < one.count <= one.examined_count for one in found.values())
    return found


async def test_sound_data_have_no_findings(mongo_both: Mongo) -> None:
    tracking = opened(mongo_both)
    await Catalog(mongo_both, clock).upsert_items([Item(item_id="a"), Item(item_id="b")])
    await tracking.record_slates([slate("r1", "a", "b", moment=NOW - timedelta(minutes=5))])
    await tracking.track([click("e1", "a", ranking_id="r1"), click("e2", "b")])
    await tracking.intake.write()
    await fold(mongo_both)
    assert await by_name(mongo_both) == {}


async def test_every_fault_is_counted_and_shown(mongo_both: Mongo) -> None:
    tracking = opened(mongo_both)
    catalog = Catalog(mongo_both, clock)
    await catalog.upsert_items([Item(item_id="a"), Item(item_id="b"), Item(item_id="gone")])
    await catalog.delete_items(["gone"])
    await tracking.record_slates([slate("r1", "a", moment=NOW - timedelta(minutes=5))])
    sent = [
        click("sound", "a", ranking_id="r1"),
        *(click(f"stranger-{number}", "stranger") for number in range(4)),
        click("deleted", "gone"),
        *(click(f"lost-{number}", "a", ranking_id=f"nowhere-{number}") for number in range(5)),
        *(click(f"other-{number}", "b", ranking_id="r1") for number in range(2)),
        click("early", "a", NOW - timedelta(minutes=7), ranking_id="r1"),
        *(click(f"ahead-{number}", "a", NOW + timedelta(minutes=1 + number)) for number in range(3)),
    ]
    await tracking.track(sent)
    await tracking.track(sent[:2])
    await tracking.intake.write()
    await tracking.track(sent[:1])
    await tracking.intake.write()
    await fold(mongo_both)
    found = await by_name(mongo_both)
    counts = {name: (one.count, one.examined_count, len(one.examples)) for name, one in found.items()}
    named = Counter(bool(one.ranking_id) for one in sent)[True]
    assert counts == {
        "unknown_items": (4 + 1, len(sent), 2),
        "interactions_without_slate": (5, named, 3),
        "never_shown": (2, named, 2),
        "acted_before_shown": (1, named, 1),
        # One minute ahead is let pass.
        "clock_skew": (2, len(sent), 2),
        # The slate was accepted, too.
        "duplicates": (3, len(sent) + 1 + 3, 2),
    }
    assert found["unknown_items"].examples == ("item 'stranger'", "item 'gone'")
    assert "'early'" in found["acted_before_shown"].examples[0]
    assert set(found["clock_skew"].examples) == {"interaction 'ahead-1', 120 s ahead", "interaction 'ahead-2', 180 s ahead"}
    assert found["duplicates"].severity is Severity.WARNING


async def test_only_the_scope_is_examined(mongo: Mongo) -> None:
    tracking = opened(mongo)
    await tracking.track([click(f"e{number}", f"stranger-{number}", NOW - timedelta(days=number)) for number in range(10)])
    await fold(mongo)
    week = await by_name(mongo)
    assert (week["unknown_items"].count, week["unknown_items"].examined_count) == (8, 8)
    newest = await by_name(mongo, Scope(start=SCOPE.start, end=SCOPE.end, most_entries=3, most_slates=10))
    assert newest["unknown_items"].count == 3


async def test_features_that_are_never_there_and_features_that_moved(mongo: Mongo) -> None:
    names = ("prior_score", "item_quality", "item_cost", "user_mood", "never_sent")
    await History(slates=200, days=10, now=LEARNED_UNTIL - timedelta(days=5), names=names).write(mongo)
    registry = ModelRegistry(mongo)
    made = bundle("m1", names=names[:2])
    await registry.publish(made, LEARNED_UNTIL)
    await mongo.collection("models").update_one(
        {"_id": "m1"},
        {"$set": {"data_start_time": LEARNED_UNTIL - timedelta(days=15), "data_end_time": LEARNED_UNTIL - timedelta(days=5)}},
    )
    await registry.promote("m1", LEARNED_UNTIL)
    scope = Scope(start=LEARNED_UNTIL - timedelta(days=4), end=LEARNED_UNTIL, most_entries=10, most_slates=100)
    assert [one.name for one in await Examination(mongo).findings(scope)] == []
    await History(slates=100, days=3, first=1000, seed=2, names=names).write(mongo)
    still = {one.name: one for one in await Examination(mongo).findings(scope)}
    assert still["features_missing"].examples == ("feature 'never_sent'",)
    assert (still["features_missing"].count, still["features_missing"].examined_count) == (1, 5)
    assert "feature_drift" not in still
    assert "score_drift" not in still
    # The forest goes by its first column: what moves there moves the scores.
    await _shift(mongo, LEARNED_UNTIL - timedelta(days=4))
    moved = {one.name: one for one in await Examination(mongo).findings(scope)}
    assert moved["feature_drift"].severity is Severity.WARNING
    assert moved["feature_drift"].count == 1
    assert moved["feature_drift"].examples[0].startswith("prior_score: PSI ")
    assert moved["score_drift"].examples[0].startswith("the model's scores: PSI ")


async def _shift(mongo: Mongo, since: datetime) -> None:
    for document in await mongo.collection("slates").find({"show_time": {"$gte": since}}, limit=1000):
        values = np.frombuffer(document["features"], dtype="<f8").reshape(-1, 5).copy()
        values[:, 0] += 3.0
        await mongo.collection("slates").update_one({"_id": document["_id"]}, {"$set": {"features": values.tobytes()}})


async def test_a_glance_is_kept_for_a_minute(mongo: Mongo) -> None:
    moment = NOW

    def moving() -> datetime:
        return moment

    tracking = opened(mongo)
    await tracking.track([click("e1", "stranger")])
    await fold(mongo)
    glance = Glance(mongo, moving, wait_seconds=30)
    first = await glance.look()
    assert first is not None
    assert [one.name for one in first.findings] == ["unknown_items"]
    await Catalog(mongo, clock).upsert_items([Item(item_id="stranger")])
    moment = NOW + timedelta(seconds=59)
    assert await glance.look() is first
    moment = NOW + timedelta(seconds=61)
    assert await glance.look() is first, "whoever asks is not kept waiting for the next"
    while (latest := await glance.look()) is first:
        await asyncio.sleep(0.01)
    assert latest is not None
    assert latest.findings == ()
    await glance.close()


@pytest.mark.parametrize("collection", ["interactions", "slates"])
async def test_what_is_examined_is_found_by_an_index(mongo: Mongo, collection: str) -> None:
    moment = "occur_time" if collection == "interactions" else "show_time"
    plan = await mongo.collection(collection).explain({moment: {"$gte": SCOPE.start, "$lt": SCOPE.end}}, sort=[(moment, -1)])
    assert "COLLSCAN" not in str(plan)
    assert "'SORT'" not in str(plan)
