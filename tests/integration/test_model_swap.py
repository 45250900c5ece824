"""Which model serves at a ranker: swapped when another is tried and warm, and never for one that is not sound."""

from __future__ import annotations

import asyncio
import datetime
import io
import re
from collections.abc import Callable

import numpy as np
import pytest

from ranker import metrics
from ranker.models.bundle import CANNED, FOREST, MANIFEST, PASSPORT, Bundle
from ranker.models.loader import ModelLoader
from ranker.models.refusal import RankerNotes
from ranker.models.registry import ModelRegistry
from runtime.errors import NotFound
from runtime.mongo import Mongo
from tests.integration.bundles import SCHEMA, bundle, with_files

NOON = datetime.datetime(2026, 3, 5, 12, tzinfo=datetime.UTC)
RANKER = "127.0.0.1:50052"
AMPLE_SECONDS = 60.0


def loader(mongo: Mongo, *, pinned_limit: int = 2, budget_seconds: float = AMPLE_SECONDS, ranker: str = RANKER) -> ModelLoader:
    registry = ModelRegistry(mongo)
    notes = RankerNotes(registry, lambda: ranker, now=lambda: NOON)
    return ModelLoader(registry, notes, SCHEMA, poll_seconds=0.01, pinned_limit=pinned_limit, budget_seconds=budget_seconds)


def serving(models: ModelLoader) -> str:
    return models.champion.version if models.champion else ""


def refused_count(reason: str) -> float:
    return float(metrics.REFUSALS.labels(reason)._value.get())


async def test_the_champion_is_loaded_and_swapped_and_the_previous_stays(mongo: Mongo) -> None:
    registry, models = ModelRegistry(mongo), loader(mongo)
    await models.poll()
    assert serving(models) == ""
    await registry.publish(bundle("one"), NOON)
    await registry.publish(bundle("two", sign=-1.0), NOON)
    await models.poll()
    assert serving(models) == ""
    await registry.promote("one", NOON)
    await models.poll()
    first = models.champion
    assert serving(models) == "one"
    await registry.promote("two", NOON)
    await models.poll()
    assert models.resident_versions == ("two", "one")
    assert (await registry.get("two")).serve_time == NOON
    # Back to what is in memory: its files are not needed for that.
    document = await mongo.collection("models").find_one({"_id": "one"})
    assert document is not None
    await mongo.blobs.delete(document["bundle"])
    await registry.rollback(NOON)
    await models.poll()
    assert models.champion is first
    matrix = np.tile(SCHEMA.defaults, (2, 1))
    matrix[:, SCHEMA.index["cost"]] = [1.0, -1.0]
    scores = models.champion.score(matrix)
    assert scores[0] > scores[1]


async def stored_instead(mongo: Mongo, version: str, packed: bytes | None) -> None:
    """Puts other bytes, or none, in the place of a published bundle."""
    document = await mongo.collection("models").find_one({"_id": version})
    assert document is not None
    await mongo.blobs.delete(document["bundle"])
    if packed is not None:
        await mongo.blobs.put(document["bundle"], packed)


def changed_text(sound: Bundle, pattern: bytes, instead: bytes) -> Bundle:
    """The bundle with other words in its forest, and hashes that agree."""
    text, count = re.subn(pattern, instead, sound.forest, count=1)
    assert count == 1
    return with_files(sound, {FOREST: text})


def other_scores(sound: Bundle) -> Bundle:
    """A bundle whose recorded scores are not those of its forest, by one bit of one of them."""
    scores = sound.canned.scores.copy()
    scores[-1] = np.nextafter(scores[-1], np.inf)
    content = io.BytesIO()
    np.savez(content, matrix=sound.canned.matrix, scores=scores)
    return with_files(sound, {CANNED: content.getvalue()})


BROKEN: dict[str, tuple[str, str, Callable[[Bundle], Bundle]]] = {
    "no forest": ("BAD_BUNDLE", "does not begin with a line", lambda sound: with_files(sound, {FOREST: b"not what it was"})),
    "cut short": ("BAD_BUNDLE", "cut short", lambda sound: with_files(sound, {FOREST: sound.forest[: len(sound.forest) // 2]})),
    "no canned slate": ("BAD_BUNDLE", "canned.npz cannot be read", lambda sound: with_files(sound, {CANNED: b"PK"})),
    "no passport": ("BAD_BUNDLE", "passport", lambda sound: with_files(sound, {PASSPORT: b'{"format": 1}'})),
    "no manifest": ("BAD_BUNDLE", "manifest.json cannot be read", lambda sound: Bundle({**sound.files, MANIFEST: b"[]"})),
    "another forest": (
        "BAD_BUNDLE",
        "not what the manifest says",
        lambda sound: Bundle({**sound.files, FOREST: bundle("x").forest}),
    ),
    # LightGBM itself would walk this one for ever.
    "a loop": ("BAD_BUNDLE", "two parents|has", lambda sound: changed_text(sound, rb"left_child=\S+", b"left_child=0")),
    "other scores": ("CANNED_SCORES_DIFFER", "1 of 3 canned scores differ", other_scores),
    "a leaf that is no number": (
        "NOT_FINITE",
        "leaf_value has 'nan', which is no finite number",
        lambda sound: changed_text(sound, rb"leaf_value=\S+", b"leaf_value=nan"),
    ),
    "a sum beyond all numbers": (
        "NOT_FINITE",
        "need not be finite",
        lambda sound: with_files(sound, {FOREST: re.sub(rb"leaf_value=\S+", b"leaf_value=1e308", sound.forest)}),
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_champion_is_refused_left_and_marked_and_the_old_one_goes_on(mongo: Mongo, kind: str) -> None:
    reason, words, broken = BROKEN[kind]
    registry, models = ModelRegistry(mongo), loader(mongo)
    await registry.publish(bundle("good"), NOON)
    await registry.promote("good", NOON)
    await models.poll()
    good, before = models.champion, refused_count(reason)
    spoilt = broken(bundle("bad", sign=-1.0))
    # Published as the trainer publishes, with the hashes of its files as they are.
    await registry.publish(bundle("bad", sign=-1.0), NOON)
    await mongo.collection("models").update_one({"_id": "bad"}, {"$set": {"files": dict(spoilt.sha256)}})
    await stored_instead(mongo, "bad", spoilt.pack())
    await registry.promote("bad", NOON)
    for _ in range(3):
        await models.poll()
    assert models.champion is good
    assert await registry.champion() == "good"
    record = await registry.get("bad")
    assert record.status == "refused"
    assert re.search(words, record.status_reason), record.status_reason
    (refusal,) = record.refusals
    assert (refusal.ranker, refusal.reason, refusal.refuse_time) == (RANKER, reason, NOON)
    assert refusal.description == record.status_reason
    assert models.refusal == f"bad: {record.status_reason}"
    assert refused_count(reason) == before + 1, "once, and not tried again"
    assert record.serve_time is None


@pytest.mark.parametrize(
    ("packed", "words"),
    [(None, "not there any more"), (b"", "cannot be unpacked"), (bundle("bad").pack()[:-30], "cannot be unpacked")],
    ids=["gone", "empty", "cut short"],
)
async def test_files_that_are_lost_are_noticed_and_the_old_one_goes_on(mongo: Mongo, packed: bytes | None, words: str) -> None:
    registry, models = ModelRegistry(mongo), loader(mongo)
    await registry.publish(bundle("good", sign=-1.0), NOON)
    await registry.promote("good", NOON)
    await models.poll()
    await registry.publish(bundle("bad"), NOON)
    await stored_instead(mongo, "bad", packed)
    await registry.promote("bad", NOON)
    await models.poll()
    assert serving(models) == "good"
    record = await registry.get("bad")
    assert record.status == "refused"
    assert words in record.refusals[0].description


async def test_a_file_that_changed_since_it_was_published_is_noticed_by_its_hash(mongo: Mongo) -> None:
    registry, models = ModelRegistry(mongo), loader(mongo)
    await registry.publish(bundle("bad"), NOON)
    other = bundle("bad", sign=-1.0)
    other.verify()
    await stored_instead(mongo, "bad", other.pack())
    await registry.promote("bad", NOON)
    await models.poll()
    assert serving(models) == ""
    assert "not those that were published" in (await registry.get("bad")).refusals[0].description


async def test_a_model_of_features_unknown_here_is_refused_but_stays_champion_for_others(mongo: Mongo) -> None:
    registry, models = ModelRegistry(mongo), loader(mongo)
    await registry.publish(bundle("good"), NOON)
    await registry.promote("good", NOON)
    await models.poll()
    await registry.publish(bundle("ahead", names=("cost", "moon_phase")), NOON)
    await registry.promote("ahead", NOON)
    await models.poll()
    assert serving(models) == "good"
    record = await registry.get("ahead")
    assert record.status == "champion"
    assert record.status_reason.startswith(f"refused by ranker {RANKER}: ")
    assert [(one.ranker, one.reason) for one in record.refusals] == [(RANKER, "UNKNOWN_FEATURES")]
    assert "moon_phase" in record.refusals[0].description
    # One that starts now has nothing to go on with, and takes the champion before.
    started = loader(mongo, ranker="127.0.0.1:50062")
    await started.poll()
    assert serving(started) == "good"
    assert [one.ranker for one in (await registry.get("ahead")).refusals] == [RANKER, "127.0.0.1:50062"]


async def test_a_model_too_slow_for_its_budget_is_refused_and_left(mongo: Mongo) -> None:
    registry, models = ModelRegistry(mongo), loader(mongo)
    await registry.publish(bundle("good"), NOON)
    await registry.promote("good", NOON)
    await models.poll()
    await registry.publish(bundle("slow", sign=-1.0), NOON)
    await registry.promote("slow", NOON)
    hasty = loader(mongo, budget_seconds=1e-9)
    hasty.champion = models.champion
    before = refused_count("TOO_SLOW")
    await hasty.poll()
    assert serving(hasty) == "good"
    assert refused_count("TOO_SLOW") == before + 1
    record = await registry.get("slow")
    assert (record.status, await registry.champion()) == ("refused", "good")
    assert "ranker.model_budget_seconds allows 1e-06 ms" in record.status_reason


async def test_a_model_too_slow_for_one_ranker_serves_at_those_that_keep_up(mongo: Mongo) -> None:
    registry, models = ModelRegistry(mongo), loader(mongo)
    await registry.publish(bundle("slow"), NOON)
    await registry.promote("slow", NOON)
    await models.poll()
    assert serving(models) == "slow"
    hasty = loader(mongo, budget_seconds=1e-9, ranker="slow machine:1")
    await hasty.poll()
    assert serving(hasty) == ""
    record = await registry.get("slow")
    assert record.status == "champion"
    assert [(one.ranker, one.reason) for one in record.refusals] == [("slow machine:1", "TOO_SLOW")]
    # Given time it serves there, too, and the registry hears of it.
    patient = loader(mongo, ranker="slow machine:1")
    await patient.poll()
    assert serving(patient) == "slow"
    assert (await registry.get("slow")).refusals == ()


async def test_the_first_champion_is_bad_and_nothing_serves(mongo: Mongo) -> None:
    registry, models = ModelRegistry(mongo), loader(mongo)
    await registry.publish(bundle("bad"), NOON)
    await stored_instead(mongo, "bad", with_files(bundle("bad"), {FOREST: b"tree\n"}).pack())
    await registry.promote("bad", NOON)
    await models.poll()
    assert serving(models) == ""
    assert "refused by ranker" in (await registry.get("bad")).status_reason


async def test_a_champion_left_while_it_was_loaded_does_not_serve_for_a_moment(mongo: Mongo) -> None:
    class Hesitant(ModelRegistry):
        """A registry in which somebody rolls back just when a bundle was fetched."""

        async def fetch(self, model_version: str) -> Bundle:
            fetched = await super().fetch(model_version)
            if model_version == "two":
                await self.rollback(NOON)
            return fetched

    registry = Hesitant(mongo)
    notes = RankerNotes(registry, lambda: RANKER)
    models = ModelLoader(registry, notes, SCHEMA, poll_seconds=0.01, pinned_limit=2, budget_seconds=AMPLE_SECONDS)
    for version in ("one", "two"):
        await registry.publish(bundle(version), NOON)
    await registry.promote("one", NOON)
    await models.poll()
    await registry.promote("two", NOON)
    await models.poll()
    assert serving(models) == "one"
    assert (await registry.get("two")).serve_time is None


async def test_models_are_pinned_on_demand_and_the_longest_unused_goes(mongo: Mongo) -> None:
    registry, models = ModelRegistry(mongo), loader(mongo)
    for version in ("a", "b", "c"):
        await registry.publish(bundle(version), NOON)
    assert (await models.pinned("a")).version == "a"
    assert (await models.pinned("b")) is (await models.pinned("b"))
    await models.pinned("a")
    await models.pinned("c")
    assert models.resident_versions == ("a", "c")
    with pytest.raises(NotFound):
        await models.pinned("nobody")
    await registry.refuse("b", "not good enough")
    with pytest.raises(NotFound, match="not good enough"):
        await models.pinned("b")


async def test_many_ask_for_a_model_at_once_and_it_is_loaded_once(mongo: Mongo) -> None:
    await ModelRegistry(mongo).publish(bundle("a"), NOON)
    models = loader(mongo)
    scorers = await asyncio.gather(*(models.pinned("a") for _ in range(8)))
    assert len({id(scorer) for scorer in scorers}) == 1
