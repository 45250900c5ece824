"""Ranked slates are written down after the answer, several at once, and none is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from collector.process import open_ledger
from collector.settings import CollectorSettings
from rankloop.v1.ranking_pb2 import Candidate, RankedItem, RankRequest, RankResponse
from runtime.mongo import Document, Mongo
from server.slates import DROPPED, SlateRecorder, slate_of

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
LONG_SECONDS = 30.0


def slate(number: int) -> Document:
    request = RankRequest(user_id="u", candidates=[Candidate(item_id="i")])
    response = RankResponse(ranking_id=f"r{number}", items=[RankedItem(item_id="i", position=1, propensity=1.0)], algorithm="prior_score")
    return slate_of(request, response, None, NOW)


def unmakeable() -> Document:
    raise KeyError("no such field")


@asynccontextmanager
async def recording(mongo: Mongo, *, linger_seconds: float) -> AsyncIterator[SlateRecorder]:
    recorder = SlateRecorder(open_ledger(mongo, CollectorSettings()), capacity=1000, linger_seconds=linger_seconds)
    running = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_slates_that_come_while_one_waits_are_written_with_it(mongo: Mongo) -> None:
    async with recording(mongo, linger_seconds=0.01) as recorder:
        for number in range(450):
            recorder.record_soon(lambda number=number: slate(number))  # type: ignore[misc]
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert await recorder.wait_idle(timeout_seconds=LONG_SECONDS)
    found = await mongo.collection("slates").find({}, {"_id": 1}, limit=1000)
    assert {one["_id"] for one in found} == {f"r{number}" for number in range(450)}


async def test_one_that_cannot_be_made_costs_no_other_and_is_counted(mongo: Mongo) -> None:
    before = DROPPED._value.get()
    async with recording(mongo, linger_seconds=0.0) as recorder:
        recorder.record_soon(unmakeable)
        assert await recorder.wait_idle(timeout_seconds=LONG_SECONDS)
        recorder.record_soon(unmakeable)
        recorder.record_soon(lambda: slate(1))
        assert await recorder.wait_idle(timeout_seconds=LONG_SECONDS)
    assert DROPPED._value.get() == before + 2
    assert [one["_id"] for one in await mongo.collection("slates").find({}, {"_id": 1}, limit=10)] == ["r1"]
