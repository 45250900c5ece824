"""A shop to rank in: a running stack with a catalogue, a past, and a model of 500 trees."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.models.bundle import Bundle
from ranker.models.passport import Passport
from ranker.models.registry import ModelRegistry
from rankloop import Client
from rankloop.v1.catalog_pb2 import Item, UpsertItemsRequest
from rankloop.v1.ranking_pb2 import Candidate, FeatureMatrix, RankRequest
from rankloop.v1.tracking_pb2 import Interaction, RecordSlatesRequest, Slate, SlateItem, TrackInteractionsRequest
from runtime.mongo import Mongo
from runtime.settings import MongoSettings
from runtime.timestamps import to_timestamp
from scripts.simulation.stack import Stack

Floats = NDArray[np.float64]

ITEMS, USERS, TYPES, TAGS = 2_000, 200, 12, 40
INTERACTIONS_PER_USER = 40
PAST_SLATES = 1_000

FEATURES, SENT_FEATURES = 60, 8
TREES, LEAVES = 500, 31
TOP_K = 20
LEARNED_SLATES = 200
CANDIDATES = 100

SETTLE_SECONDS = 3.0
"""Rankers follow tallies and models within a second."""


@dataclass(frozen=True, slots=True)
class Shop:
    """A stack, and the model that ranks in it."""

    stack: Stack
    mongo: Mongo
    client: Client
    feature_names: tuple[str, ...]
    """The model's columns; the first SENT_FEATURES are sent by the caller."""
    boosters: tuple[lightgbm.Booster, ...]
    """The champion's forest, and that of a second model that can be promoted."""
    versions: tuple[str, ...]

    @property
    def registry(self) -> ModelRegistry:
        """Of the models."""
        return ModelRegistry(self.mongo)

    async def matrix(self, request: RankRequest) -> Floats:
        """(n, FEATURES) float64: what the model sees of a request's candidates, in their order, as the ledger has it."""
        whole = RankRequest()
        whole.CopyFrom(request)
        whole.top_k = 0
        answer = await self.client.ranking.Rank(whole)
        names, rows = await _logged(self.mongo, answer.ranking_id)
        place = {item.item_id: row for row, item in enumerate(answer.items)}
        order = [place[candidate.item_id] for candidate in request.candidates]
        return np.ascontiguousarray(rows[order][:, [names.index(name) for name in self.feature_names]])


@asynccontextmanager
async def open_shop(directory: Path, arguments: list[str] | None = None) -> AsyncIterator[Shop]:
    """Starts a stack below `directory`, fills it, trains on what it logged, and waits until the model serves."""
    # A moment of the machine is not to end a run of minutes: what is measured are rankings by the model, however long they take.
    os.environ["RANKLOOP_SERVER_RANK_TIMEOUT_SECONDS"] = "20"
    scratch = directory / "scratch"
    scratch.mkdir()
    stack = await Stack.start(directory / "data", scratch, ["--port", "0", *(arguments or [])])
    try:
        mongo = await Mongo.open(MongoSettings(uri=stack.ready["mongo_uri"]))
        try:
            async with Client(stack.ready["server"]) as client:
                await _fill(client, mongo)
                names, boosters, versions = await _train(client, mongo)
                await ModelRegistry(mongo).promote(versions[0], datetime.now(UTC))
                await _serving(client, versions[0])
                yield Shop(stack, mongo, client, names, boosters, versions)
        finally:
            await mongo.close()
    finally:
        await stack.stop()


def request_of(number: int, candidates: int, matrix: tuple[tuple[str, ...], Floats] | None = None) -> RankRequest:
    """The request of that number: eight features in each candidate's map, or all of them in a matrix."""
    rng = np.random.default_rng(number)
    items = rng.choice(ITEMS, candidates, replace=False).tolist()
    request = RankRequest(user_id=f"user-{number % USERS}", surface="home", top_k=TOP_K, context={"device": "mobile"})
    values = np.round(rng.normal(size=(candidates, SENT_FEATURES)), 3).tolist()
    for item, row in zip(items, values, strict=True):
        features = None if matrix else dict(zip(_sent_names(), row, strict=True))
        request.candidates.append(Candidate(item_id=f"item-{item}", features=features))
    if matrix:
        names, block = matrix
        request.feature_matrix.CopyFrom(FeatureMatrix(names=names, values=block.astype("<f8").tobytes()))
    return request


def _sent_names() -> tuple[str, ...]:
    return ("prior_score", "roi_potential", "cost", "price", "salary_increase", "duration", "match_score", "quality")


async def _fill(client: Client, mongo: Mongo) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for first in range(0, ITEMS, 500):
        await client.catalog.UpsertItems(UpsertItemsRequest(items=[_item(number, now) for number in range(first, first + 500)]))
    for user in range(USERS):
        await client.tracking.TrackInteractions(
            TrackInteractionsRequest(interactions=[_interaction(user, place, now) for place in range(INTERACTIONS_PER_USER)])
        )
    for first in range(0, PAST_SLATES, 100):
        await client.tracking.RecordSlates(RecordSlatesRequest(slates=[_slate(number, now) for number in range(first, first + 100)]))
    entries = [mongo.collection(name) for name in ("interactions", "slates")]
    async with asyncio.timeout(120):
        while True:
            if not any([await one.find_one({"pending": {"$exists": True}}, {"_id": 1}) for one in entries]):
                break
            await asyncio.sleep(0.2)
    await asyncio.sleep(SETTLE_SECONDS)


def _item(number: int, now: datetime) -> Item:
    return Item(
        item_id=f"item-{number}",
        item_type=f"type-{number % TYPES}",
        tags=[f"tag-{(number * step) % TAGS}" for step in (1, 3, 7)],
        attributes={"tier": ("free", "plus", "pro")[number % 3]},
        create_time=to_timestamp(now - timedelta(days=number % 400, hours=1)),
        available=True,
    )


def _interaction(user: int, place: int, now: datetime) -> Interaction:
    item = (user * 31 + place * 97) % ITEMS
    return Interaction(
        event_id=f"past-{user}-{place}",
        user_id=f"user-{user}",
        item_id=f"item-{item}",
        item_type=f"type-{item % TYPES}",
        type=("view", "click", "save", "dismiss")[place % 4],
        occur_time=to_timestamp(now - timedelta(hours=place * 17 + 1)),
    )


def _slate(number: int, now: datetime) -> Slate:
    items = [(number * 13 + place * 89) % ITEMS for place in range(10)]
    return Slate(
        ranking_id=f"past-{number}",
        user_id=f"user-{number % USERS}",
        surface="home",
        algorithm="editorial",
        show_time=to_timestamp(now - timedelta(minutes=number * 40 + 10)),
        items=[SlateItem(item_id=f"item-{item}", item_type=f"type-{item % TYPES}", position=place) for place, item in enumerate(items, 1)],
    )


async def _train(client: Client, mongo: Mongo) -> tuple[tuple[str, ...], tuple[lightgbm.Booster, ...], tuple[str, ...]]:
    """Two forests of the size that is spoken of everywhere, trained on feature values that this stack logged."""
    logged: list[Floats] = []
    columns: tuple[str, ...] = ()
    for number in range(LEARNED_SLATES):
        request = request_of(10_000 + number, CANDIDATES)
        request.top_k = 0
        columns, rows = await _logged(mongo, (await client.ranking.Rank(request)).ranking_id)
        logged.append(rows)
    everything = np.concatenate(logged)
    names = (*_sent_names(), *_telling(columns, everything)[: FEATURES - SENT_FEATURES])
    matrix = everything[:, [columns.index(name) for name in names]]
    rng = np.random.default_rng(0)
    # Every column matters somewhat, so that trees look at all of them.
    ranked = np.argsort(np.argsort(np.nan_to_num(matrix), axis=0), axis=0) / len(matrix)
    labels = ranked @ rng.normal(size=len(names)) + rng.normal(size=len(matrix))
    grades = np.digitize(labels, np.quantile(labels, [0.5, 0.75, 0.9, 0.97]))
    boosters, versions = [], []
    for seed in (1, 2):
        data = lightgbm.Dataset(matrix, grades, group=[CANDIDATES] * LEARNED_SLATES)
        parameters = {"objective": "lambdarank", "num_leaves": LEAVES, "feature_fraction": 0.7, "min_data_in_leaf": 20}
        booster = await asyncio.to_thread(lightgbm.train, {**parameters, "seed": seed, "verbosity": -1, "num_threads": 1}, data, TREES)
        schema = await mongo.collection("feature_schemas").find_one({}) or {"_id": ""}
        passport = Passport(model_version=f"bench-{seed}", source="train", feature_names=names, schema_hash=schema["_id"], tree_count=TREES)
        bundle = Bundle.make(passport, booster.model_to_string().encode(), matrix[:64])
        await ModelRegistry(mongo).publish(bundle, datetime.now(UTC))
        boosters.append(bundle.verify())
        versions.append(passport.model_version)
    return names, tuple(boosters), tuple(versions)


def _telling(columns: tuple[str, ...], rows: Floats) -> list[str]:
    """Computed features: those that differ between rows first, and the rest after them."""
    own = [name for name in columns if name not in _sent_names()]
    varied = {name for name in own if len(np.unique(rows[:, columns.index(name)])) > 1}
    return sorted(own, key=lambda name: name not in varied)


async def _logged(mongo: Mongo, ranking_id: str) -> tuple[tuple[str, ...], Floats]:
    """The names and values that the ledger has of a slate: (n_items, n_features) float64."""
    slates, schemas = mongo.collection("slates"), mongo.collection("feature_schemas")
    async with asyncio.timeout(30):
        while (slate := await slates.find_one({"_id": ranking_id}, {"features": 1, "schema_hash": 1})) is None:
            await asyncio.sleep(0.005)
    schema: Any = await schemas.find_one({"_id": slate["schema_hash"]})
    names = tuple(schema["names"])
    return names, np.frombuffer(slate["features"], dtype="<f8").reshape(-1, len(names))


async def _serving(client: Client, version: str) -> None:
    until = time.monotonic() + 60
    while (answer := await client.ranking.Rank(request_of(0, 10))).model_version != version:
        if time.monotonic() > until:
            raise RuntimeError(f"the model does not serve: {answer.fallback_reason or answer.model_version}")
        await asyncio.sleep(0.05)
