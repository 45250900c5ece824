"""The configuration: what wins, and what is said about faults."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from runtime.errors import Misconfigured
from scripts.config import toml
from scripts.configuration import Configuration, fields, load, masked_uri


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file with two settings."""
    path = tmp_path / "rankloop.toml"
    path.write_text('[server]\nport = 6001\n\n[mongo]\ndatabase = "shop"\n')
    return path


def faults(text: str, env: dict[str, str], path: Path) -> list[str]:
    """What is said about a file and variables, a sentence each."""
    path.write_text(text)
    with pytest.raises(Misconfigured) as raised:
        load(path, env)
    return raised.value.message.splitlines()


def test_defaults_then_the_file_then_variables(file: Path) -> None:
    loaded = load(file, {"RANKLOOP_SERVER_PORT": "6002"})
    assert (loaded.server.port, loaded.mongo.database, loaded.log.level) == (6002, "shop", "info")


def test_the_file_is_named_by_a_variable_or_lies_in_the_working_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(None, {"RANKLOOP_CONFIG": str(file)}).server.port == 6001
    monkeypatch.chdir(file.parent)
    assert load(None, {}).server.port == 6001
    file.unlink()
    assert load(None, {}) == Configuration()


def test_every_field_has_one_variable() -> None:
    variables = ["_".join(path).upper() for path in fields()]
    assert len(set(variables)) == len(variables)
    assert "MONGO_URI" in variables


def test_lists_and_tables_in_variables() -> None:
    env = {"RANKLOOP_SERVER_RANKERS": "a:1, b:2", "RANKLOOP_LABELS_TYPES": '{"bookmark": {"label": 0.7, "acts": true}}'}
    loaded = load(None, env)
    assert loaded.server.rankers == ("a:1", "b:2")
    assert loaded.labels.types["bookmark"].label == 0.7
    assert load(None, {"RANKLOOP_SERVER_RANKERS": '["c:3"]'}).server.rankers == ("c:3",)


def test_addresses_of_workers_may_be_a_range_of_ports() -> None:
    listed = "10.0.0.5:50052-50054, ranker.internal:7, 10.0.0.5:50054, [::1]:9"
    assert load(None, {"RANKLOOP_SERVER_RANKERS": listed}).server.rankers == (
        "10.0.0.5:50052",
        "10.0.0.5:50053",
        "10.0.0.5:50054",
        "ranker.internal:7",
        "[::1]:9",
    )


@pytest.mark.parametrize("address", ["10.0.0.5", "a:", ":1", "a:b", "a:0", "a:65536", "a:5-", "a:5-4", "a:-5", "a:1-60000", "http://a:x"])
def test_what_is_no_address_is_told(address: str, tmp_path: Path) -> None:
    (sentence,) = faults("", {"RANKLOOP_SERVER_RANKERS": address}, tmp_path / "rankloop.toml")
    assert "server.rankers" in sentence or "RANKLOOP_SERVER_RANKERS" in sentence
    assert "expected host:port" in sentence


def test_the_mongod_to_embed_has_a_short_variable() -> None:
    assert load(None, {"RANKLOOP_MONGOD": "/opt/mongod"}).embedded.mongod == Path("/opt/mongod")


def test_an_unknown_key_is_told_the_nearest(tmp_path: Path) -> None:
    said = faults("[server]\nprot = 1\n[serverr]\nport = 1\n[log]\nzebra = 1\n", {}, tmp_path / "r.toml")
    assert sorted(line.partition("r.toml: ")[2] for line in said) == [
        "log.zebra: there is no such setting; `rankloop config` lists them all",
        "server.prot: there is no such setting; did you mean server.port?",
        "serverr: there is no such setting; did you mean server?",
    ]


def test_an_unknown_variable_is_told_the_nearest(tmp_path: Path) -> None:
    assert faults("", {"RANKLOOP_MONGO_URL": "x"}, tmp_path / "r.toml") == [
        "RANKLOOP_MONGO_URL: there is no such setting; did you mean RANKLOOP_MONGO_URI?"
    ]
    assert faults("", {"RANKLOOP_ZEBRA": "x"}, tmp_path / "r.toml") == [
        "RANKLOOP_ZEBRA: there is no such setting; `rankloop config` lists them all"
    ]


def test_what_kubernetes_says_of_a_service_is_no_setting() -> None:
    env = {
        "RANKLOOP_SERVER_PORT": "tcp://10.0.0.1:50051",
        "RANKLOOP_SERVER_SERVICE_HOST": "10.0.0.1",
        "RANKLOOP_SERVER_SERVICE_PORT_GRPC": "50051",
        "RANKLOOP_SERVER_PORT_50051_TCP_ADDR": "10.0.0.1",
        "RANKLOOP_PORT": "tcp://10.0.0.2:80",
        "RANKLOOP_PORT_80_TCP": "tcp://10.0.0.2:80",
    }
    assert load(None, env) == Configuration()


def test_a_bad_value_is_named_with_its_place_and_what_was_expected(tmp_path: Path) -> None:
    env = {"RANKLOOP_RANKER_MMR_LAMBDA": "2", "RANKLOOP_LABELS_TYPES": '{"x": {"label": 3, "acts": true}}'}
    said = faults('[server]\nport = "many"\n[log]\nlevel = "loud"\n', env, tmp_path / "r.toml")
    assert sorted(line.removeprefix(f"{tmp_path}/") for line in said) == [
        "RANKLOOP_LABELS_TYPES.x.label should be less than or equal to 1, not '3'",
        "RANKLOOP_RANKER_MMR_LAMBDA should be less than or equal to 1, not '2'",
        "r.toml: log.level should be 'debug', 'info', 'warning' or 'error', not 'loud'",
        "r.toml: server.port should be a valid integer, unable to parse string as an integer, not 'many'",
    ]


def test_a_password_is_not_repeated_in_an_error(tmp_path: Path) -> None:
    said = faults("", {"RANKLOOP_MONGO_DATABASE": "mongodb://u:secret@h/"}, tmp_path / "r.toml")
    assert "secret" not in said[0]
    assert masked_uri("mongodb+srv://u:se:cr@host/?x=1") == "mongodb+srv://u:…@host/?x=1"
    assert masked_uri("mongodb://127.0.0.1:1/") == "mongodb://127.0.0.1:1/"


@pytest.mark.parametrize("text", ["[server", "port = \n", "\xff"])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Misconfigured, match=r"r\.toml is not TOML"):
        load(path, {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"cannot be read .*--config"):
        load(tmp_path / "nowhere.toml", {})


def test_a_file_with_a_value_where_a_table_belongs(tmp_path: Path) -> None:
    said = faults("server = 3\n", {"RANKLOOP_SERVER_PORT": "1"}, tmp_path / "r.toml")
    assert "server should be" in said[0]


def test_what_config_prints_is_a_configuration_of_the_same_meaning(tmp_path: Path) -> None:
    env = {"RANKLOOP_SERVER_RANKERS": "a:1", "RANKLOOP_LABELS_TYPES": '{"bookmark": {"label": 0.7, "acts": true}}'}
    loaded = load(None, env)
    printed = tmp_path / "printed.toml"
    printed.write_text("\n".join(toml(loaded)))
    assert load(printed, {}) == loaded


def test_what_config_prints_says_what_everything_means() -> None:
    lines = list(toml(Configuration()))
    settings = [number for number, line in enumerate(lines) if (" = " in line and not line.startswith("# RANKLOOP")) or line.endswith(" =")]
    assert len(settings) == len(list(fields()))
    for number in settings:
        assert lines[number - 1].startswith("# RANKLOOP_"), lines[number]
        assert lines[number - 2].startswith("# "), lines[number]
    tomllib.loads("\n".join(lines))


def test_config_masks_the_password(tmp_path: Path) -> None:
    loaded = load(None, {"RANKLOOP_MONGO_URI": "mongodb://u:secret@h/"})
    assert "secret" not in "\n".join(toml(loaded))
    assert json.dumps("mongodb://u:…@h/", ensure_ascii=False) in "\n".join(toml(loaded))
