"""How far impressions came towards an accepted application, by tier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from rankloop.v1 import stats_pb2 as pb
from server.statistics.figures import ratio
from server.statistics.intervals import wilson_of_ratio

APPLICATION = "application"
STAGES = ("shown", "viewed", "applied", "interview", "offer", "accepted")
REACHED_BY: Mapping[str, int] = {"interview": 3, "offer": 4, "accepted": 5}
"""The furthest stage, as a place in STAGES, that an application's `result` speaks of; any other says that somebody applied."""

ImpressionId = tuple[str, str]


def furthest_stage(result: str) -> int:
    """Of an application with this result."""
    return REACHED_BY.get(result, STAGES.index("applied"))


def funnel_rows(
    shown: Mapping[str, Mapping[str, int]], furthest: Mapping[ImpressionId, tuple[str, int]], applied: Iterable[ImpressionId]
) -> list[pb.ApplicationFunnel]:
    """One row per tier, most impressions first, and all together.

    Args:
        shown: by tier, the counters of the period's impressions.
        furthest: of impressions that an application outcome was attributed to, their tier and the furthest stage.
        applied: those of them that have an `apply` interaction, and so are among the applications of `shown`.
    """
    known = set(applied)
    reached: dict[str, Counter[int]] = {tier: Counter() for tier in shown}
    for impression, (tier, stage) in furthest.items():
        row = reached.setdefault(tier, Counter())
        row[2] += impression not in known
        for place in range(3, stage + 1):
            row[place] += 1
    counts: dict[str, list[int]] = {}
    for tier, further in reached.items():
        counters = shown.get(tier, {})
        counts[tier] = [
            counters.get("impressions", 0),
            counters.get("viewed", 0),
            counters.get("applications", 0) + further[2],
            *(further[place] for place in (3, 4, 5)),
        ]
    counts = {tier: stages for tier, stages in counts.items() if stages[0]}
    if not counts:
        return []
    rows = [_row(tier, stages, total=False) for tier, stages in sorted(counts.items(), key=lambda one: (-one[1][0], one[0]))]
    return [*rows, _row("", [sum(column) for column in zip(*counts.values(), strict=True)], total=True)]


def _row(tier: str, stages: list[int], *, total: bool) -> pb.ApplicationFunnel:
    row = pb.ApplicationFunnel(
        tier=tier,
        total=total,
        conversion_rate=ratio(stages[-1], stages[0]),
        conversion_rate_interval=wilson_of_ratio(stages[-1], stages[0]),
    )
    for name, count in zip(STAGES, stages, strict=True):
        setattr(row, f"{name}_count", count)
    for place in range(1, len(STAGES)):
        before, now = stages[place - 1], stages[place]
        if before:
            row.step_rates[STAGES[place]] = now / before
            if (interval := wilson_of_ratio(now, before)) is not None:
                row.step_rate_intervals[STAGES[place]].CopyFrom(interval)
    return row
