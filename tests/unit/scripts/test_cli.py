"""The command line: help, examples, exit codes, and no traceback for what a person can mend."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import Misconfigured, Unavailable
from scripts.cli import COMMANDS, first_failure, load


def rankloop(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a person would."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RANKLOOP_")}
    environment = {**kept, "COLUMNS": "200", "TERM": "dumb", **variables}
    return subprocess.run(
        [sys.executable, "-m", "scripts.cli", *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_names_every_command_and_loads_none(tmp_path: Path) -> None:
    code = "import sys, scripts.cli as c; sys.argv = ['rankloop', '--help']\ntry: c.main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('grpc', 'numpy', 'lightgbm', 'pymongo', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "200"})
    assert done.stdout.splitlines()[-1] == "[]"
    for name, entry in COMMANDS.items():
        assert re.search(rf"{name} +{re.escape(entry.summary)}", done.stdout), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_parse(name: str) -> None:
    loaded = load(name)
    commands = {name: loaded} if not hasattr(loaded, "commands") else {f"{name} {one}": loaded.commands[one] for one in loaded.commands}
    for full_name, command in commands.items():
        assert "Examples:" in command.help, full_name
        examples = [line.strip() for line in command.help.partition("Examples:")[2].splitlines() if "rankloop " in line]
        assert examples, full_name
        for example in examples:
            words = shlex.split(re.split(r"(?:^|\s)rankloop ", re.split(r" > |  +\(", example)[0])[1])
            assert " ".join(words).startswith(full_name), example
            command.make_context(full_name, words[len(full_name.split()) :], resilient_parsing=False).close()


def test_the_version_is_that_of_the_distribution(tmp_path: Path) -> None:
    done = rankloop("--version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"rankloop \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["imporrt"], "Did you mean 'import'"),
        (["import"], "Missing argument"),
        (["up", "--port", "70000"], "less than or equal to 65535"),
        (["import", "--policy", "x", "file"], "--format open-bandit"),
        (["models", "promote"], "Missing argument"),
    ],
)
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = rankloop(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (
            ["config"],
            {"RANKLOOP_SERVER_PROT": "1"},
            "rankloop config: RANKLOOP_SERVER_PROT: there is no such setting; did you mean RANKLOOP_SERVER_PORT?",
        ),
        (["config", "--config", "no.toml"], {}, "rankloop config: the configuration file no.toml cannot be read"),
        (["server", "--port", "0"], {}, "rankloop server: no MongoDB: set RANKLOOP_MONGO_URI"),
        (
            ["collector"],
            {"RANKLOOP_MONGO_URI": "nonsense", "RANKLOOP_MONGO_SERVER_SELECTION_TIMEOUT_SECONDS": "0.5"},
            "rankloop collector: no MongoDB answers at nonsense; start it, or correct RANKLOOP_MONGO_URI",
        ),
        (["server", "--ranker", "nonsense"], {}, "rankloop server: --ranker nonsense: expected host:port"),
        (["up", "--data-dir", "/proc/nowhere"], {}, "rankloop up: the data directory /proc/nowhere cannot be written"),
        (["up", "--data-dir", "data"], {"RANKLOOP_MONGOD": "/no/mongod"}, "rankloop up: RANKLOOP_MONGOD: /no/mongod is not a program"),
        (["import", "x.jsonl", "--server", "127.0.0.1:1"], {}, "rankloop import: no server answers at 127.0.0.1:1; start one"),
        (["models", "list", "--server", "127.0.0.1:1"], {}, "rankloop models: no server answers at 127.0.0.1:1; start one"),
        (["models", "import", "no.txt", "--features", "no.json"], {}, "rankloop models: no.txt cannot be read: No such file"),
    ],
)
def test_what_a_person_can_mend_is_a_sentence_and_1(tmp_path: Path, arguments: list[str], variables: dict[str, str], said: str) -> None:
    done = rankloop(*arguments, cwd=tmp_path, **variables)
    sentences = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 1
    assert len(sentences) == 1
    assert said in sentences[0]


def test_a_failure_is_found_in_groups() -> None:
    wrong = Misconfigured("wrong")
    assert first_failure(ExceptionGroup("", [ExceptionGroup("", [wrong]), Unavailable("away")])) is wrong
    assert first_failure(ExceptionGroup("", [wrong, ValueError()])) is None
    assert first_failure(ValueError()) is None
