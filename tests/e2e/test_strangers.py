"""What strangers make up is nobody's fault but theirs, when it is sent and when what was taken of it is counted, read and exported."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings

from rankloop.v1 import stats_pb2 as pb
from rankloop.v1 import tracking_pb2
from rankloop.v1.tracking_pb2 import SlateItem
from scripts.exporting.command import KINDS
from tests.e2e.entries import interaction, new_id, outcome, slate
from tests.e2e.stack import CALL_SECONDS, Client, Stack, rankloop, running
from tests.e2e.strangers import HOSTILE, SERVICES

PROCESSES = ("server", "ranker", "collector")
ANSWERS = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
TO_SESSIONS = ANSWERS | {grpc.StatusCode.FAILED_PRECONDITION}
"""A session that was started or ended otherwise is not changed."""
ODD_SECONDS = (-62_135_596_800, -50_000_000_000, 0, 1_700_000_000)
"""The beginning of the year 1 and later moments, since 1970."""
FEWEST_TAKEN = 10
GROUPINGS = [[one] for one in pb.Dimension.values()[1:]] + [[pb.DIMENSION_VARIANT, pb.DIMENSION_TIER]]


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for strangers alone: what they leave is in nobody else's way."""
    with running(tmp_path_factory.mktemp("visited")) as stack:
        yield stack


def well(stack: Stack) -> None:
    """No process has anything to complain of, and all are those that were started."""
    for name in PROCESSES:
        assert '"level": "error"' not in stack.log_of(name), stack.log_of(name)[-3000:]
    assert "starting it again" not in stack.said


@pytest.mark.parametrize("method", HOSTILE)
def test_nothing_that_a_stranger_makes_up_is_ever_our_fault(visited: Stack, method: str) -> None:
    with asyncio.Runner() as runner:
        client = runner.run(_opened(visited.address))
        codes: Counter[grpc.StatusCode] = Counter()

        @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(HOSTILE[method])
        def is_answered(request: Any) -> None:
            code = runner.run(_code_of(getattr(getattr(client, SERVICES[method]), method), request))
            codes[code] += 1
            assert code in (TO_SESSIONS if method.endswith("Session") else ANSWERS), (code, visited.log_of("server")[-3000:])

        is_answered()
        # What was taken is taken in: neither the fold nor the ranker's item state stumbles over it.
        assert codes[grpc.StatusCode.OK] >= FEWEST_TAKEN, codes
        runner.run(client.folded())
        runner.run(client.channel.close())
    well(visited)


async def test_figures_are_told_of_what_strangers_left(visited: Stack) -> None:
    async with Client(visited.address) as client:
        item_id = await leave_something(client)
        await client.folded()
        for period in periods():
            questions: list[tuple[Any, Any]] = [
                (client.stats.GetTypeMetrics, pb.GetTypeMetricsRequest(**period)),
                (client.stats.ListTopItems, pb.ListTopItemsRequest(**period)),
                (client.stats.ListActiveUsers, pb.ListActiveUsersRequest(**period)),
                (client.stats.GetEngagement, pb.GetEngagementRequest(**period)),
                (client.stats.GetOutcomeMetrics, pb.GetOutcomeMetricsRequest(**period)),
                (client.stats.GetSlateQuality, pb.GetSlateQualityRequest(**period)),
                (client.stats.GetOverview, pb.GetOverviewRequest(**period)),
                *((client.stats.GetPerformance, pb.GetPerformanceRequest(group_by=one, **period)) for one in GROUPINGS),
                *((client.stats.GetItemStats, pb.GetItemStatsRequest(item_id=one, **period)) for one in ("i", "i1", "$a.b")),
                *((client.stats.GetUserStats, pb.GetUserStatsRequest(user_id=one, **period)) for one in ("u", "u1", "$")),
            ]
            for call, request in questions:
                await call(request, timeout=CALL_SECONDS)
        found = await client.stats.GetItemStats(pb.GetItemStatsRequest(item_id=item_id, **periods()[1]), timeout=CALL_SECONDS)
        assert (found.stats.interaction_count, found.stats.clicked_impression_count) == (3 * len(ODD_SECONDS), len(ODD_SECONDS))
    well(visited)


async def leave_something(client: Client) -> str:
    """At every odd moment a slate of one item, what became of it, and an outcome: sound, whatever chance made up before. The item's id."""
    item_id = f"$a.{new_id()}"
    for seconds in ODD_SECONDS:
        moment = Timestamp(seconds=seconds)
        shown = slate(show_time=moment, items=[SlateItem(item_id=item_id)])
        of_it = {"item_id": item_id, "occur_time": moment, "ranking_id": shown.ranking_id}
        done = [interaction(type=kind, **of_it) for kind in ("view", "click", "implement")]
        for call, request in (
            (client.tracking.RecordSlates, tracking_pb2.RecordSlatesRequest(slates=[shown])),
            (client.tracking.TrackInteractions, tracking_pb2.TrackInteractionsRequest(interactions=done)),
            (client.tracking.RecordOutcomes, tracking_pb2.RecordOutcomesRequest(outcomes=[outcome(**of_it)])),
        ):
            answer = await call(request, timeout=CALL_SECONDS)
            assert not answer.rejected, answer
    return item_id


def periods() -> list[dict[str, datetime]]:
    """The usual one, and from where calendars begin."""
    now = datetime.now(UTC)
    return [{}, {"start_time": datetime(1, 1, 1, tzinfo=UTC), "end_time": now}, {"start_time": now - timedelta(days=365), "end_time": now}]


async def test_what_strangers_left_is_exported_recounted_and_derived_anew(visited: Stack, tmp_path: Path) -> None:
    async with Client(visited.address) as client:
        await leave_something(client)
        await client.folded()
    for kind in KINDS:
        for form in ("jsonl", "csv", "parquet", "sql"):
            said = rankloop("export", kind, "--format", form, "--out", str(tmp_path / f"{kind}.{form}"), "--server", visited.address)
            assert said.returncode == 0, said.stderr
    assert len((tmp_path / "interactions.jsonl").read_bytes().splitlines()) >= FEWEST_TAKEN
    store = {"RANKLOOP_MONGO_URI": visited.mongo_uri}
    for command in (("doctor", "--days", "3650"), ("doctor", "--recount"), ("rebuild",), ("doctor", "--recount")):
        said = rankloop(*command, variables=store)
        assert said.returncode == 0, (command, said.stdout, said.stderr)
    well(visited)


async def _opened(address: str) -> Client:
    return Client(address)


async def _code_of(call: Any, request: Any) -> grpc.StatusCode:
    try:
        await call(request, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
