"""Starts that cannot work: one sentence that says what to do, exit code 1, and nothing left behind."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, rankloop

NOBODY_LISTENS = "mongodb://127.0.0.1:1/?replicaSet=rs0&serverSelectionTimeoutMS=300"


def refusal(*arguments: str, seconds: float = 90, cwd: Path | None = None, **variables: str) -> str:
    """What a command says that cannot start: one line, and not on standard output."""
    done = rankloop(*arguments, variables=variables, seconds=seconds, cwd=cwd)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"rankloop {arguments[0]}: ")
    return done.stderr


def up(folder: Path) -> list[str]:
    return ["up", "--data-dir", str(folder / "data"), "--port", "0", "--ready-file", str(folder / "ready.json")]


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = str(squatter.getsockname()[1])
        said = refusal(*up(tmp_path)[:-4], "--port", port)
    assert f"the port 127.0.0.1:{port} cannot be opened; is it in use? Choose another with --port" in said


def test_a_port_in_use_of_one_process(stack: Stack) -> None:
    taken = stack.address.rpartition(":")[2]
    said = refusal("server", "--port", taken, "--metrics-port", "0", RANKLOOP_MONGO_URI=stack.mongo_uri)
    assert f"127.0.0.1:{taken} cannot be opened; is it in use? Choose another with --port" in said
    metrics = stack.ready["metrics"]["server"].rpartition(":")[2].partition("/")[0]
    said = refusal("collector", "--port", "0", "--metrics-port", metrics, RANKLOOP_MONGO_URI=stack.mongo_uri)
    assert f"the metrics port 127.0.0.1:{metrics} cannot be opened" in said
    assert "--metrics-port" in said


@pytest.mark.parametrize("mongod", ["/nonexistent/mongod", "/etc/passwd"])
def test_a_missing_mongod(tmp_path: Path, mongod: str) -> None:
    said = refusal(*up(tmp_path), RANKLOOP_MONGOD=mongod)
    assert f"RANKLOOP_MONGOD: {mongod} is not a program that can be run; name a mongod, or unset it" in said
    assert not (tmp_path / "ready.json").exists()


def test_a_mongod_that_is_none(tmp_path: Path) -> None:
    said = refusal(*up(tmp_path), RANKLOOP_MONGOD="/bin/false")
    assert "mongod ended at once with exit code 1" in said


def test_a_data_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    said = refusal(*up(tmp_path))
    assert f"the data directory {tmp_path / 'data'} cannot be written (" in said
    assert "choose another with --data-dir" in said
    assert (tmp_path / "data").read_text() == "in the way"


@pytest.mark.parametrize("place", ["/proc/rankloop", "/dev/null/data"])
def test_a_data_dir_that_cannot_be_made(place: str) -> None:
    assert f"the data directory {place} cannot be written (" in refusal("up", "--data-dir", place, "--port", "0")


def test_a_ready_file_that_cannot_be_written(tmp_path: Path) -> None:
    said = refusal("up", "--data-dir", str(tmp_path / "data"), "--port", "0", "--ready-file", str(tmp_path / "no" / "ready.json"))
    assert "the ready file" in said
    assert "--ready-file" in said


@pytest.mark.parametrize("command", [["up"], ["server"], ["train"]])
def test_a_database_that_does_not_answer(tmp_path: Path, command: list[str]) -> None:
    said = refusal(*command, cwd=tmp_path, RANKLOOP_MONGO_URI=NOBODY_LISTENS, RANKLOOP_MONGO_SERVER_SELECTION_TIMEOUT_SECONDS="0.5")
    assert "no MongoDB answers at " in said
    assert said.endswith("; start it, or correct RANKLOOP_MONGO_URI\n")


@pytest.mark.parametrize("uri", ["http://localhost", "mongodb://user:secret@host:nan/"])
def test_a_uri_that_is_none(tmp_path: Path, uri: str) -> None:
    said = refusal("up", cwd=tmp_path, RANKLOOP_MONGO_URI=uri)
    assert "mongo.uri is not a MongoDB URI" in said
    assert "mongodb://host:27017/?replicaSet=rs0" in said
    assert "secret" not in said


def test_a_process_without_a_database(tmp_path: Path) -> None:
    assert "set RANKLOOP_MONGO_URI (or mongo.uri in rankloop.toml), or use `rankloop up`" in refusal("server", cwd=tmp_path)


def test_an_unknown_setting(tmp_path: Path) -> None:
    (tmp_path / "rankloop.toml").write_text("[server]\nprot = 50051\n")
    said = refusal(*up(tmp_path), cwd=tmp_path)
    assert "server.prot: there is no such setting; did you mean server.port?" in said
    (tmp_path / "rankloop.toml").unlink()
    said = refusal(*up(tmp_path), cwd=tmp_path, RANKLOOP_SERVER_PROT="1")
    assert "RANKLOOP_SERVER_PROT: there is no such setting; did you mean RANKLOOP_SERVER_PORT?" in said


def test_a_setting_out_of_bounds(tmp_path: Path) -> None:
    said = refusal(*up(tmp_path), cwd=tmp_path, RANKLOOP_RANKER_MMR_LAMBDA="1.5")
    assert "RANKLOOP_RANKER_MMR_LAMBDA should be less than or equal to 1, not '1.5'" in said


def test_the_open_network_without_authentication(stack: Stack) -> None:
    said = refusal("server", "--host", "0.0.0.0", "--port", "0", RANKLOOP_MONGO_URI=stack.mongo_uri)
    assert "there is no authentication" in said
    assert "allow_unauthenticated = true" in said


def test_a_second_one_on_the_same_data(stack: Stack) -> None:
    before = json.loads(stack.ready_file.read_text())
    said = refusal("up", "--data-dir", str(stack.data_dir), "--port", "0", "--ready-file", str(stack.ready_file))
    assert f"is held by process {stack.pid('up')} (" in said
    assert json.loads(stack.ready_file.read_text()) == before, "the first one's file is its own"
