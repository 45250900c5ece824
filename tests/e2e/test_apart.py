"""Tracking on a port of its own: a server without it, a collector with it, and what is done with what it refused and with what is old."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rankloop.v1 import ranking_pb2, stats_pb2, tracking_pb2
from rankloop.v1.export_pb2 import RECORD_KIND_SLATE, ExportRecordsRequest
from rankloop.v1.tracking_pb2 import Interaction, Session
from runtime.settings import MongoSettings
from tests.e2e.stack import CALL_SECONDS, LOOK_SECONDS, PATIENCE_SECONDS, Client, environment, eventually, failure_of, rankloop, spawned

SERVICES = "ranking,catalog,stats,models,experiments,export"
AT_ONCE = 1e-6
"""Days: less than a tenth of a second."""


class Apart:
    """A server and a collector, each a process of its own, on one database."""

    def __init__(self, folder: Path, mongo: MongoSettings) -> None:
        self._folder = folder
        self.variables = {"RANKLOOP_MONGO_URI": mongo.uri, "RANKLOOP_MONGO_DATABASE": mongo.database}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str, **variables: str) -> str:
        """Starts one and returns its address when it answers."""
        ready, output = self._folder / f"{name}.json", self._folder / f"{name}.log"
        ready.unlink(missing_ok=True)
        line = [name, "--port", "0", "--ready-file", str(ready), *arguments]
        process = self._processes[name] = spawned(line, output, environment(**self.variables, **variables))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ready.exists():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(LOOK_SECONDS)
        return str(json.loads(ready.read_text())["address"])

    def stop(self, name: str) -> None:
        """As SIGTERM does."""
        process = self._processes.pop(name)
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0

    def clear(self) -> None:
        """Ends what is left."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def run(self, *arguments: str, **variables: str) -> str:
        """A command to its end; returns what it printed."""
        done = rankloop(*arguments, variables={**self.variables, **variables})
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def _apart(folder: Path, mongo: MongoSettings) -> Iterator[Apart]:
    apart = Apart(folder, mongo)
    try:
        yield apart
    finally:
        apart.clear()


@pytest.fixture
def apart(tmp_path: Path, mongo_settings: MongoSettings) -> Iterator[Apart]:
    with _apart(tmp_path, mongo_settings) as found:
        yield found


def track(*entries: Interaction) -> tracking_pb2.TrackInteractionsRequest:
    return tracking_pb2.TrackInteractionsRequest(interactions=entries)


def click(event_id: str, **fields: Any) -> Interaction:
    return Interaction(**{"event_id": event_id, "user_id": "u", "item_id": "i", "type": "click", **fields})


async def test_a_collector_takes_in_what_a_server_leaves_out(apart: Apart) -> None:
    server, collector = apart.start("server", "--services", SERVICES), apart.start("collector")
    async with Client(server) as front, Client(collector) as side:
        refused = await failure_of(front.tracking.TrackInteractions(track(click("a")), timeout=CALL_SECONDS))
        assert refused.code() is grpc.StatusCode.UNIMPLEMENTED
        elsewhere = await failure_of(side.stats.GetOverview(stats_pb2.GetOverviewRequest(), timeout=CALL_SECONDS))
        assert elsewhere.code() is grpc.StatusCode.UNIMPLEMENTED
        candidates = [ranking_pb2.Candidate(item_id=f"i{number}") for number in range(3)]
        slate = await front.ranking.Rank(ranking_pb2.RankRequest(user_id="u", candidates=candidates), timeout=CALL_SECONDS)
        chosen = click("a", item_id=slate.items[1].item_id, ranking_id=slate.ranking_id)
        assert (await side.tracking.TrackInteractions(track(chosen), timeout=CALL_SECONDS)).accepted_count == 1

        async def counted() -> bool:
            answer = await front.stats.GetItemStats(stats_pb2.GetItemStatsRequest(item_id=chosen.item_id), timeout=CALL_SECONDS)
            return bool((answer.stats.impression_count, answer.stats.clicked_impression_count) == (1, 1))

        await eventually(counted)


async def test_what_was_refused_is_listed_shown_and_stored_once_it_is_mended(apart: Apart, tmp_path: Path) -> None:
    collector = apart.start("collector")
    unknown, twice = click("b", type="bookmark", context={"page": "home"}), click("c")
    async with Client(collector) as side:
        for _ in range(2):  # sent again, it is kept once
            answer = await side.tracking.TrackInteractions(track(unknown, twice), timeout=CALL_SECONDS)
            assert [(one.event_id, one.reason) for one in answer.rejected] == [("b", "UNKNOWN_TYPE")]
        other = await side.tracking.TrackInteractions(track(click("c", item_id="j")), timeout=CALL_SECONDS)
        assert [(one.event_id, one.reason, one.field) for one in other.rejected] == [("c", "CONFLICT", "interactions[0].event_id")]
    listed = json.loads(apart.run("quarantine", "list", "--json"))
    assert {(one["reason"], one["count"]) for one in listed["counts"]} == {("UNKNOWN_TYPE", 1), ("CONFLICT", 1)}
    kept = {one["reason"]: one for one in listed["entries"]}
    assert "bookmark" in apart.run("quarantine", "list", "--reason", "UNKNOWN_TYPE")
    shown = json.loads(apart.run("quarantine", "show", kept["UNKNOWN_TYPE"]["_id"]))
    assert (shown["entry"]["eventId"], shown["entry"]["context"], shown["cut"]) == ("b", {"page": "home"}, False)
    assert shown["faults"][0]["field"] == "interactions[0].type"

    assert "0 stored, 0 were stored already, 2 refused again" in apart.run("quarantine", "replay")
    mended = tmp_path / "mended.toml"
    mended.write_text("[labels.types.bookmark]\nlabel = 0.7\nacts = true\n")
    said = apart.run("quarantine", "replay", "--config", str(mended))
    assert "1 stored, 0 were stored already, 1 refused again, 0 unreadable" in said
    left = json.loads(apart.run("quarantine", "list", "--json"))["entries"]
    assert [(one["reason"], one["entry_id"]) for one in left] == [("CONFLICT", "c")], "the first stands, and the other stays refused"
    async with Client(apart.start("server")) as front:
        await front.folded()
        asked = stats_pb2.ListUserInteractionsRequest(user_id="u")
        found = await front.stats.ListUserInteractions(asked, timeout=CALL_SECONDS)
        assert {(one.interaction.event_id, one.interaction.type, one.interaction.item_id) for one in found.interactions} == {
            ("b", "bookmark", "i"),
            ("c", "click", "i"),
        }


async def test_old_entries_go_by_kind_and_what_they_counted_stays_and_says_so(apart: Apart) -> None:
    server, collector = apart.start("server"), apart.start("collector")
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    # As it occurred it is months old; retention goes by when it came.
    long_ago = Timestamp(seconds=int((hour - timedelta(days=90)).timestamp()))
    sent = [click(f"e{number}", occur_time=long_ago, ranking_id="r") for number in range(3)]
    period = {"start_time": long_ago, "end_time": Timestamp(seconds=long_ago.seconds + 3600)}
    async with Client(server) as front, Client(collector) as side:
        shown = tracking_pb2.Slate(ranking_id="r", user_id="u", show_time=long_ago, items=[{"item_id": "i"}, {"item_id": "j"}])
        await side.tracking.RecordSlates(tracking_pb2.RecordSlatesRequest(slates=[shown]), timeout=CALL_SECONDS)
        await side.tracking.TrackInteractions(track(*sent, click("x", type="nonsense")), timeout=CALL_SECONDS)
        session = Session(session_id="s", user_id="u", start_time=long_ago)
        await side.tracking.StartSession(tracking_pb2.StartSessionRequest(session=session), timeout=CALL_SECONDS)
        await front.folded()

        async def figures() -> tuple[Any, ...]:
            item = await front.stats.GetItemStats(stats_pb2.GetItemStatsRequest(item_id="i", **period), timeout=CALL_SECONDS)
            listed = await front.stats.ListUserInteractions(
                stats_pb2.ListUserInteractionsRequest(user_id="u", **period), timeout=CALL_SECONDS
            )
            sessions = await front.stats.GetEngagement(stats_pb2.GetEngagementRequest(**period), timeout=CALL_SECONDS)
            overview = await front.stats.GetOverview(stats_pb2.GetOverviewRequest(), timeout=CALL_SECONDS)
            counts = (item.stats.interaction_count, item.stats.impression_count, item.stats.clicked_impression_count)
            slates = [piece async for piece in front.export.ExportRecords(ExportRecordsRequest(kind=RECORD_KIND_SLATE))]
            slate_count = sum(len(piece.records) for piece in slates)
            kept = (len(listed.interactions), slate_count, sessions.sessions.session_count, overview.quarantined_count)
            return counts, kept, item.HasField("ledger_start_time")

        assert await figures() == ((3, 1, 1), (3, 1, 1, 1), False)
        for kind, left in (
            ("interactions", ((3, 1, 1), (0, 1, 1, 1), True)),
            ("slates", ((3, 1, 1), (0, 0, 1, 1), True)),
            ("sessions", ((3, 1, 1), (0, 0, 0, 1), True)),
            ("quarantine", ((3, 1, 1), (0, 0, 0, 0), True)),
        ):
            apart.stop("collector")
            settings = {f"RANKLOOP_RETENTION_{kind.upper()}_DAYS": str(AT_ONCE), "RANKLOOP_RETENTION_SWEEP_SECONDS": "0.1"}
            apart.start("collector", **settings)

            async def gone(left: tuple[Any, ...] = left) -> bool:
                return await figures() == left

            await eventually(gone)
        said = json.loads(apart.run("doctor", "--recount", "--json"))
        assert said["agrees"], said
        apart.run("rebuild")
        assert await figures() == ((3, 1, 1), (0, 0, 0, 0), True)


async def test_sessions_may_be_sent_again_and_those_nobody_stated_end_after_half_an_hour(apart: Apart) -> None:
    server, collector = apart.start("server"), apart.start("collector")
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=20)

    def at(span: timedelta) -> Timestamp:
        stamp = Timestamp()
        stamp.FromDatetime(begin + span)
        return stamp

    async with Client(server) as front, Client(collector) as side:
        stated = tracking_pb2.StartSessionRequest(
            session=Session(session_id="stated", user_id="u", start_time=at(timedelta()), pages=["/"], device="phone")
        )
        first = await side.tracking.StartSession(stated, timeout=CALL_SECONDS)
        assert await front.tracking.StartSession(stated, timeout=CALL_SECONDS) == first
        other = tracking_pb2.StartSessionRequest(session=Session(session_id="stated", user_id="u", device="desk"))
        assert (await failure_of(side.tracking.StartSession(other, timeout=CALL_SECONDS))).code() is grpc.StatusCode.FAILED_PRECONDITION
        # Without times: a sender that tries again does so at another moment.
        untimed = tracking_pb2.StartSessionRequest(session=Session(session_id="untimed", user_id="v"))
        assert await side.tracking.StartSession(untimed, timeout=CALL_SECONDS) == await front.tracking.StartSession(
            untimed, timeout=CALL_SECONDS
        )
        end = tracking_pb2.EndSessionRequest(session_id="stated", end_time=at(timedelta(minutes=90)), pages=["/pay"])
        ended = await side.tracking.EndSession(end, timeout=CALL_SECONDS)
        assert list(ended.session.pages) == ["/", "/pay"]
        assert await front.tracking.EndSession(end, timeout=CALL_SECONDS) == ended
        later = tracking_pb2.EndSessionRequest(session_id="stated", end_time=at(timedelta(minutes=99)), pages=["/x"])
        assert await side.tracking.EndSession(later, timeout=CALL_SECONDS) == ended, "the first end stays"
        assert (await side.tracking.StartSession(stated, timeout=CALL_SECONDS)).session == ended.session
        untimed_end = tracking_pb2.EndSessionRequest(session_id="untimed")
        assert await side.tracking.EndSession(untimed_end, timeout=CALL_SECONDS) == await side.tracking.EndSession(
            untimed_end, timeout=CALL_SECONDS
        )

        half, more = timedelta(minutes=30), timedelta(minutes=30, milliseconds=1)
        moments = [timedelta(), half, half + more, half + more + half]
        inferred = [click(f"t{place}", user_id="w", session_id="told", occur_time=at(moment)) for place, moment in enumerate(moments)]
        within = [click(f"s{place}", user_id="u", session_id="stated", occur_time=at(2 * place * half)) for place in range(2)]
        await side.tracking.TrackInteractions(track(*reversed(inferred), *within), timeout=CALL_SECONDS)
        await front.folded()
        period = {"start_time": at(-timedelta(minutes=1)), "end_time": at(timedelta(hours=6))}
        found = (await front.stats.GetEngagement(stats_pb2.GetEngagementRequest(**period), timeout=CALL_SECONDS)).sessions
        # u's, as stated, however long it was silent; w's twice: half an hour is no gap, a moment more is.
        assert (found.session_count, found.stated_session_count) == (3, 1)
        assert found.avg_length.ToTimedelta() == (timedelta(minutes=90) + half + half) / 3
        assert found.bounced_session_count == 0
