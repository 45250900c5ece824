"""Blocks of the documentation: each says what tests do with it, and those that cannot be run are right as far as reading can tell."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from scripts.cli import COMMANDS, load
from scripts.configuration import Configuration
from tests.unit.docs import yaml_subset
from tests.unit.docs.documents import KINDS, ROOT, RUN_PAGES, Block, blocks, rankloop_calls

JUDGED = {"bash", "python", "toml", "yaml", "ini", "crontab"}
ALL = [block for page in RUN_PAGES for block in blocks(page)]


def ids(block: Block) -> str:
    return block.place


def check_call(words: list[str]) -> None:
    """Fails for a `rankloop` command that is not there, or an option that it does not have."""
    assert words, "rankloop without a command"
    name = words[0]
    if name.startswith("-"):
        return
    assert name in COMMANDS, f"there is no command {name}"
    command: Any = load(name)
    if hasattr(command, "commands"):
        assert words[1] in command.commands, f"there is no command {name} {words[1]}"
        command = command.commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= known, f"{name} has no option {sorted(used - known)}"


def container_calls(node: Any) -> list[list[str]]:
    """Command lines of containers, anywhere in a manifest."""
    if isinstance(node, dict):
        found = [[*node.get("command", []), *node.get("args", [])]] if "image" in node else []
        return found + [call for value in node.values() for call in container_calls(value)]
    return [call for value in node for call in container_calls(value)] if isinstance(node, list) else []


@pytest.mark.parametrize("block", [block for block in ALL if block.language in JUDGED], ids=ids)
def test_every_block_says_what_tests_do_with_it(block: Block) -> None:
    assert block.kind in KINDS
    assert bool(block.argument) == (block.kind in ("file", "background", "not run"))


@pytest.mark.parametrize("block", [block for block in ALL if block.language in JUDGED - {"python", "toml"}], ids=ids)
def test_commands_and_options_are_there(block: Block) -> None:
    for words in rankloop_calls(block.text):
        check_call(words)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "yaml"], ids=ids)
def test_manifests_can_be_read_and_their_commands_are_there(block: Block) -> None:
    manifest = yaml_subset.parse(block.text)
    for command, *words in container_calls(manifest):
        assert command == "rankloop"
        check_call(words)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "toml"], ids=ids)
def test_configurations_are_valid(block: Block) -> None:
    Configuration.model_validate(tomllib.loads(block.text))


def test_make_words_are_there() -> None:
    words = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [*RUN_PAGES, ROOT / "CONTRIBUTING.md"]
    used = {word for page in pages for word in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert {"demo", "test"} <= used <= words


def test_extras_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    used = {name for page in RUN_PAGES for name in re.findall(r'"\.\[(\w+)\]"', page.read_text())}
    assert used
    assert used <= extras.keys()


def test_an_option_that_is_not_there_is_found() -> None:
    (words,) = rankloop_calls("FOO=1 /opt/bin/rankloop train --min-interaction 5 | tee log")
    assert words == ["train", "--min-interaction", "5"]
    with pytest.raises(AssertionError, match="--min-interaction"):
        check_call(words)


def test_what_the_yaml_reader_does_not_know_it_refuses(tmp_path: Path) -> None:
    assert yaml_subset.parse('a:\n  - b: 1\n    c: ["x", "y"]\n  - plain\nd: "q: r"\n') == {
        "a": [{"b": "1", "c": ["x", "y"]}, "plain"],
        "d": "q: r",
    }
    for wrong in ("a: {b: c}", "a: 1\n   b: 2", "a: 1\na: 2", "a: b: c"):
        with pytest.raises(ValueError, match=r"."):
            yaml_subset.parse(wrong)
