"""The primary metric by segment, and as it stood day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from server.experiments.comparison import Comparison, corrected_together
from server.experiments.design import Design
from server.experiments.observed import Group, Period
from server.experiments.readout import Value, read, read_growing
from server.inference.multiplicity import Correction


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Users of one kind."""

    dimension: str
    """Such as `device`."""
    value: str
    """Such as `phone`."""
    values: Sequence[Value]
    comparisons: Sequence[Comparison]
    """Corrected for all segments that were asked for (Holm); the intervals are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """How it stood at a time, for plots."""

    time: datetime
    values: Sequence[Value]
    comparisons: Sequence[Comparison]


def by_segment(design: Design, groups: Mapping[tuple[str, str], Sequence[Group]]) -> tuple[list[Segment], str]:
    """The primary metric by (dimension, value), and the warning that belongs with it."""
    alone = replace(design, metrics=[design.primary])
    found = {key: read(alone, part).metrics[0] for key, part in groups.items()}
    flat = corrected_together([one for part in found.values() for one in part.comparisons], Correction.HOLM)
    segments = []
    for (dimension, value), part in found.items():
        own, flat = flat[: len(part.comparisons)], flat[len(part.comparisons) :]
        segments.append(Segment(dimension=dimension, value=value, values=part.values, comparisons=own))
    return segments, many_comparisons(sum(len(part.comparisons) for part in found.values()), design.level)


def many_comparisons(count: int, level: float) -> str:
    """What whoever looks at segments has to know."""
    return (
        f"{count} comparisons: without a correction, {count * level:.1f} of them would look different by chance alone. Their p-values are "
        "corrected for it (Holm), their intervals are not. A segment that nobody named beforehand is a question for the next experiment."
    )


def by_period(design: Design, periods: Sequence[Period], ends: Sequence[datetime], *, most: int) -> list[Point]:
    """One point per period, at its end, the latest `most` of them; for an experiment whose weights changed.

    A user is followed until the weights change, so all that was seen up to then is the sum of the periods up to then, and a point is the
    readout of that moment.
    """
    alone = replace(design, metrics=[design.primary])
    counts = range(max(1, len(ends) - most + 1), len(ends) + 1)
    found = [one.metrics[0] for one in read_growing(alone, periods[: len(ends)], counts)]
    return [Point(time=ends[count - 1], values=one.values, comparisons=one.comparisons) for count, one in zip(counts, found, strict=True)]


def by_time(design: Design, looks: Sequence[tuple[datetime, Sequence[Group]]]) -> list[Point]:
    """One point per look. Each look's groups hold everything up to it, so that the last one is the readout."""
    alone = replace(design, metrics=[design.primary])
    points = []
    for time, groups in looks:
        found = read(alone, groups).metrics[0]
        points.append(Point(time=time, values=found.values, comparisons=found.comparisons))
    return points
