"""The tables and the picture that the benchmarks of ranking write."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import latency_page
from benchmarks.rank import Measured, Timing
from benchmarks.reload import Reload, Span


def timing(name: str, p50: float, p99: float = 9.0, *, callers: int = 1, per_second: float = 100.0, candidates: int = 100) -> Timing:
    return Timing(name, candidates, callers, 1000, per_second, p50, p99)


MEASURED = Measured(
    timings=[
        timing("predict", 2.0),
        timing("scorer", 0.4),
        timing("rank", 1.5, 4.0),
        timing("rank_matrix", 1.8),
        timing("rank", 9.0, callers=8, per_second=800.0),
        timing("mlserver", 3.0),
        timing("mlserver", 20.0, callers=8, per_second=320.0),
        *(timing(name, 1.0, candidates=10) for name in ("predict", "scorer", "rank")),
    ],
    profile={"caller to server": 0.5, "score": 0.4, "explain": 0.0, "encode": 0.1},
    processor={"server": 0.7, "ranker": 1.25},
    scorer="forest",
)


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_budgets_stand_beside_what_they_are_measured_against() -> None:
    rows = {row[0]: row for row in cells(latency_page.budget_table(MEASURED))}
    assert rows["forest scorer, p50"][2] == f"0.40 ms, {0.4 / 2.0:.2f} ×"
    assert rows["`Rank`, one caller, p50"][2] == f"1.50 ms, {1.5 / 2.0:.2f} ×"
    assert rows["`Rank`, one caller, p99"][2] == f"4.00 ms, {4.0 / 2.0:.2f} ×"
    assert rows["`Rank`, 8 callers"][2] == f"800 a second, {800 / 320:.2f} ×"
    assert [row[0] for row in cells(latency_page.size_table(MEASURED))[2:]] == ["10", "100"]


def test_the_parts_add_up_and_what_takes_no_time_is_left_out() -> None:
    rows = cells(latency_page.profile_table(MEASURED))
    assert [row[0] for row in rows[2:]] == ["caller to server", "score", "encode", "together"]
    assert rows[-1][1] == f"{0.5 + 0.4 + 0.1:.3f}"


def test_the_picture_shows_every_part_as_wide_as_it_is_long() -> None:
    drawn = ElementTree.fromstring(latency_page.picture(MEASURED.profile, MEASURED.timing("predict")))
    widths = {rect[0].text: float(rect.get("width", "0")) for rect in drawn.iter("{http://www.w3.org/2000/svg}rect") if len(rect)}
    assert list(widths) == ["caller to server: 0.500 ms", "score: 0.400 ms", "encode: 0.100 ms"]
    first, second, third = widths.values()
    assert first == pytest.approx(5 * third, abs=0.3)
    assert second == pytest.approx(4 * third, abs=0.3)


def test_a_swap_is_held_against_the_minute_before() -> None:
    spans = [Span(name, 10, 0, 5.0, 1.0, p99) for name, p99 in (("without", 2.0), ("with", 3.0), ("around", 5.0))]
    rows = cells(latency_page.reload_table(Reload(4, *spans, swap_seconds=1.0)).partition("\n\n")[0])
    assert [row[-1] for row in rows[2:]] == ["2.00", "3.00, 1.50 ×", "5.00, 2.50 ×"]


def test_sections_are_written_between_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("README", "EXPLANATION", "PICTURE"):
        page: Path = getattr(latency_page, name)
        copy = tmp_path / page.name
        copy.write_text(page.read_text())
        monkeypatch.setattr(latency_page, name, copy)
    before = latency_page.README.read_text()
    latency_page.write_rank(MEASURED, quiet=True)
    once = latency_page.README.read_text()
    assert "| forest scorer, p50 | ≤ 1/4 | 0.40 ms" in once
    assert once.startswith(before.partition("<!-- rank: measured -->")[0])
    latency_page.write_rank(MEASURED, quiet=True)
    assert latency_page.README.read_text() == once
    latency_page.README.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        latency_page.write_rank(MEASURED, quiet=True)
