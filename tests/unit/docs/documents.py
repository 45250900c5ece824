"""The documentation as tests see it: pages, links, and blocks with the comment that says what to do with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
RUN_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
"""Pages whose blocks are run, in the order in which a newcomer meets them."""

KINDS = ("run", "run, fails", "file", "background", "the stack", "not run")
_BLOCK = re.compile(r"(?:^<!-- (?P<comment>[^\n]+?) -->\n)?^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTS = re.compile(r"\A\n+(?:[^\n`]+ )?[Ii]t prints `([^`]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    comment: str
    text: str
    prints: str
    """What the sentence below says that it prints; empty: nothing."""

    @property
    def kind(self) -> str:
        """One of KINDS; empty without a comment."""
        return self.comment.partition(":")[0].strip()

    @property
    def argument(self) -> str:
        """What follows the colon of the comment."""
        return self.comment.partition(":")[2].strip()

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        prints = _PRINTS.match(text[match.end() :])
        line = text.count("\n", 0, match.start()) + 1
        comment = match["comment"] or ""
        found.append(Block(page, line, match["language"], comment, match["text"], prints[1] if prints else ""))
    return found


def without_blocks(page: Path) -> str:
    """A page's prose."""
    return _BLOCK.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made of them everywhere."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower()).replace(" ", "-") for heading in headings}


def rankloop_calls(text: str) -> Iterator[list[str]]:
    """The words after `rankloop` of every such command in a block, whatever stands before it."""
    for line in text.replace("\\\n", " ").splitlines():
        if not re.search(r"(^|[ /=])rankloop ", line):
            continue
        for command in re.split(r" \| | && |; ", line):
            words = shlex.split(command.removeprefix("ExecStart="), comments=True)
            places = [place for place, word in enumerate(words) if word.rpartition("/")[2] == "rankloop"]
            if places:
                yield words[places[0] + 1 :]
