"""A page of the documentation that is generated: written, or compared with the one that is there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"


def keep(name: str, make: Callable[[], str], arguments: Sequence[str], *, script: str) -> int:
    """Writes `docs/reference/<name>`, or with `--check` says whether it is what `script` would write. Returns the exit code."""
    page = REFERENCE / name
    if list(arguments) not in ([], ["--check"]):
        print(f"usage: python scripts/{script} [--check]", file=sys.stderr)
        return 2
    text = make()
    if not arguments:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)
        return 0
    if not page.exists() or page.read_text() != text:
        print(f"{page.relative_to(ROOT)} is stale: run python scripts/{script}", file=sys.stderr)
        return 1
    return 0


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; `|` and line ends in a cell are made harmless."""
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join('---' for _ in header)} |"]
    return [*lines, *(f"| {' | '.join(cell(one) for one in row)} |" for row in rows)]


def cell(text: str) -> str:
    """Text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")
