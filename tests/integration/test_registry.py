"""The model registry: no half model, exactly one champion, back and forth, whatever meets what."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import lightgbm
import numpy as np
import pytest

from ranker.models.bundle import BadBundle, Bundle
from ranker.models.passport import FeatureGain, Metric, Passport
from ranker.models.registry import ModelRegistry
from runtime.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound
from runtime.mongo import Mongo

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def later(seconds: int) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def template() -> Bundle:
    random = np.random.default_rng(0)
    matrix = random.random((200, 3))
    dataset = lightgbm.Dataset(matrix, label=random.integers(0, 5, 200), group=[20] * 10, feature_name=["a", "b", "c"])
    booster = lightgbm.train({"objective": "lambdarank", "num_leaves": 4, "num_threads": 1, "verbosity": -1}, dataset, 3)
    passport = Passport(
        model_version="template",
        source="train",
        feature_names=("a", "b", "c"),
        schema_hash="hash",
        tree_count=3,
        data_start_time=NOW - timedelta(days=2),
        data_end_time=NOW - timedelta(days=1),
        slate_count=10,
        row_count=200,
        metrics=(Metric(name="test.model.ndcg_at_10", value=0.5, low=0.4, high=0.6), Metric(name="test.random.ndcg_at_10", value=0.3)),
        top_features=(FeatureGain(feature="b", gain_share=0.6),),
    )
    return Bundle.make(passport, booster.model_to_string().encode(), matrix[:5])


def named(template: Bundle, version: str) -> Bundle:
    return Bundle.make(replace(template.passport, model_version=version), template.forest, template.canned.matrix)


@pytest.fixture
async def registry(mongo: Mongo, template: Bundle) -> ModelRegistry:
    registry = ModelRegistry(mongo)
    for number, version in enumerate(("m1", "m2", "m3")):
        await registry.publish(named(template, version), later(number))
    return registry


async def champions(mongo: Mongo) -> list[str]:
    return [one["_id"] for one in await mongo.collection("models").find({"status": "champion"}, limit=10)]


async def test_what_is_published_is_what_is_fetched(mongo_both: Mongo, template: Bundle) -> None:
    registry = ModelRegistry(mongo_both)
    record = await registry.publish(template, NOW, reason="trained")
    fetched = await registry.fetch("template")
    assert fetched == template
    fetched.verify()
    assert await registry.get("template") == record
    assert record.status == "candidate"
    assert record.create_time == NOW
    assert record.metrics == template.passport.metrics
    assert record.top_features == template.passport.top_features
    assert record.files == template.sha256
    assert record.byte_count == len(template.pack())
    assert record.data_start_time == template.passport.data_start_time
    assert record.promote_time is None


async def test_there_is_no_champion_before_the_first_promotion(registry: ModelRegistry) -> None:
    assert await registry.champion() is None
    with pytest.raises(FailedPrecondition, match="no model serves"):
        await registry.rollback(NOW)


async def test_unknown_models_are_not_found(registry: ModelRegistry) -> None:
    for asked in (registry.get("m9"), registry.fetch("m9"), registry.promote("m9", NOW), registry.refuse("m9", "why")):
        with pytest.raises(NotFound, match="no model m9"):
            await asked


async def test_promoting_retires_the_champion_before(mongo: Mongo, registry: ModelRegistry) -> None:
    await registry.promote("m1", later(10), reason="first")
    record = await registry.promote("m2", later(20), reason="better")
    assert (record.status, record.status_reason, record.promote_time, record.previous) == ("champion", "better", later(20), "m1")
    old = await registry.get("m1")
    assert (old.status, old.promote_time) == ("retired", later(10))
    assert "m2" in old.status_reason
    assert await champions(mongo) == ["m2"]


async def test_promoting_the_champion_again_changes_nothing(registry: ModelRegistry) -> None:
    await registry.promote("m1", later(10))
    first = await registry.promote("m2", later(20))
    assert await registry.promote("m2", later(30)) == first


async def test_a_promotion_that_means_another_champion_is_aborted(mongo: Mongo, registry: ModelRegistry) -> None:
    await registry.promote("m1", later(10), replacing=None)
    with pytest.raises(Aborted, match="the champion is m1 by now, not nobody"):
        await registry.promote("m2", later(20), replacing=None)
    with pytest.raises(Aborted):
        await registry.promote("m2", later(20), replacing="m3")
    assert await champions(mongo) == ["m1"]
    await registry.promote("m2", later(20), replacing="m1")
    assert await champions(mongo) == ["m2"]


async def test_rollbacks_go_back_one_by_one(mongo: Mongo, registry: ModelRegistry) -> None:
    for number, version in enumerate(("m1", "m2", "m3")):
        await registry.promote(version, later(10 + number))
    with pytest.raises(Aborted, match="m3 by now, not m2"):
        await registry.rollback(later(20), expected="m2")
    record = await registry.rollback(later(21), expected="m3")
    assert (record.model_version, record.promote_time, record.status_reason) == ("m2", later(21), "rolled back from m3")
    assert (await registry.rollback(later(22))).model_version == "m1"
    with pytest.raises(FailedPrecondition, match="no model served before m1"):
        await registry.rollback(later(23))
    assert await champions(mongo) == ["m1"]


async def test_a_rollback_passes_over_what_was_refused_since(registry: ModelRegistry) -> None:
    for number, version in enumerate(("m1", "m2", "m3")):
        await registry.promote(version, later(10 + number))
    await registry.refuse("m2", "crashed a ranker")
    assert (await registry.rollback(later(20))).model_version == "m1"


async def test_a_refused_model_cannot_be_promoted(registry: ModelRegistry) -> None:
    record = await registry.refuse("m1", "worse on mobile")
    assert (record.status, record.status_reason) == ("refused", "worse on mobile")
    with pytest.raises(FailedPrecondition, match="worse on mobile"):
        await registry.promote("m1", NOW)


async def test_the_champion_cannot_be_refused(mongo: Mongo, registry: ModelRegistry) -> None:
    await registry.promote("m1", NOW)
    with pytest.raises(FailedPrecondition, match="promote another or roll back first"):
        await registry.refuse("m1", "no more")
    assert await champions(mongo) == ["m1"]


async def test_promotions_that_meet_leave_one_champion(mongo_both: Mongo, template: Bundle) -> None:
    registry = ModelRegistry(mongo_both)
    versions = [f"m{number}" for number in range(6)]
    for version in versions:
        await registry.publish(named(template, version), NOW)
    for round_ in range(3):
        results = await asyncio.gather(*(registry.promote(version, later(round_)) for version in versions), return_exceptions=True)
        assert all(not isinstance(result, BaseException) or isinstance(result, Aborted) for result in results), results
        assert len(await champions(mongo_both)) == 1


async def test_there_is_never_a_moment_without_a_champion(mongo: Mongo, registry: ModelRegistry) -> None:
    await registry.promote("m1", NOW)
    seen: list[list[str]] = []
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            seen.append(await champions(mongo))

    watcher = asyncio.create_task(watch())
    for number in range(10):
        await registry.promote(("m2", "m3", "m1")[number % 3], later(number))
    done.set()
    await watcher
    assert seen
    assert {len(one) for one in seen} == {1}


async def test_the_same_bundle_twice_is_one_model_and_another_one_is_refused(
    mongo: Mongo, registry: ModelRegistry, template: Bundle
) -> None:
    first = await registry.get("m1")
    assert await registry.publish(named(template, "m1"), later(100)) == first
    other = Bundle.make(replace(template.passport, model_version="m1", schema_hash="other"), template.forest, template.canned.matrix)
    with pytest.raises(AlreadyExists, match="another model m1"):
        await registry.publish(other, later(100))
    # Neither attempt left its files behind.
    assert await mongo.collection("blobs.files").count({}, limit=10) == 3


async def test_files_that_changed_or_went_are_noticed(mongo: Mongo, registry: ModelRegistry, template: Bundle) -> None:
    document = await mongo.collection("models").find_one({"_id": "m1"})
    assert document is not None
    await mongo.blobs.delete(document["bundle"])
    with pytest.raises(BadBundle, match="not there any more"):
        await registry.fetch("m1")
    await mongo.blobs.put(document["bundle"], named(template, "m2").pack())
    with pytest.raises(BadBundle, match="not those that were published"):
        await registry.fetch("m1")
    await mongo.blobs.delete(document["bundle"])
    await mongo.blobs.put(document["bundle"], template.pack()[:-30])
    with pytest.raises(BadBundle, match="cannot be unpacked"):
        await registry.fetch("m1")


async def test_pages_of_models_newest_first(mongo: Mongo, registry: ModelRegistry, template: Bundle) -> None:
    # Two of the same moment must not get lost between pages.
    await registry.publish(named(template, "m4"), later(1))
    seen: list[str] = []
    before: tuple[datetime, str] | None = None
    while page := await registry.list(1, before):
        seen.extend(record.model_version for record in page)
        before = (page[-1].create_time, page[-1].model_version)
    assert seen == ["m3", "m4", "m2", "m1"]
    assert [record.model_version for record in await registry.list()] == seen
