"""`rankloop import` into a running stack: everything once, whatever happens on the way."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from rankloop.v1 import experiment_pb2, stats_pb2
from rankloop.v1.catalog_pb2 import GetItemRequest, Item, User
from rankloop.v1.catalog_pb2_grpc import CatalogServiceStub
from rankloop.v1.experiment_pb2_grpc import ExperimentServiceStub
from rankloop.v1.ranking_pb2 import Candidate, RankRequest
from rankloop.v1.ranking_pb2_grpc import RankingServiceStub
from rankloop.v1.record_pb2 import Record
from rankloop.v1.stats_pb2_grpc import StatsServiceStub
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Session, Slate, SlateItem
from runtime.child import Child
from tests.integration.stacks import Up, ask, command, environment, rankloop, running

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack that tests share; each uses ids of its own."""
    with running(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def imported(up: Up, tmp_path: Path, *arguments: str, stdin: bytes = b"", code: int = 0) -> tuple[dict[str, Any], str]:
    """Imports, and returns the counts and what was said on standard error."""
    report = tmp_path / "report.json"
    line = ["import", *arguments, "--server", up.ready["server"], "--state-dir", str(tmp_path / "state"), "--json", str(report)]
    done = rankloop(*line, stdin=stdin)
    assert done.returncode == code, done.stderr
    return json.loads(report.read_text()), done.stderr


def fates(accepted: int, duplicate: int = 0, rejected: int = 0) -> dict[str, int]:
    return {"accepted": accepted, "duplicate": duplicate, "rejected": rejected}


def lines_of(records: list[Record]) -> bytes:
    return b"".join(json_format.MessageToJson(record, indent=None).encode() + b"\n" for record in records)


def clicks(name: str, count: int) -> list[Record]:
    """Clicks of one user, whom no other test has."""
    made = []
    for number in range(count):
        click = Interaction(event_id=f"{name}-{number}", user_id=name, item_id=f"i{number % 7}", type="click")
        click.occur_time.FromDatetime(NOW + timedelta(seconds=number))
        made.append(Record(interaction=click))
    return made


def wait_folded(server: str, seconds: float = 60) -> None:
    """Waits until the fold has taken in everything."""
    deadline = time.monotonic() + seconds
    while ask(server, StatsServiceStub, "GetOverview", stats_pb2.GetOverviewRequest()).pending_count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def interactions_of(server: str, user_id: str) -> int:
    """How many interactions the ledger has of a user."""
    count, token = 0, ""
    while True:
        request = stats_pb2.ListUserInteractionsRequest(user_id=user_id, page_size=1000, page_token=token)
        page = ask(server, StatsServiceStub, "ListUserInteractions", request)
        count, token = count + len(page.interactions), page.next_page_token
        if not token:
            return count


def performance(server: str, *dimensions: str) -> dict[tuple[str, ...], tuple[int, int]]:
    """Impressions and clicked impressions of 2019, by the values of the dimensions in their order."""
    request = stats_pb2.GetPerformanceRequest(group_by=[stats_pb2.Dimension.Value(f"DIMENSION_{name.upper()}") for name in dimensions])
    request.start_time.FromDatetime(datetime(2019, 1, 1))
    request.end_time.FromDatetime(datetime(2020, 1, 1))
    rows = ask(server, StatsServiceStub, "GetPerformance", request).rows
    return {tuple(row.dimensions[name] for name in dimensions): (row.impression_count, row.clicked_impression_count) for row in rows}


def test_every_kind_of_record_goes_in_once(up: Up, tmp_path: Path) -> None:
    records = [
        Record(item=Item(item_id="k-i", item_type="article")),
        Record(user=User(user_id="k-u")),
        Record(session=Session(session_id="k-s", user_id="k-u", pages=["/"])),
        Record(slate=Slate(ranking_id="k-r", user_id="k-u", items=[SlateItem(item_id="k-i")])),
        Record(interaction=Interaction(event_id="k-e", user_id="k-u", item_id="k-i", type="click", ranking_id="k-r")),
        Record(outcome=Outcome(event_id="k-o", user_id="k-u", type="revenue", value=3)),
    ]
    session, slate, interaction, outcome = records[2].session, records[3].slate, records[4].interaction, records[5].outcome
    for moment in (session.start_time, session.end_time, slate.show_time, interaction.occur_time, outcome.occur_time):
        moment.FromDatetime(NOW)
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(gzip.compress(lines_of(records)))
    first, said = imported(up, tmp_path, str(path))
    assert said == ""
    kinds = ("item", "user", "session", "slate", "interaction", "outcome")
    assert first == {"line_count": 6, "bad_line_count": 0, "records": {kind: fates(1) for kind in kinds}}
    again, _ = imported(up, tmp_path, str(path))
    replaced = {kind: fates(1) for kind in ("item", "user", "session")}  # the catalogue replaces, a session stays as it was
    assert again["records"] == {**replaced, **{kind: fates(0, 1) for kind in ("slate", "interaction", "outcome")}}


def test_a_later_line_wins_over_an_earlier_one_about_the_same_item(up: Up, tmp_path: Path) -> None:
    records = [Record(item=Item(item_id="w-i", item_type=f"type-{number}")) for number in range(50)]
    for record in records[:-1]:  # the last would be the quickest, if it did not wait for those before it
        record.item.attributes.update({f"name-{number}": "x" * 1000 for number in range(64)})
    found, _ = imported(up, tmp_path, "-", "--batch", "10", stdin=lines_of(records))
    assert found["records"] == {"item": fates(50)}
    assert ask(up.ready["server"], CatalogServiceStub, "GetItem", GetItemRequest(item_id="w-i")).item.item_type == "type-49"


def test_bad_lines_are_named_counted_and_kept_and_spoil_no_other(up: Up, tmp_path: Path) -> None:
    good = clicks("bad-lines", 5)
    unknown = Record(interaction=Interaction(event_id="x", user_id="u", item_id="i", type="clikc"))
    nameless = Record(slate=Slate(user_id="u", items=[SlateItem(item_id="i")]))
    lines = lines_of([*good[:2], unknown, nameless, *good[2:]]).splitlines()
    lines.insert(1, b"this is no record")
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"\n".join(lines))
    found, said = imported(up, tmp_path, str(path), "--bad-lines", str(tmp_path / "bad.jsonl"))
    assert (found["line_count"], found["bad_line_count"]) == (8, 3)
    assert found["records"] == {"interaction": fates(5, 0, 1), "slate": fates(0, 0, 1)}
    kept = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(one["line"], one["text"].encode()) for one in kept] == [(number + 1, lines[number]) for number in (1, 3, 4)]
    for one, reason in zip(kept, ("not the JSON form of a Record", "interaction.type: ", "slate.ranking_id: "), strict=True):
        assert reason in one["reason"]
        assert f"{path}:{one['line']}: {one['reason']}" in said
    imported(up, tmp_path, str(path), "--strict", "--bad-lines", str(tmp_path / "bad.jsonl"), code=1)


def test_only_twenty_bad_lines_are_shown(up: Up, tmp_path: Path) -> None:
    found, said = imported(up, tmp_path, "-", "--bad-lines", str(tmp_path / "bad.jsonl"), stdin=b"nonsense\n" * 100, code=1)
    assert found == {"line_count": 100, "bad_line_count": 100, "records": {}}
    assert said.count("standard input:") == 20
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 100


def test_an_import_that_is_killed_continues_where_it_was(up: Up, tmp_path: Path) -> None:
    total = 4000
    path = tmp_path / "clicks.jsonl"
    path.write_bytes(lines_of(clicks("killed", total)) + b"nonsense\n")
    server, state = up.ready["server"], tmp_path / "state"
    line = command("import", str(path), "--server", server, "--state-dir", str(state), "--batch", "5")
    running_import = Child.start(line, output=tmp_path / "output", environment=environment())
    try:
        deadline = time.monotonic() + 60
        reached = 0
        while not reached:
            assert time.monotonic() < deadline
            assert running_import.exit_code is None
            for progress in state.glob("*.progress"):
                reached = json.loads(progress.read_text())["line"]
        os.kill(running_import.pid, signal.SIGKILL)
        while running_import.exit_code is None:
            assert time.monotonic() < deadline
    finally:
        if running_import.exit_code is None:
            os.kill(running_import.pid, signal.SIGKILL)
    stored = interactions_of(server, "killed")
    assert 0 < stored < total
    found, said = imported(up, tmp_path, str(path), "--batch", "500")
    assert f"{path}: continuing behind line " in said
    assert (found["line_count"], found["bad_line_count"]) == (total + 1, 1)
    fate = found["records"]["interaction"]
    assert fate["accepted"] + fate["duplicate"] == total
    assert fate["duplicate"] < total // 2  # what was known to be in was not sent again
    assert interactions_of(server, "killed") == total


def test_a_server_that_is_killed_meanwhile_is_waited_for(up: Up, tmp_path: Path) -> None:
    total = 3000
    path = tmp_path / "clicks.jsonl"
    path.write_bytes(lines_of(clicks("waited", total)))
    ready = up.ready
    state, report = tmp_path / "state", tmp_path / "report.json"
    line = command("import", str(path), "--server", ready["server"], "--state-dir", str(state), "--batch", "5", "--json", str(report))
    child = Child.start(line, output=tmp_path / "output", environment=environment())
    deadline = time.monotonic() + 90
    try:
        while not any(json.loads(progress.read_text())["line"] for progress in state.glob("*.progress")):
            assert time.monotonic() < deadline
            assert child.exit_code is None
        os.kill(ready["pids"]["server"], signal.SIGKILL)
        while child.exit_code is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        if child.exit_code is None:
            os.kill(child.pid, signal.SIGKILL)
    up.wait_restarted("server", ready["pids"]["server"])
    assert child.exit_code == 0, (tmp_path / "output").read_text()
    fate = json.loads(report.read_text())["records"]["interaction"]
    assert fate["accepted"] + fate["duplicate"] == total
    assert fate["rejected"] == 0
    assert interactions_of(ready["server"], "waited") == total


def test_a_server_that_stays_away_breaks_the_import_off(tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"
    path.write_bytes(lines_of(clicks("away", 1)))
    done = rankloop("import", str(path), "--server", "127.0.0.1:1", "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "rankloop import: no server answers at 127.0.0.1:1; start one with `rankloop up`, or name another with --server"
    ]


def bandit_log(path: Path, seed: int, count: int) -> list[dict[str, str]]:
    """Writes a log with the columns of the Open Bandit Dataset, and returns its rows."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        shown = datetime(2019, 11, 24, tzinfo=UTC) + timedelta(seconds=chance.randrange(7 * 86_400), microseconds=chance.randrange(10**6))
        rows.append(
            {
                "": str(number),
                "timestamp": shown.isoformat(sep=" "),
                "item_id": str(chance.randrange(34)),
                "position": str(chance.randint(1, 3)),
                "click": str(int(chance.random() < 0.1)),
                "propensity_score": str(chance.uniform(0.01, 1)),
                **{f"user_feature_{place}": f"{chance.randrange(3):032x}" for place in range(4)},
            }
        )
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_open_bandit_logs_come_out_as_they_were_counted(up: Up, tmp_path: Path) -> None:
    logs = {name: bandit_log(tmp_path / f"{name}.csv.gz", seed, 700) for name, seed in (("uniform", 1), ("thompson", 2))}
    files = [str(tmp_path / f"{name}.csv.gz") for name in logs]
    items = tmp_path / "items.csv"
    items.write_text(",item_id,item_feature_0,item_feature_1\n" + "".join(f"{number},{number},-0.5,ab\n" for number in range(34)))
    click_count = sum(int(row["click"]) for rows in logs.values() for row in rows)
    found, _ = imported(up, tmp_path, "--format", "open-bandit", "--items", str(items), *files)
    assert (found["line_count"], found["bad_line_count"]) == (1434, 0)
    assert {kind: found["records"][kind] for kind in ("item", "slate", "interaction")} == {
        "item": fates(34),
        "slate": fates(1400),
        "interaction": fates(click_count),
    }
    again, _ = imported(up, tmp_path, "--format", "open-bandit", files[0])
    assert again["records"]["slate"] == fates(0, 700)

    shown: Counter[tuple[str, str]] = Counter()
    clicked: Counter[tuple[str, str]] = Counter()
    for name, rows in logs.items():
        for row in rows:
            for key in ((name, ""), (name, row["position"])):
                shown[key] += 1
                clicked[key] += int(row["click"])
    server = up.ready["server"]
    wait_folded(server)
    by_algorithm = performance(server, "algorithm")
    assert by_algorithm == {(name,): (shown[name, ""], clicked[name, ""]) for name in logs}
    by_position = performance(server, "algorithm", "position")
    assert by_position == {key: (shown[key], clicked[key]) for key in shown if key[1]}


def test_two_policies_are_the_arms_of_an_experiment(up: Up, tmp_path: Path) -> None:
    """600 rows against 200, weights as the files are long. Which rows were clicked is known, so is every figure of the readout."""
    logs = {name: bandit_log(tmp_path / f"{name}.csv.gz", seed, count) for name, seed, count in (("even", 11, 600), ("learned", 12, 200))}
    # Two impressions of one page are one arrival.
    logs["even"][1] |= {name: logs["even"][0][name] for name in logs["even"][0] if name.startswith(("timestamp", "user_feature"))}
    with gzip.open(tmp_path / "even.csv.gz", "wt", newline="") as file:
        writer = csv.DictWriter(file, list(logs["even"][0]))
        writer.writeheader()
        writer.writerows(logs["even"])
    server = up.ready["server"]
    wanted = experiment_pb2.Experiment(
        experiment_id="policies",
        variants=[experiment_pb2.Variant(variant_id=name, weight=weight) for name, weight in (("even", 0.75), ("learned", 0.25))],
        primary_metric=experiment_pb2.ExperimentMetric(kind=experiment_pb2.METRIC_KIND_CTR),
    )

    def arm(experiment: str, variant: str) -> subprocess.CompletedProcess[str]:
        line = ["import", "--format", "open-bandit", "--experiment", experiment, "--variant", variant, str(tmp_path / f"{variant}.csv.gz")]
        return rankloop(*line, "--server", server, "--state-dir", str(tmp_path / "state"))

    assert "--experiment: there is no experiment policies" in arm("policies", "even").stderr
    ask(server, ExperimentServiceStub, "CreateExperiment", experiment_pb2.CreateExperimentRequest(experiment=wanted))
    refused = arm("policies", "odd")
    assert refused.returncode == 1
    assert "--variant: policies has no variant odd; it has even, learned" in refused.stderr
    for name, rows in logs.items():
        done = arm("policies", name)
        assert done.returncode == 0, done.stderr
        assert f"slates: {len(rows)} stored, 0 known already, 0 refused" in done.stdout
        assert f"slates: 0 stored, {len(rows)} known already, 0 refused" in arm("policies", name).stdout
    wait_folded(server)
    request = experiment_pb2.GetExperimentResultsRequest(experiment_id="policies", segment_by=["user_feature_0"])
    found = ask(server, ExperimentServiceStub, "GetExperimentResults", request)
    clicked = {name: sum(int(row["click"]) for row in rows) for name, rows in logs.items()}
    assert {one.variant_id: (one.user_count, one.exposure_count) for one in found.variants} == {"even": (599, 600), "learned": (200, 200)}
    assert (found.sample_ratio.void, found.mixed_user_count, found.anonymous_slate_count) == (False, 0, 0)
    for value in found.metrics[0].values:
        assert value.value == pytest.approx(clicked[value.variant_id] / len(logs[value.variant_id]), rel=1e-12)
    assert sum(value.user_count for segment in found.segments for value in segment.values) == 799
    assert not found.verdict.winner_variant_id


def test_a_file_of_another_kind_is_refused_as_a_whole(up: Up, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a,b\n1,2\n")
    done = rankloop("import", "--format", "open-bandit", str(path), "--server", up.ready["server"], "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "an Open Bandit file has a column timestamp, and this one has not" in done.stderr


def taught(slates: int) -> list[Record]:
    """Slates ranked elsewhere, with the one value that its owner had of each item, and clicks that follow it."""
    chance, made = random.Random(5), list[Record]()
    begin = datetime.now(UTC) - timedelta(days=20)
    for number in range(slates):
        quality = [round(chance.random(), 3) for _ in range(6)]
        shown = begin + timedelta(minutes=90 * number)
        names = [f"taught-{number % 40}-{place}" for place in range(6)]
        items = [
            SlateItem(item_id=name, item_type="lesson", features={"quality": value}) for name, value in zip(names, quality, strict=True)
        ]
        slate = Slate(ranking_id=f"taught-{number}", user_id=f"pupil-{number % 30}", surface="home", items=items)
        slate.show_time.FromDatetime(shown)
        made.append(Record(slate=slate))
        for place, value in enumerate(quality):
            if chance.random() < value**3:
                click = Interaction(event_id=f"taught-{number}-{place}", user_id=slate.user_id, item_id=names[place], type="click")
                click.ranking_id = slate.ranking_id
                click.occur_time.FromDatetime(shown + timedelta(seconds=30 + place))
                made.append(Record(interaction=click))
    return made


def test_imported_history_teaches_a_model_that_serves(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "taught.jsonl"
    file.write_bytes(lines_of(taught(300)))
    imported(up, tmp_path, str(file))
    wait_folded(up.ready["server"])
    told = tmp_path / "training.json"
    done = subprocess.run(
        command("train", "--num-boost-round", "60", "--json", str(told)),
        env=environment(RANKLOOP_MONGO_URI=up.ready["mongo_uri"], RANKLOOP_TRAINER_NUM_THREADS="1"),
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(told.read_text())
    # Other tests of this stack record slates of their own.
    assert report["counts"]["slates_replayed"] >= 300
    assert report["promoted"], report["decision"]
    assert report["top_features"][0]["feature"] == "quality"
    # What was replayed are the deployment's own features, so the rankers can serve what was learned from them.
    names = ["plain", "fine", "finest"]
    candidates = [Candidate(item_id=name, features={"quality": 0.1 + 0.4 * place}) for place, name in enumerate(names)]
    deadline = time.monotonic() + 60
    while not (answer := ask(up.ready["server"], RankingServiceStub, "Rank", RankRequest(candidates=candidates))).ml_ranking_applied:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (answer.model_version, [item.item_id for item in answer.items]) == (report["model_version"], names[::-1])
