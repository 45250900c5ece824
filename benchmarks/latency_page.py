"""Writes what `bench rank` and `bench reload` found into the pages that tell of it, and draws where the time goes."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.rank import CALLERS, SIZES, Measured, Timing
from benchmarks.reload import Reload
from benchmarks.shop import CANDIDATES

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = ROOT / "benchmarks" / "README.md"
EXPLANATION: Final = ROOT / "docs" / "explanation" / "latency.md"
PICTURE: Final = ROOT / "docs" / "images" / "latency.svg"

COLORS: Final = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948"),
    *("#b07aa1", "#ff9da7", "#9c755f", "#bab0ac", "#86bcb6", "#d37295"),
)
SMALL_MILLISECONDS: Final = 0.005


def write_rank(measured: Measured, *, quiet: bool) -> list[Path]:
    """The tables in both pages, and the picture; returns the files."""
    _put(README, "rank", f"{budget_table(measured)}\n\n{size_table(measured)}\n\n{_circumstances(quiet)}")
    _put(EXPLANATION, "rank", f"{profile_table(measured)}\n\n{processor_table(measured)}\n\n{_circumstances(quiet)}")
    PICTURE.write_text(picture(measured.profile, measured.timing("predict")))
    return [README, EXPLANATION, PICTURE]


def write_reload(found: Reload, *, quiet: bool) -> list[Path]:
    """The table in the page of benchmarks; returns the files."""
    _put(README, "reload", f"{reload_table(found)}\n\n{_circumstances(quiet)}")
    return [README]


def budget_table(measured: Measured) -> str:
    """What was promised, and what was measured."""
    predict = _known(measured.timing("predict"))
    scorer, ranked = _known(measured.timing("scorer")), _known(measured.timing("rank"))
    matrix, many = _known(measured.timing("rank_matrix")), _known(measured.timing("rank", callers=CALLERS))
    slowest = ranked.p99_milliseconds / predict.p50_milliseconds
    plain = f"`Booster.predict`, p50 {predict.p50_milliseconds:.2f} ms"
    rows = [
        ("forest scorer, p50", "≤ 1/4", f"{_ms(scorer.p50_milliseconds)}, {_share(scorer, predict)}", plain),
        ("`Rank`, one caller, p50", "≤ 1.0 ×", f"{_ms(ranked.p50_milliseconds)}, {_share(ranked, predict)}", plain),
        (
            "`Rank`, one caller, p99",
            "≤ 2.5 ×",
            f"{_ms(ranked.p99_milliseconds)}, {slowest:.2f} ×",
            plain,
        ),
        ("`Rank` with a `feature_matrix`, p50", "", f"{_ms(matrix.p50_milliseconds)}, {_share(matrix, predict)}", plain),
        ("`Rank` with a `feature_matrix`, p99", "", _ms(matrix.p99_milliseconds), ""),
    ]
    peer, peer_alone = measured.timing("mlserver", callers=CALLERS), measured.timing("mlserver")
    beside = "MLServer was not asked (`--peer mlserver`)"
    told = f"{many.per_second:.0f} a second"
    if peer and peer_alone:
        beside = f"MLServer 1.7.1, scoring only: {peer.per_second:.0f} a second"
        told += f", {many.per_second / peer.per_second:.2f} ×"
        rows.append(("MLServer, one caller, p50", "", _ms(peer_alone.p50_milliseconds), "the same forest, over gRPC"))
    rows.insert(3, (f"`Rank`, {CALLERS} callers", "≥ 2 ×", told, beside))
    return _table(("what", "budget", "measured", "beside what"), rows)


def size_table(measured: Measured) -> str:
    """The same at other numbers of candidates."""
    rows = []
    for size in sorted((*SIZES, CANDIDATES)):
        found = [measured.timing(name, candidates=size) for name in ("predict", "scorer", "rank")]
        if all(found):
            predict, scorer, ranked = map(_known, found)
            rows.append(
                (
                    str(size),
                    f"{predict.p50_milliseconds:.2f} / {predict.p99_milliseconds:.2f}",
                    f"{scorer.p50_milliseconds:.3f} / {scorer.p99_milliseconds:.3f}",
                    f"{ranked.p50_milliseconds:.2f} / {ranked.p99_milliseconds:.2f}",
                )
            )
    return _table(("candidates", "`Booster.predict`, p50 / p99 in ms", "forest scorer", "`Rank`, one caller"), rows)


def profile_table(measured: Measured) -> str:
    """Where the time of a ranking went."""
    whole = sum(measured.profile.values())
    rows = [(name, f"{spent:.3f}", f"{spent / whole:.0%}") for name, spent in measured.profile.items() if spent >= SMALL_MILLISECONDS]
    return _table(("part", "ms", "share"), [*rows, ("together", f"{whole:.3f}", "")])


def processor_table(measured: Measured) -> str:
    """Processor time, by process."""
    rows = [(name, f"{spent:.2f}") for name, spent in measured.processor.items() if spent >= SMALL_MILLISECONDS]
    return _table(("process", "processor time of a ranking in ms"), rows)


def reload_table(found: Reload) -> str:
    """What callers noticed of a swap."""
    rows = []
    for span in (found.before, found.during, found.around):
        told = f"{span.p99_milliseconds:.2f}"
        if span is not found.before:
            told += f", {span.p99_milliseconds / found.before.p99_milliseconds:.2f} ×"
        budget = "≤ 1.5 × the p99 before" if span is found.during else ""
        counts = (f"{span.calls}", f"{span.failed}", f"{span.per_second:.0f}", f"{span.p50_milliseconds:.2f}")
        rows.append((span.name, budget, *counts, told))
    head = ("what", "budget", "rankings", "failed or not by a model", "a second", "p50 in ms", "p99 in ms")
    return f"{_table(head, rows)}\n\n{found.callers} callers. The new model served {found.swap_seconds:.2f} s after it was promoted."


def picture(profile: Mapping[str, float], predict: Timing | None) -> str:
    """An SVG of one bar: what a caller waits for, in milliseconds; `Booster.predict` alone below it."""
    parts = [(name, spent) for name, spent in profile.items() if spent >= SMALL_MILLISECONDS]
    whole = sum(spent for _, spent in parts)
    longest = max(whole, predict.p50_milliseconds if predict else 0.0)
    width, left, top = 860.0, 10.0, 34.0
    scale = (width - 2 * left) / longest
    lines = [_text(left, 20, f"A ranking of {CANDIDATES} candidates, through the server and back: {whole:.2f} ms on average")]
    at = left
    for color, (name, spent) in zip(_endless(COLORS), parts, strict=False):
        lines.append(_bar(at, top, spent * scale, 40, color, title=f"{name}: {spent:.3f} ms"))
        at += spent * scale
    below = top + 52
    if predict:
        told = f"Booster.predict alone: {predict.p50_milliseconds:.2f} ms"
        lines += [_bar(left, below, predict.p50_milliseconds * scale, 18, "#888"), _text(left + 6, below + 13.5, told, color="#fff")]
        below += 30
    for number, (color, (name, spent)) in enumerate(zip(_endless(COLORS), parts, strict=False)):
        x, y = left + number % 3 * 285, below + 10 + number // 3 * 22
        lines += [_bar(x, y, 12, 12, color), _text(x + 18, y + 11, f"{name} {spent:.2f} ms")]
    height = below + 20 + (len(parts) + 2) // 3 * 22
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="13"'
    drawn = "\n".join((_bar(0, 0, width, height, "#fff"), *lines))
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{drawn}\n</svg>\n'


def _bar(x: float, y: float, width: float, height: float, color: str, *, title: str = "") -> str:
    inside = f"<title>{title}</title>" if title else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}">{inside}</rect>'


def _text(x: float, y: float, words: str, *, color: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}">{words}</text>'


def _endless(colors: Sequence[str]) -> list[str]:
    return list(colors) * 3


def _put(page: Path, section: str, text: str) -> None:
    """Replaces what stands between a page's two marks of that name."""
    begin, end = f"<!-- {section}: measured -->", f"<!-- {section}: end -->"
    old = page.read_text()
    if begin not in old or end not in old:
        raise ValueError(f"{page} lacks the marks {begin} and {end}")
    page.write_text(re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n{end}", old, flags=re.DOTALL))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _circumstances(quiet: bool) -> str:
    calm = "the machine was quiet" if quiet else "the machine was busy with other things, so these figures say little"
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {datetime.now(UTC):%d %B %Y}; {calm}."


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.machine()


def _known(timing: Timing | None) -> Timing:
    if timing is None:
        raise ValueError("this was not measured")
    return timing


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f} ms"


def _share(timing: Timing, beside: Timing) -> str:
    return f"{timing.p50_milliseconds / beside.p50_milliseconds:.2f} ×"
