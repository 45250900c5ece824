"""One real mongod per test run, one fresh database per test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from runtime.embedded import EmbeddedMongo
from runtime.mongo import Mongo
from runtime.schema import migrate
from runtime.settings import MongoSettings

# How long an example takes says something of the machine; speed belongs to benchmarks/.
hypothesis.settings.register_profile("rankloop", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("rankloop")


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The test run's own mongod; it ends with the run, whatever way the run ends."""
    directory: Path = tmp_path_factory.mktemp("mongod")
    embedded = asyncio.run(EmbeddedMongo.start(directory))
    yield embedded.uri
    asyncio.run(embedded.stop())


@pytest.fixture
def mongo_settings(mongo_uri: str) -> MongoSettings:
    """A fresh database."""
    return MongoSettings(uri=mongo_uri, database=f"test_{uuid.uuid4().hex}")


@pytest.fixture
async def mongo(mongo_settings: MongoSettings) -> AsyncIterator[Mongo]:
    """A connection to a fresh database, at the newest schema."""
    async for opened in _opened(mongo_settings):
        yield opened


@pytest.fixture(params=["motor", "pymongo"])
async def mongo_both(mongo_settings: MongoSettings, request: pytest.FixtureRequest) -> AsyncIterator[Mongo]:
    """The same, once on each driver."""
    async for opened in _opened(mongo_settings.model_copy(update={"driver": request.param})):
        yield opened


async def _opened(settings: MongoSettings) -> AsyncIterator[Mongo]:
    opened = await Mongo.open(settings)
    try:
        await migrate(opened)
        yield opened
        await opened.drop_database()
    finally:
        await opened.close()
