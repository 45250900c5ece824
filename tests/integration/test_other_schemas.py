"""Bundles of other schemas than the deployment's: smaller ones, ones with other request features, and ones of a later release."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from ranker.features.schema import default_schema
from ranker.models.loader import ModelLoader
from ranker.models.refusal import RankerNotes
from ranker.models.registry import ModelRegistry
from ranker.process import register_schema
from runtime.errors import NotFound
from runtime.mongo import Mongo
from tests.integration.bundles import bundle

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW_DECLARED = default_schema(["fit"])
THEN_DECLARED = default_schema(["margin", "distance_km"])


async def loader(mongo: Mongo) -> tuple[ModelRegistry, ModelLoader]:
    registry = ModelRegistry(mongo)
    notes = RankerNotes(registry, lambda: "here")
    return registry, ModelLoader(registry, notes, NOW_DECLARED, poll_seconds=1, pinned_limit=4, budget_seconds=60)


async def test_a_bundle_of_a_smaller_schema_serves(mongo: Mongo) -> None:
    registry, models = await loader(mongo)
    await registry.publish(bundle("small", names=("cost", "hour"), schema=default_schema()), NOON)
    await registry.promote("small", NOON)
    await models.poll()
    assert models.champion is not None
    assert models.champion.schema is NOW_DECLARED


async def test_a_bundle_of_request_features_that_are_no_longer_declared_serves(mongo: Mongo) -> None:
    await register_schema(mongo, THEN_DECLARED)
    registry, models = await loader(mongo)
    await registry.publish(bundle("then", names=("margin", "cost"), schema=THEN_DECLARED), NOON)
    scorer = await models.pinned("then")
    assert [name for name in scorer.schema.names if name not in NOW_DECLARED.index] == ["margin"]
    # It goes by its first column, and finds it.
    rows = np.zeros((2, len(scorer.schema)))
    rows[:, scorer.schema.index["margin"]] = [-1.0, 1.0]
    low, high = scorer.score(rows)
    assert low < high


async def test_a_bundle_of_features_that_nobody_knows_is_refused(mongo: Mongo) -> None:
    await register_schema(mongo, THEN_DECLARED)
    registry, models = await loader(mongo)
    await registry.publish(bundle("unknown", names=("moon_phase", "margin"), schema=THEN_DECLARED), NOON)
    await registry.publish(bundle("unregistered", names=("margin", "cost"), schema=default_schema(["margin"])), NOON)
    for version, missing in (("unknown", "moon_phase"), ("unregistered", "margin")):
        with pytest.raises(NotFound, match=missing):
            await models.pinned(version)


async def test_a_schema_known_from_before_learns_which_of_its_features_callers_bring(mongo: Mongo) -> None:
    await mongo.collection("feature_schemas").insert_one({"_id": THEN_DECLARED.hash, "names": list(THEN_DECLARED.names)})
    assert await ModelRegistry(mongo).request_features(THEN_DECLARED.hash) == frozenset()
    for _ in range(2):
        await register_schema(mongo, THEN_DECLARED)
    assert {"margin", "distance_km", "prior_score"} <= await ModelRegistry(mongo).request_features(THEN_DECLARED.hash)
