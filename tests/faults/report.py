"""What a run did and found: a table for people, JSON for programs."""

from __future__ import annotations

import json
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from types import MappingProxyType

from tests.faults.journal import Attempt
from tests.faults.verdict import Verdict


@dataclass(slots=True, kw_only=True)
class Hit:
    """A fault that was made, in seconds of the monotonic clock."""

    kind: str
    start: float
    """When its making began."""
    begin: float
    """When it was there."""
    mended: float
    """Until then nothing may have been acknowledged; 0: it could be."""
    healed: float
    unavailable_seconds: float = 0.0
    """The longest time in which calls were under way and none was acknowledged, from the hit to the next one."""
    calls: int = 0
    """Calls that were under way when it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enough:
    """What a run needs for its verdict to count."""

    acknowledged: int
    hits: int
    resent: int
    met: int
    """Faults that met a call under way."""


@dataclass(slots=True, kw_only=True)
class SceneReport:
    """One scene: a stack, an oracle, its faults."""

    name: str
    seed: int
    seconds: float
    hits: list[Hit]
    verdict: Verdict
    enough: Enough

    @property
    def met(self) -> int:
        """Faults that met a call under way."""
        return sum(hit.calls > 0 for hit in self.hits)

    @property
    def failures(self) -> list[str]:
        """Why the run is not passed; empty: it is."""
        verdict, enough = self.verdict, self.enough
        found = list(verdict.wrong)
        for what, had, needed in (
            ("entries were acknowledged", sum(verdict.acknowledged.values()), enough.acknowledged),
            ("faults hit", len(self.hits), enough.hits),
            ("entries were sent again", verdict.resent, enough.resent),
            ("faults met a call under way", self.met, enough.met),
        ):
            if had < needed:
                found.append(f"the run does not count: {had} {what}, and it needs {needed}")
        return found


def measure(hits: Sequence[Hit], attempts: Iterable[Attempt], end: float) -> list[str]:
    """Fills in what each fault met and how long writes were unavailable; returns what was acknowledged when nothing could be."""
    calls = sorted(attempts, key=lambda one: one.begin)
    begins = [one.begin for one in calls]
    ends = list(accumulate((one.end for one in calls), max))
    sound = sorted((attempt for attempt in calls if attempt.acknowledged), key=lambda one: one.end)
    moments = [attempt.end for attempt in sound]
    firsts = _first_begins(calls)
    wrong = []
    for place, hit in enumerate(hits):
        until = hits[place + 1].begin if place + 1 < len(hits) else end
        hit.calls = sum(one.begin <= hit.begin and one.end >= hit.start for one in calls)
        inside = moments[bisect_right(moments, hit.begin) : bisect_right(moments, until)]
        edges = [hit.begin, *inside, until]
        hit.unavailable_seconds = max(later - _asked(earlier, later, begins, ends) for earlier, later in pairwise(edges))
        early = [one for one in sound if hit.begin <= one.begin and one.end <= hit.mended and not _known_before(one, firsts, hit.begin)]
        if early:
            wrong.append(f"{len(early)} × acknowledged during '{hit.kind}', when nothing could be durable: {early[:3]}")
    return wrong


def _first_begins(calls: Iterable[Attempt]) -> dict[tuple[str, int], float]:
    """When each entry, by kind and number, was first sent. `calls` by when they began."""
    firsts: dict[tuple[str, int], float] = {}
    for one in calls:
        for number in range(one.first, one.first + one.count):
            firsts.setdefault((one.kind, number), one.begin)
    return firsts


def _known_before(attempt: Attempt, firsts: Mapping[tuple[str, int], float], moment: float) -> bool:
    """Whether it brought nothing new: entries of before the moment, durable since then, may be recognised when nothing can be made so."""
    numbers = range(attempt.first, attempt.first + attempt.count)
    return not attempt.accepted and all(firsts[attempt.kind, number] < moment for number in numbers)


def _asked(earlier: float, later: float, begins: Sequence[float], ends: Sequence[float]) -> float:
    """From when on anybody waited between two moments: the oracle rests, and nobody misses an answer then.

    `begins` of all calls, ascending, and for each the latest end of all that began until then.
    """
    before = bisect_right(begins, earlier)
    if before and ends[before - 1] > earlier:
        return earlier
    return min(later, begins[before]) if before < len(begins) else later


def table(reports: Sequence[SceneReport], skipped: Mapping[str, str] = MappingProxyType({})) -> str:
    """In Markdown, as docs/explanation/durability.md shows it; `skipped` are faults that could not be made here, and why."""
    lines = ["| fault | hits | calls under way, median | unavailable, median | unavailable, longest |", "| --- |" + " ---: |" * 4]
    for report in reports:
        for kind in Counter(hit.kind for hit in report.hits):
            times = [hit.unavailable_seconds for hit in report.hits if hit.kind == kind]
            calls = statistics.median(hit.calls for hit in report.hits if hit.kind == kind)
            lines.append(f"| {report.name}: {kind} | {len(times)} | {calls:g} | {statistics.median(times):.2f} s | {max(times):.2f} s |")
    lines += [f"| {kind} | 0 | | skipped: {why} | |" for kind, why in skipped.items()]
    lines += ["", "| | " + " | ".join(report.name for report in reports) + " |", "| --- |" + " ---: |" * len(reports)]
    rows: dict[str, Callable[[SceneReport], int]] = {
        "entries issued": lambda one: sum(one.verdict.issued.values()),
        "entries acknowledged": lambda one: sum(one.verdict.acknowledged.values()),
        "entries stored": lambda one: sum(one.verdict.stored.values()),
        "entries sent again on purpose": lambda one: one.verdict.resent,
        "calls answered OK": lambda one: one.verdict.codes["OK"],
        "calls answered otherwise": lambda one: sum(one.verdict.codes.values()) - one.verdict.codes["OK"],
        "faults": lambda one: len(one.hits),
        "acknowledged and lost": lambda one: one.verdict.lost,
        "doubled": lambda one: one.verdict.doubled,
        "tallies and attributions compared": lambda one: one.verdict.tallies + one.verdict.attributions,
        "recounts of everything derived, each asked of the product": lambda one: one.verdict.recounts,
        "found wrong": lambda one: len(one.failures),
        "seconds": lambda one: round(one.seconds),
        "seed": lambda one: one.seed,
    }
    for name, figure in rows.items():
        lines.append(f"| {name} | " + " | ".join(str(figure(report)) for report in reports) + " |")
    return "\n".join(lines)


def write_json(path: Path, reports: Sequence[SceneReport], skipped: Mapping[str, str]) -> None:
    """Everything, for programs."""
    scenes = [
        {
            "name": report.name,
            "seed": report.seed,
            "seconds": report.seconds,
            "hits": [asdict(hit) for hit in report.hits],
            "enough": asdict(report.enough),
            "verdict": {name: getattr(report.verdict, name) for name in report.verdict.__slots__},
            "failures": report.failures,
        }
        for report in reports
    ]
    path.write_text(json.dumps({"scenes": scenes, "skipped": dict(skipped)}, indent=1))
