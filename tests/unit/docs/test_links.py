"""Links of the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.docs.documents import PAGES, ROOT, anchors, without_blocks

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


def links(page: Path) -> list[str]:
    """What a page links to, inside this repository."""
    found = [one or other for one, other in LINK.findall(without_blocks(page))]
    return [link for link in found if not link.startswith(("http://", "https://"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if not link.startswith("#")]
    assert not {str(page.relative_to(ROOT)) for page in PAGES if page not in reached}


def test_anchors_are_made_as_on_the_forges(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What to do when …\n\n## `rankloop up`\n\n```text\n# no heading\n```\n\n### 6. Watch it, serve\n")
    assert anchors(page) == {"what-to-do-when-", "rankloop-up", "6-watch-it-serve"}
