"""Processes of a running stack stopped and killed under traffic: nothing that was acknowledged is lost, and all comes back by itself."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rankloop.v1 import stats_pb2
from rankloop.v1.ranking_pb2 import Candidate, RankRequest, RankResponse
from rankloop.v1.tracking_pb2 import Interaction, RecordSlatesRequest, Slate, SlateItem, TrackInteractionsRequest
from runtime.mongo import Mongo
from runtime.settings import MongoSettings
from tests.e2e.stack import CALL_SECONDS, PATIENCE_SECONDS, Client, Stack, details_of, eventually, failure_of, running, state_of

DEADLINE_SECONDS = 2.0
AWAY = {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
LEAVING = {*AWAY, grpc.StatusCode.CANCELLED}
"""gRPC's server answers CANCELLED to calls that reach it between its last look and its goodbye; it has not begun them."""
SHOWN = datetime(2025, 6, 1, 10, 20, tzinfo=UTC)
"""When everything here happened: a day that no other test speaks of."""


@dataclass(slots=True)
class Traffic:
    """What several callers sent, and what they were told: clicks on one impression of one slate, of which nobody else speaks."""

    item_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    acknowledged: set[str] = field(default_factory=set)
    unanswered: list[list[Interaction]] = field(default_factory=list)
    codes: Counter[grpc.StatusCode] = field(default_factory=Counter)
    slowest_seconds: float = 0.0
    deadline_seconds: float = DEADLINE_SECONDS

    async def send(self, client: Client, entries: list[Interaction]) -> None:
        """One call."""
        began = asyncio.get_running_loop().time()
        try:
            answer = await client.tracking.TrackInteractions(TrackInteractionsRequest(interactions=entries), timeout=self.deadline_seconds)
        except grpc.aio.AioRpcError as error:
            self.codes[error.code()] += 1
            self.unanswered.append(entries)
        else:
            self.codes[grpc.StatusCode.OK] += 1
            assert answer.accepted_count + answer.duplicate_count == len(entries)
            self.acknowledged.update(entry.event_id for entry in entries)
        self.slowest_seconds = max(self.slowest_seconds, asyncio.get_running_loop().time() - began)

    async def send_until(self, client: Client, stop: asyncio.Event) -> None:
        """Call after call."""
        while not stop.is_set():
            failed = len(self.unanswered)
            await self.send(client, self.batch())
            if len(self.unanswered) > failed:  # like any caller with sense, it does not press on a server that is away
                await asyncio.sleep(0.05)

    def batch(self, count: int = 5) -> list[Interaction]:
        """The next call's."""
        entries = []
        for _ in range(count):
            entry = Interaction(event_id=uuid.uuid4().hex, user_id="u", item_id=self.item_id, type="click", ranking_id=f"of {self.item_id}")
            entry.occur_time.FromDatetime(SHOWN + timedelta(minutes=1))
            entries.append(entry)
        return entries


@asynccontextmanager
async def traffic(client: Client, callers: int = 6, *, deadline_seconds: float = DEADLINE_SECONDS) -> AsyncIterator[Traffic]:
    """Callers at work for the length of the block."""
    seen, stop = Traffic(deadline_seconds=deadline_seconds), asyncio.Event()
    await record_the_slate(client, seen.item_id)
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(seen.send_until(client, stop))
        try:
            yield seen
        finally:
            stop.set()


async def stored_ids(stack: Stack, item_id: str) -> set[str]:
    """The ids of all interactions with the item in the ledger, read past every process of ours."""
    mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
    try:
        found = mongo.collection("interactions").batches({"item_id": item_id}, {"_id": 1})
        return {entry["_id"] async for entries in found for entry in entries}
    finally:
        await mongo.close()


async def record_the_slate(client: Client, item_id: str) -> None:
    shown = Slate(ranking_id=f"of {item_id}", user_id="u", items=[SlateItem(item_id=item_id, item_type="t"), SlateItem(item_id="j")])
    shown.show_time.FromDatetime(SHOWN)
    await client.tracking.RecordSlates(RecordSlatesRequest(slates=[shown]), timeout=CALL_SECONDS)


async def tallies_are_exact(client: Client, stack: Stack, item_id: str) -> None:
    """Once all is folded, the figures are those of the ledger."""
    await client.folded()
    stored = await stored_ids(stack, item_id)
    asked = stats_pb2.GetItemStatsRequest(item_id=item_id)
    asked.start_time.FromDatetime(SHOWN - timedelta(hours=1))
    asked.end_time.FromDatetime(SHOWN + timedelta(hours=1))
    stats = (await client.stats.GetItemStats(asked, timeout=CALL_SECONDS)).stats
    assert stats.interaction_count == stats.counts["click"] == len(stored)
    assert (stats.impression_count, stats.clicked_impression_count) == (1, 1)


def progress(seen: Traffic, more: int) -> Any:
    """A condition: so many more calls were acknowledged."""
    goal = seen.codes[grpc.StatusCode.OK] + more

    async def acknowledged_more() -> bool:
        return seen.codes[grpc.StatusCode.OK] >= goal

    return acknowledged_more


def failures(seen: Traffic, more: int) -> Any:
    """A condition: so many more calls failed."""
    goal = len(seen.unanswered) + more

    async def failed_more() -> bool:
        return len(seen.unanswered) >= goal

    return failed_more


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for faults that it recovers from by itself: each test leaves it well, or fails."""
    with running(tmp_path_factory.mktemp("faults")) as stack:
        yield stack


async def replaced(stack: Stack, name: str, pid: int) -> None:
    """Waits until another process answers in the place of the one that ended."""

    async def is_another() -> bool:
        return stack.pid(name) != pid

    await eventually(is_another)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_database_that_goes_away_in_mid_traffic_loses_nothing_acknowledged(mended: Stack, number: signal.Signals) -> None:
    async with Client(mended.address) as client:
        async with traffic(client) as seen:
            await eventually(progress(seen, 20))
            pid = mended.send("mongod", number)
            if number is signal.SIGSTOP:
                try:
                    await eventually(failures(seen, 6))
                finally:
                    os.kill(pid, signal.SIGCONT)
            else:
                await replaced(mended, "mongod", pid)
            # By itself: no caller and nobody else does anything about it.
            await eventually(progress(seen, 20))
        assert set(seen.codes) <= AWAY, seen.codes
        stored = await stored_ids(mended, seen.item_id)
        assert seen.acknowledged <= stored
        # Whoever was not answered sends the same again, and nothing counts twice.
        for entries in seen.unanswered[:]:
            await seen.send(client, entries)
        assert await stored_ids(mended, seen.item_id) == seen.acknowledged
        await tallies_are_exact(client, mended, seen.item_id)


async def test_a_call_hears_that_the_database_is_away_before_its_deadline(mended: Stack) -> None:
    async with Client(mended.address) as client:
        await client.folded()
        user_id = uuid.uuid4().hex
        pid = mended.send("mongod", signal.SIGSTOP)
        try:
            clicks = TrackInteractionsRequest(interactions=Traffic().batch())
            error = await failure_of(client.tracking.TrackInteractions(clicks, timeout=DEADLINE_SECONDS))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert details_of(error)[0].reason == "TOO_SLOW"
            error = await failure_of(client.stats.GetOverview(stats_pb2.GetOverviewRequest(), timeout=DEADLINE_SECONDS))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            # Ranking needs no database, only remembers more with one.
            request = RankRequest(user_id=user_id, request_id="r", candidates=[Candidate(item_id="a"), Candidate(item_id="b")])
            ranked = await client.ranking.Rank(request, timeout=DEADLINE_SECONDS)
            assert len(ranked.items) == 2
            repeated = await client.ranking.Rank(request, timeout=DEADLINE_SECONDS)
            assert repeated == ranked
        finally:
            os.kill(pid, signal.SIGCONT)

        async def recorded() -> bool:
            answer = await client.stats.GetUserStats(stats_pb2.GetUserStatsRequest(user_id=user_id), timeout=CALL_SECONDS)
            return bool(answer.stats.slate_count == 1 and answer.stats.impression_count == 2)

        await eventually(recorded)


async def test_a_collector_that_is_killed_leaves_the_fold_exact(mended: Stack) -> None:
    async with Client(mended.address) as client:
        async with traffic(client) as seen:
            for _ in range(2):
                await eventually(progress(seen, 30))
                await replaced(mended, "collector", mended.send("collector", signal.SIGKILL))
        assert set(seen.codes) == {grpc.StatusCode.OK}, "taking in does not wait for the fold"
        await tallies_are_exact(client, mended, seen.item_id)


async def test_a_server_told_to_stop_finishes_what_it_took(mended: Stack) -> None:
    async with Client(mended.address) as client:
        # With time enough: what is asked here is whether the call at the door was begun, not how soon a new server answers it.
        async with traffic(client, deadline_seconds=CALL_SECONDS) as seen:
            await eventually(progress(seen, 20))
            await replaced(mended, "server", mended.send("server", signal.SIGTERM))
            await eventually(progress(seen, 20))
        assert set(seen.codes) <= LEAVING, seen.codes
        # Refused at the door, not broken off within: what was not acknowledged was not stored either.
        assert await stored_ids(mended, seen.item_id) == seen.acknowledged
        assert "server stopped" in mended.log_of("server")
        await tallies_are_exact(client, mended, seen.item_id)


def offered() -> list[Candidate]:
    return [Candidate(item_id=f"c{number}", prior_score=number % 7) for number in range(20)]


async def ranked_once(client: Client, *, seconds: float = CALL_SECONDS) -> str:
    """Ranks by fallback, and returns the reason. It never fails, and without a model it is always in this order."""
    ranked: RankResponse = await client.ranking.Rank(RankRequest(user_id="u", candidates=offered()), timeout=seconds)
    assert not ranked.ml_ranking_applied
    assert [item.item_id for item in ranked.items[:3]] == ["c13", "c6", "c12"], "by prior, equal ones by id"
    return str(ranked.fallback_reason)


async def ranked_by(client: Client, reason: str) -> None:
    """Ranks until the reason is this one; no call fails meanwhile."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await ranked_once(client) != reason:
            await asyncio.sleep(0.02)


async def test_rankers_that_die_or_hang_cost_no_call(tmp_path: Path) -> None:
    with running(tmp_path, "--rankers", "2") as stack:
        async with Client(stack.address) as client:
            for _ in range(2):
                await ranked_by(client, "NO_MODEL")
            first = stack.send("ranker", signal.SIGKILL)
            for _ in range(20):
                assert await ranked_once(client) == "NO_MODEL", "the other one answered"
            second = stack.send("ranker-2", signal.SIGKILL)
            await ranked_by(client, "RANKER_UNAVAILABLE")
            await ranked_by(client, "NO_MODEL")
            await replaced(stack, "ranker", first)
            await replaced(stack, "ranker-2", second)
            hanging = [stack.send(name, signal.SIGSTOP) for name in ("ranker", "ranker-2")]
            try:
                # They are waited for, two thirds of the caller's time at most; after a few such calls they are left alone for a while.
                for seconds in (DEADLINE_SECONDS, 0.5, DEADLINE_SECONDS, 0.5, DEADLINE_SECONDS, DEADLINE_SECONDS):
                    assert await ranked_once(client, seconds=seconds) in ("RANKER_TIMEOUT", "RANKER_UNAVAILABLE")
            finally:
                for pid in hanging:
                    os.kill(pid, signal.SIGCONT)
            await ranked_by(client, "NO_MODEL")
            assert [stack.pid("ranker"), stack.pid("ranker-2")] == hanging, "who only hung was not replaced"


async def all_gone(pids: Mapping[str, int]) -> bool:
    return not any(state_of(pid) for pid in pids.values())


async def test_a_stack_that_is_stopped_or_killed_under_load_leaves_nothing_running_and_all_it_acknowledged(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    seen: list[Traffic] = []
    try:
        for end, code in ((stack.stop, 0), (stack.kill, None)):
            stack.start()
            pids = dict(stack.ready["pids"])
            assert pids.keys() == {"up", "mongod", "ranker", "collector", "server"}
            async with Client(stack.address) as client:
                async with traffic(client) as now:
                    seen.append(now)
                    await eventually(progress(now, 20))
                    assert await asyncio.to_thread(end) == code, stack.said
                    await eventually(functools.partial(all_gone, pids))
                assert set(now.codes) <= LEAVING, now.codes
            assert stack.ready_file.exists() == (end == stack.kill), "who stops cleanly takes it away"
    finally:
        stack.clear()
    with running(tmp_path) as again:
        async with Client(again.address) as client:
            for each in seen:
                assert each.acknowledged <= await stored_ids(again, each.item_id)
                await tallies_are_exact(client, again, each.item_id)
            health: Any = health_pb2_grpc.HealthStub(client.channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
