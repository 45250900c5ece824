"""README, tutorials and how-to guides do what they say: their blocks are run, page by page, against a real stack.

What a comment above a block means stands in CONTRIBUTING.md. Nothing of a block is changed but its ports, which are the stack's or free
ones, so that tests may run beside whatever listens on the usual ones.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.child import Child
from tests.e2e.stack import Stack, environment, running
from tests.unit.docs.documents import ROOT, RUN_PAGES, Block, blocks

USUAL_PORT = "50051"
PORTS = re.compile(r"\b(5005\d|910\d)\b")
BLOCK_SECONDS = 180.0


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack that all pages use, one after the other."""
    with running(tmp_path_factory.mktemp("documented")) as stack:
        yield stack


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page: Path, up: Stack, tmp_path: Path) -> None:
    reader = Reader(up, blocks(page), tmp_path)
    try:
        for block in reader.blocks:
            reader.follow(block)
    finally:
        reader.close()


class Reader:
    """Somebody who does what a page says, in a directory of the page's own and one shell."""

    def __init__(self, up: Stack, page_blocks: list[Block], folder: Path) -> None:
        self.blocks = page_blocks
        self._folder = folder / "page"
        self._folder.mkdir()
        shutil.copyfile(up.ready_file, self._folder / "stack.json")
        self._kept_environment = folder / "environment"
        self._output = folder / "background.log"
        self._background: list[Child] = []
        # A page that runs a server of its own speaks to that one.
        starts_server = any(block.kind == "background" and "rankloop server" in block.text for block in page_blocks)
        self._ports = {} if starts_server else {USUAL_PORT: up.address.rpartition(":")[2]}
        self._environment = environment(
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            RANKLOOP_ADDRESS=f"127.0.0.1:{self._port(USUAL_PORT)}",
            XDG_CACHE_HOME=str(folder / "cache"),
        )

    def follow(self, block: Block) -> None:
        """Does what a block says."""
        text = PORTS.sub(lambda port: self._port(port[1]), block.text)
        if block.kind == "file":
            (self._folder / block.argument).write_text(text)
        elif block.kind == "background":
            self._start(block, text)
        elif block.kind in ("run", "run, fails"):
            done = self._run(block, text)
            said = f"{block.place}\n{done.stdout}\n{done.stderr}"
            assert (done.returncode == 0) is (block.kind == "run"), said
            assert block.prints in done.stdout, said
            if block.kind == "run, fails":
                assert "Traceback" not in done.stderr, said

    def close(self) -> None:
        """Stops what runs in the background, the last one first."""
        codes = [asyncio.run(child.stop(grace_seconds=30)) for child in reversed(self._background)]
        assert not any(codes), self._output.read_text()

    def _run(self, block: Block, text: str) -> subprocess.CompletedProcess[str]:
        if block.language == "python":
            command = [sys.executable, "-c", text]
        else:
            # What a block exports holds for those after it.
            command = ["bash", "-euo", "pipefail", "-c", f"{text}\nenv -0 > '{self._kept_environment}'"]
        done = subprocess.run(
            command,
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BLOCK_SECONDS,
        )
        if self._kept_environment.exists():
            pairs = self._kept_environment.read_text().rstrip("\0").split("\0")
            self._environment = dict(pair.split("=", 1) for pair in pairs)
        return done

    def _start(self, block: Block, text: str) -> None:
        ready = self._folder / block.argument
        command = ["bash", "-c", f"cd '{self._folder}' && exec {text.strip()}"]
        child = Child.start(command, output=self._output, environment=self._environment)
        self._background.append(child)
        deadline = time.monotonic() + BLOCK_SECONDS
        while not ready.exists():
            assert child.exit_code is None, f"{block.place}\n{self._output.read_text()}"
            assert time.monotonic() < deadline, block.place
            time.sleep(0.05)

    def _port(self, usual: str) -> str:
        if usual not in self._ports:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._ports[usual] = str(free.getsockname()[1])
        return self._ports[usual]
