"""What the demo's children are told, and what is repeated of what they say."""

from pathlib import Path

import pytest

from scripts.simulation.failure import Failed, check_writable
from scripts.simulation.stack import environment, last_words


def test_the_callers_own_database_and_configuration_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLOOP_MONGO_URI", "mongodb://production")
    monkeypatch.setenv("RANKLOOP_MONGO_DATABASE", "production")
    monkeypatch.setenv("RANKLOOP_CONFIG", "/etc/rankloop.toml")
    monkeypatch.setenv("RANKLOOP_MONGOD", "/opt/mongod")
    told = environment(tmp_path)
    assert not [name for name in told if name.startswith("RANKLOOP_MONGO_")]
    assert Path(told["RANKLOOP_CONFIG"]).read_text() == ""
    assert told["RANKLOOP_MONGOD"] == "/opt/mongod"
    assert environment(tmp_path, RANKLOOP_MONGO_URI="mongodb://demo")["RANKLOOP_MONGO_URI"] == "mongodb://demo"


def test_the_last_line_of_a_child_is_repeated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(log) == "it said nothing"
    log.write_text("first\nrankloop up: port 50051 is taken\n\n")
    assert last_words(log) == "rankloop up: port 50051 is taken"


def test_a_file_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.json", "--report")
    for bad in (tmp_path, tmp_path / "missing" / "new.json"):
        with pytest.raises(Failed, match="name another file with --report"):
            check_writable(bad, "--report")
