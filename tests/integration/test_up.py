"""`rankloop up` with real processes and real signals."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from rankloop.v1.catalog_pb2 import GetItemRequest, Item, UpsertItemsRequest
from rankloop.v1.catalog_pb2_grpc import CatalogServiceStub
from rankloop.v1.ranking_pb2 import Candidate, RankRequest, RankResponse
from rankloop.v1.ranking_pb2_grpc import RankingServiceStub
from rankloop.v1.stats_pb2 import GetOverviewRequest
from rankloop.v1.stats_pb2_grpc import StatsServiceStub
from tests.integration.stacks import Up, ask, rankloop, running, wait_gone

NAMES = ["ranker", "collector", "server"]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack that tests share; each leaves it answering."""
    with running(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def upsert(server: str, item_id: str) -> None:
    """Stores an item."""
    ask(server, CatalogServiceStub, "UpsertItems", UpsertItemsRequest(items=[Item(item_id=item_id)]))


def has_item(server: str, item_id: str) -> bool:
    """Whether there is such an item."""
    try:
        ask(server, CatalogServiceStub, "GetItem", GetItemRequest(item_id=item_id))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


def rank(server: str) -> RankResponse:
    """Ranks two candidates, the second with the better prior."""
    candidates = [Candidate(item_id="a", prior_score=0.1), Candidate(item_id="b", prior_score=0.9)]
    ranked: RankResponse = ask(server, RankingServiceStub, "Rank", RankRequest(user_id="u", candidates=candidates))
    return ranked


def wait_ranked(server: str, reason: str, seconds: float = 60) -> None:
    """Waits until rankings come back with this reason for having no model."""
    deadline = time.monotonic() + seconds
    while (found := rank(server).fallback_reason) != reason:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def wait_answers(server: str, seconds: float = 60) -> None:
    """Waits until the server answers from its database."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask(server, StatsServiceStub, "GetOverview", GetOverviewRequest())
            return
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_ready_file_has_every_address_and_process(up: Up) -> None:
    ready = up.ready
    assert sorted(ready) == ["console", "metrics", "mongo_uri", "pids", "server"]
    assert ready["console"] is None
    assert sorted(ready["metrics"]) == sorted(NAMES)
    assert sorted(ready["pids"]) == sorted([*NAMES, "mongod", "up"])
    assert ready["mongo_uri"].startswith("mongodb://127.0.0.1:")
    for name, address in ready["metrics"].items():
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert "grpc_server_started_total" in answer.read().decode(), name


def test_rankings_go_on_without_the_ranker_and_it_comes_back(up: Up) -> None:
    before = up.ready
    wait_ranked(before["server"], "NO_MODEL")  # the ranker's own answer; without a ranker there would be another
    os.kill(before["pids"]["ranker"], signal.SIGKILL)
    assert rank(before["server"]).items[0].item_id == "b"
    up.wait_restarted("ranker", before["pids"]["ranker"])
    wait_ranked(before["server"], "NO_MODEL")


@pytest.mark.parametrize("name", [*NAMES, "mongod"])
def test_what_is_killed_comes_back_with_its_address_and_all_data(up: Up, name: str) -> None:
    before = up.ready
    upsert(before["server"], f"before-{name}")
    os.kill(before["pids"][name], signal.SIGKILL)
    up.wait_restarted(name, before["pids"][name])
    after = up.ready
    assert {**after, "pids": None} == {**before, "pids": None}
    assert {other for other in after["pids"] if after["pids"][other] != before["pids"][other]} == {name}
    wait_answers(after["server"])
    assert has_item(after["server"], f"before-{name}")
    assert not has_item(after["server"], "never sent")
    if name != "mongod":
        assert f"the {name} ended by signal 9" in up.said


def test_a_second_one_on_the_same_data_is_told_who_holds_it(up: Up) -> None:
    done = rankloop("up", "--data-dir", str(up.data_dir), "--port", "0", "--ready-file", str(up.ready_file))
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"is held by process {up.child.pid} (" in done.stderr
    assert "stop that one, or choose another with --data-dir" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert up.ready_file.exists(), "the ready file of the first one is its own"


def test_a_port_in_use_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        done = rankloop("up", "--data-dir", str(tmp_path / "data"), "--port", str(port))
    assert done.returncode == 1
    sentences = done.stderr.splitlines()
    assert len(sentences) == 1
    assert f"the port 127.0.0.1:{port} cannot be opened; is it in use? Choose another with --port" in sentences[0]


def test_a_stop_is_clean_and_leaves_nothing_running(tmp_path: Path) -> None:
    config = tmp_path / "rankloop.toml"
    config.write_text("[trainer]\nfollow = true\n")
    up = Up(tmp_path, "--rankers", "2", "--config", str(config))
    pids = up.wait_ready()["pids"]
    assert {"ranker-2", "trainer"} <= set(pids)
    with urllib.request.urlopen(up.ready["metrics"]["trainer"], timeout=10) as answer:
        assert 'rankloop_trainer_runs_total{result="failed",trigger="request"} 0.0' in answer.read().decode()
    os.kill(pids["trainer"], signal.SIGKILL)
    pids["trainer"] = up.wait_restarted("trainer", pids["trainer"])
    assert up.stop() == 0
    wait_gone(pids)
    assert not up.ready_file.exists()
    for name in [*NAMES, "ranker-2", "trainer"]:
        assert "stopped" in (up.data_dir / "logs" / f"{name}.log").read_text().splitlines()[-1], name
    assert '"Shutting down","attr":{"exitCode":0}' in (up.data_dir / "mongo" / "mongod.log").read_text()


def test_a_stop_during_the_start_leaves_nothing_running(tmp_path: Path) -> None:
    up = Up(tmp_path)
    deadline = time.monotonic() + 60
    while not (up.data_dir / "mongo" / "mongod.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert up.stop() == 0
    assert not up.ready_file.exists()
    assert rankloop("up", "--data-dir", str(up.data_dir), "--port", "70000").returncode == 2
    with running(tmp_path) as again:
        wait_answers(again.ready["server"])


def test_all_end_with_a_supervisor_that_is_killed_and_the_data_stay(tmp_path: Path) -> None:
    up = Up(tmp_path)
    try:
        ready = up.wait_ready()
        upsert(ready["server"], "acknowledged")
        os.kill(up.child.pid, signal.SIGKILL)
        wait_gone(ready["pids"])
    finally:
        up.stop()
    up.ready_file.unlink()
    with running(tmp_path) as again:
        assert has_item(again.ready["server"], "acknowledged")
