"""What is exported comes in again elsewhere and goes out the same; files go on where they broke off."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rankloop.v1 import export_pb2 as pb
from rankloop.v1.catalog_pb2 import Item, UpsertItemsRequest, UpsertUsersRequest, User
from rankloop.v1.model_pb2 import ListModelsRequest
from rankloop.v1.ranking_pb2 import Candidate, RankRequest
from rankloop.v1.tracking_pb2 import (
    EndSessionRequest,
    Interaction,
    Outcome,
    RecordOutcomesRequest,
    RecordSlatesRequest,
    Session,
    Slate,
    SlateItem,
    StartSessionRequest,
    TrackInteractionsRequest,
)
from scripts.exporting.command import export
from scripts.exporting.formats import Format
from tests.e2e.stack import (
    CALL_SECONDS,
    PATIENCE_SECONDS,
    Client,
    Stack,
    details_of,
    environment,
    eventually,
    failure_of,
    rankloop,
    spawned,
)

DAY = datetime(2024, 2, 29, tzinfo=UTC)
"""A day that no other test speaks of."""
PERIOD = ("--start", "2024-02-29", "--end", "2024-03-01")
LEDGER = ("slates", "interactions", "outcomes", "sessions", "users", "items")
"""The catalogue last: what it says of items by now would be put into slates that were shown before it did."""
DERIVED = ("attributions", "tallies", "models", "experiments", "experiment_changes")
ODD = 'it\'s "odd", \\ a\nline; ünï€ \u2028'
INTERACTIONS = 2500


@dataclass(frozen=True)
class Exported:
    """Where a day went out to."""

    stack: Stack
    folder: Path
    shown_now: tuple[str, str]
    """The period of slates that were ranked, not reported."""


async def fill(stack: Stack) -> tuple[str, str]:
    """A day of everything; many things at the same moment, sent in no order. Returns when the slates ranked here were shown."""
    chance = random.Random(5)
    async with Client(stack.address) as client:
        items = [Item(item_id=f"ex-i{n}", item_type="t", tags=["b", "a"], attributes={"tier": "gold", "$odd.key": ODD}) for n in range(7)]
        users = [User(user_id=f"ex-u{n}", attributes={"plan": ODD}, numbers={"age": 0.1 * n}) for n in range(5)]
        for one in (*items, *users):
            one.create_time.FromDatetime(DAY)
        items[0].available = False
        await client.catalog.UpsertItems(UpsertItemsRequest(items=items), timeout=CALL_SECONDS)
        await client.catalog.UpsertUsers(UpsertUsersRequest(users=users), timeout=CALL_SECONDS)
        slates = []
        for n in range(40):
            slate = Slate(ranking_id=f"ex-r{n}", user_id=f"ex-u{n % 5}", surface="home", algorithm="mine", context={"page": ODD})
            slate.show_time.FromDatetime(DAY + timedelta(hours=n % 3))
            if n % 4:
                slate.experiment_id, slate.variant_id = "ex-e", f"ex-v{n % 2}"
            if n % 4 > 1:
                slate.variant_propensity = 0.1 * (n % 4)
            for place in range(3):
                features = {"prior_score": chance.random(), f"own_{place}": float(n)}
                slate.items.append(SlateItem(item_id=f"ex-i{place}", score=chance.random(), propensity=0.5, features=features))
                if n % 4 == 1:  # an interleaved slate
                    slate.items[place].variant_id = f"ex-v{place % 2}"
            slates.append(slate)
        chance.shuffle(slates)
        await client.tracking.RecordSlates(RecordSlatesRequest(slates=slates), timeout=CALL_SECONDS)
        clicks = []
        for n in range(INTERACTIONS):
            kinds = ("view", "click", "rate", "abandon")
            click = Interaction(event_id=f"ex-e{n}", user_id=f"ex-u{n % 5}", item_id=f"ex-i{n % 3}", type=kinds[n % 4])
            click.ranking_id = f"ex-r{n % 40}"
            if n % 4 == 2:
                click.value = n % 6
            if n % 4 == 3:
                click.dropoff_point = "form"
            click.occur_time.FromDatetime(DAY + timedelta(hours=4, minutes=n % 7))
            clicks.append(click)
        chance.shuffle(clicks)
        for begin in range(0, INTERACTIONS, 500):
            request = TrackInteractionsRequest(interactions=clicks[begin : begin + 500])
            await client.tracking.TrackInteractions(request, timeout=CALL_SECONDS)
        outcomes = [Outcome(event_id=f"ex-o{n}", user_id="ex-u0", type="revenue", value=0.1 * n, attributes={"a": ODD}) for n in range(9)]
        for outcome in outcomes:
            outcome.occur_time.FromDatetime(DAY + timedelta(hours=5))
        outcomes[0].before_value, outcomes[0].ranking_id = -1.5, "ex-r0"
        await client.tracking.RecordOutcomes(RecordOutcomesRequest(outcomes=outcomes), timeout=CALL_SECONDS)
        for n in range(4):
            session = Session(session_id=f"ex-s{n}", user_id="ex-u1", device="phone", pages=["/", "/a"])
            session.start_time.FromDatetime(DAY + timedelta(hours=6))
            await client.tracking.StartSession(StartSessionRequest(session=session), timeout=CALL_SECONDS)
            if n % 2:
                end = EndSessionRequest(session_id=session.session_id, pages=["/b"])
                end.end_time.FromDatetime(DAY + timedelta(hours=7))
                await client.tracking.EndSession(end, timeout=CALL_SECONDS)
        begin_time = datetime.now(UTC)
        user_id = uuid.uuid4().hex
        for n in range(5):
            candidates = [
                Candidate(item_id=f"ex-i{place}", features={"prior_score": place / 7}, tags=["x"], attributes={"tier": "silver"})
                for place in range(7)
            ]
            await client.ranking.Rank(RankRequest(user_id=user_id, candidates=candidates, context={"n": str(n)}), timeout=CALL_SECONDS)
        end_time = datetime.now(UTC) + timedelta(milliseconds=5)

        async def recorded() -> bool:
            kind, seen = pb.RECORD_KIND_SLATE, 0
            asked = pb.ExportRecordsRequest(kind=kind)
            asked.start_time.FromDatetime(begin_time)
            async for piece in client.export.ExportRecords(asked):
                seen += sum(record.slate.user_id == user_id for record in piece.records)
            return seen == 5

        await eventually(recorded)
        await client.folded()
    return begin_time.isoformat(), end_time.isoformat()


def exported(address: str, kind: str, out: Path, form: Format = "jsonl", *, start: str = PERIOD[1], end: str = PERIOD[3]) -> bytes:
    """Exports as the command does, and returns the file."""
    export(kind, form=form, start=start, end=end, out=out, server=address, patience=60.0, restart=False, json_file=None)
    assert not list(out.parent.glob(f"{out.name}.*")), "nothing is left beside it"
    return out.read_bytes()


@pytest.fixture(scope="module")
def day(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A day in JSON Lines, a file per kind."""
    folder = tmp_path_factory.mktemp("exported")
    shown_now = asyncio.run(fill(stack))
    for kind in (*LEDGER, *DERIVED):
        exported(stack.address, kind, folder / f"{kind}.jsonl")
    start, end = shown_now
    exported(stack.address, "slates", folder / "ranked.jsonl", start=start, end=end)
    return Exported(stack, folder, shown_now)


def lines(day: Exported, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (day.folder / f"{kind}.jsonl").read_text().splitlines()]


def test_every_kind_is_there_in_its_order(day: Exported) -> None:
    counts = {kind: len(lines(day, kind)) for kind in (*LEDGER, *DERIVED)}
    assert counts == {
        "users": 5,
        "items": 7,
        "slates": 40,
        "interactions": INTERACTIONS,
        "outcomes": 9,
        "sessions": 4,
        "attributions": 120,
        "tallies": counts["tallies"],
        "models": 0,
        "experiments": 0,
        "experiment_changes": 0,
    }
    assert counts["tallies"] > 0
    clicks = [(line["interaction"]["occurTime"], line["interaction"]["eventId"]) for line in lines(day, "interactions")]
    assert clicks == sorted(clicks)
    ranked = [line["slate"] for line in lines(day, "ranked")]
    assert len(ranked) >= 5
    assert all("prior_score" in ranked[-1]["items"][place]["features"] for place in range(7))
    assert all(item["attributes"]["tier"] for item in ranked[-1]["items"])


@pytest.mark.parametrize("form", ["jsonl", "csv", "sql", "parquet"])
def test_run_again_it_is_the_same_file(day: Exported, tmp_path: Path, form: Format) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    once, again = (exported(day.stack.address, "interactions", tmp_path / name, form) for name in ("once", "again"))
    assert once == again
    if form == "jsonl":
        assert once == (day.folder / "interactions.jsonl").read_bytes()


@pytest.fixture(scope="module")
def elsewhere(day: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another server on a database of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    ready_file = folder / "server.json"
    variables = {"RANKLOOP_MONGO_URI": day.stack.mongo_uri, "RANKLOOP_MONGO_DATABASE": f"elsewhere_{uuid.uuid4().hex}"}
    line = ["server", "--port", "0", "--metrics-port", "0", "--ready-file", str(ready_file)]
    process = spawned(line, folder / "server.log", environment(**variables))
    try:

        async def is_ready() -> bool:
            assert process.poll() is None, (folder / "server.log").read_text()
            return ready_file.exists()

        asyncio.run(eventually(is_ready))
        yield str(json.loads(ready_file.read_text())["address"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_what_went_out_comes_in_elsewhere_and_goes_out_the_same(day: Exported, elsewhere: str, tmp_path: Path) -> None:
    files = [str(day.folder / f"{kind}.jsonl") for kind in ("ranked", *LEDGER)]
    done = rankloop("import", *files, "--server", elsewhere, "--strict", "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 0, done.stderr
    for kind in LEDGER:
        out = exported(elsewhere, kind, tmp_path / f"{kind}.jsonl")
        assert out == (day.folder / f"{kind}.jsonl").read_bytes(), kind
    start, end = day.shown_now
    out = exported(elsewhere, "slates", tmp_path / "ranked.jsonl", start=start, end=end)
    assert out == (day.folder / "ranked.jsonl").read_bytes()


def test_what_is_derived_does_not_come_in(day: Exported, elsewhere: str, tmp_path: Path) -> None:
    file = str(day.folder / "attributions.jsonl")
    done = rankloop("import", file, "--server", elsewhere, "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "attribution is not imported: it is derived from slates and interactions; import those" in done.stderr


def test_rows_are_the_records(day: Exported, tmp_path: Path) -> None:
    exported(day.stack.address, "outcomes", tmp_path / "outcomes.csv", "csv")
    with open(tmp_path / "outcomes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["event_id"] for row in rows] == [f"ex-o{n}" for n in range(9)]
    assert (rows[0]["before_value"], rows[1]["before_value"], rows[3]["value"]) == ("-1.5", "", repr(0.1 * 3))
    assert json.loads(rows[0]["attributes"]) == {"a": ODD}
    assert rows[0]["occur_time"] == "2024-02-29T05:00:00Z"
    exported(day.stack.address, "items", tmp_path / "items.sql", "sql")
    with sqlite3.connect(":memory:") as database:
        database.executescript((tmp_path / "items.sql").read_text())
        found = database.execute("SELECT item_id, available, tags, attributes, embedding FROM items ORDER BY item_id").fetchall()
    assert [(row[0], row[1]) for row in found] == [(f"ex-i{n}", int(n > 0)) for n in range(7)]
    assert json.loads(found[0][2]) == ["b", "a"]
    assert json.loads(found[0][3]) == {"tier": "gold", "$odd.key": ODD}
    assert found[0][4] is None


def test_parquet_has_types(day: Exported, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    exported(day.stack.address, "interactions", tmp_path / "clicks.parquet", "parquet")
    table = parquet.read_table(tmp_path / "clicks.parquet")
    assert table.num_rows == INTERACTIONS
    assert str(table.schema.field("occur_time").type) == "timestamp[ms, tz=UTC]"
    first = table.slice(0, 1).to_pylist()[0]
    expected = lines(day, "interactions")[0]["interaction"]
    assert (first["event_id"], first["occur_time"]) == (expected["eventId"], DAY + timedelta(hours=4))


def test_without_pyarrow_it_says_how_to_get_it(day: Exported, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError")
    here = Path(__file__).resolve().parents[2]
    paths = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{here}"}
    line = ("export", "items", "--format", "parquet", "--server", day.stack.address, "--out", str(tmp_path / "items.parquet"))
    done = rankloop(*line, variables=paths)
    assert done.returncode == 1
    assert "pip install 'rankloop-server[parquet]'" in done.stderr


def test_an_export_that_broke_off_goes_on(day: Exported, tmp_path: Path) -> None:
    out, whole = tmp_path / "clicks.jsonl", (day.folder / "interactions.jsonl").read_bytes()
    line = ["export", "interactions", "--server", day.stack.address, "--out", str(out), *PERIOD]
    # Killed at whatever moment: at the latest the last of these comes before its end.
    process = spawned(line, tmp_path / "log", environment())
    notes = tmp_path / "clicks.jsonl.progress"
    while process.poll() is None:
        if notes.exists() and json.loads(notes.read_text())["count"]:
            process.kill()
            break
    process.wait()
    if not out.exists():
        kept = json.loads(notes.read_text())
        with open(tmp_path / "clicks.jsonl.part", "ab") as part:
            part.write(b"half a li")  # written, and not noted
        done = rankloop(*line)
        assert done.returncode == 0, done.stderr
        assert f"continuing behind {kept['count']:,} records" in done.stderr
    assert out.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clicks.jsonl", "log"]


def test_standard_output(day: Exported) -> None:
    done = rankloop("export", "users", "--server", day.stack.address, "--out", "-", *PERIOD)
    assert done.returncode == 0
    assert done.stdout.encode() == (day.folder / "users.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["people"], "'people' is no kind of record; there are interactions, slates"),
        (["items", "--start", "yesterday"], "'yesterday' is no time"),
        (["items", "--start", "2024-03-01", "--end", "2024-02-29"], "does not lie behind --start"),
        (["items", "--format", "xml"], "'xml' is not one of 'jsonl', 'csv', 'parquet', 'sql'"),
        (["items", "--format", "parquet", "--out", "-"], "name a file"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], said: str) -> None:
    done: subprocess.CompletedProcess[str] = rankloop("export", *arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


async def test_a_bad_request_names_its_field(client: Client) -> None:
    error = await failure_of(client.export.ExportRecords(pb.ExportRecordsRequest()).read())
    assert [one.field for one in details_of(error)[1]] == ["kind"]
    assert (await client.models.ListModels(ListModelsRequest(), timeout=CALL_SECONDS)) is not None
