"""What a digest keeps of a user in an experiment: one row of figures, and how the primary metric came about day by day. Pure."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rankloop.v1 import experiment_pb2 as pb
from runtime.timestamps import EPOCH, to_datetime
from server.experiments.history import History, end_of, period_of, values_of, width_of
from server.experiments.method import groups_of
from server.experiments.metrics import Asked, metrics_of

DAY = timedelta(days=1)
DAYS_KEPT = 34
"""Days of which a row says how the primary metric stood, a few more than a series has points."""
FORM = 2
"""Of rows, blocks and slices; another one calls for digests made anew."""
NOT_MEASURED = math.nan
BEFORE_FIRST_DAY = EPOCH.toordinal() - 1


@dataclass(frozen=True, slots=True)
class Outline:
    """What the rows of an experiment depend on."""

    group_ids: Sequence[str]
    """By what users are told apart: their variants, as a rule."""
    starts: Sequence[datetime]
    """When each of the weights began to hold."""
    metrics: Sequence[Asked]
    widths: Sequence[int]
    """Columns of each metric's values, those of CUPED's covariates among them."""
    fingerprint: str
    """Of all that may not change while the experiment runs."""

    @classmethod
    def of(cls, experiment: pb.Experiment) -> Outline:
        """Of a checked experiment."""
        metrics = metrics_of(experiment)
        variant_ids = [variant.variant_id for variant in experiment.variants]
        text = [f"{FORM} {experiment.method} {experiment.control_variant_id}", *variant_ids]
        text += [one.definition.SerializeToString(deterministic=True).hex() for one in metrics]
        return cls(
            groups_of(experiment),
            [to_datetime(period.start_time) for period in experiment.weight_periods],
            metrics,
            [width_of(one) for one in metrics],
            hashlib.blake2b("\n".join(text).encode(), digest_size=12).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """The primary metric from the end of a day on, until the next change."""

    day: int
    """Whose end it is: midnight after that many days since 1970."""
    exposure_count: int
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Row:
    """A user, as of a moment."""

    key: int
    """`key_of` the user."""
    group: int
    """The place of the user's group; −1: a variant that the experiment does not have."""
    period: int
    """Under which weights the user came, counted from 0."""
    mixed: bool
    exposure_count: int
    exposure_time: datetime
    values: Sequence[float]
    """Of all metrics side by side, as `values_of` gives them; NaN where not measured."""
    changes: Sequence[Change]
    """By day."""


def key_of(user_id: str) -> int:
    """A user's number, 64 bits of a hash.

    Of ten million users, two share one with a probability of 3 in a million; then one of the two is not counted.
    """
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8).digest(), "little")


def day_after(moment: datetime) -> int:
    """The first midnight after the moment, which is in UTC, in days since 1970."""
    return moment.toordinal() - BEFORE_FIRST_DAY


def due_time(history: History, as_of: datetime) -> datetime | None:
    """When the first of what is known already will begin to count; None: all of it does."""
    if max(history.times()) < as_of:
        return None  # as nearly always
    return min(moment for moment in history.times() if moment >= as_of)


def row_of(outline: Outline, history: History, as_of: datetime) -> Row:
    """The row of a history in which nothing lies at or after `as_of` (`History.before`)."""
    start = history.exposure_time
    until = end_of(outline.starts, start, as_of)
    found = [_values(one, history, until, width) for one, width in zip(outline.metrics, outline.widths, strict=True)]
    shown = [visit.time for visit in history.visits]
    names = outline.group_ids
    return Row(
        key=key_of(history.user_id),
        group=names.index(history.variant_id) if history.variant_id in names else -1,
        period=period_of(outline.starts, start),
        mixed=history.mixed(until),
        exposure_count=bisect_left(shown, until),
        exposure_time=start,
        values=[value for values in found for value in values],
        changes=_changes(outline, history, shown, until, found[0], day_after(as_of) - DAYS_KEPT),
    )


def _values(asked: Asked, history: History, until: datetime, width: int) -> tuple[float, ...]:
    values = values_of(asked, history, until)
    return (NOT_MEASURED,) * width if values is None else values


def _changes(
    outline: Outline, history: History, shown: Sequence[datetime], until: datetime, last: tuple[float, ...], first_day: int
) -> list[Change]:
    start = history.exposure_time
    days = sorted({day_after(moment) for moment in history.times() if start <= moment < until})
    # What a series does not show any more is one state to start from.
    days = days[max(0, bisect_left(days, first_day) - 1) :]
    changes: list[Change] = []
    for day in days:
        end = min(EPOCH + day * DAY, until)
        values = last if day == days[-1] else _values(outline.metrics[0], history, end, outline.widths[0])
        count = bisect_left(shown, end)
        if not changes or (changes[-1].exposure_count, changes[-1].values) != (count, values):
            changes.append(Change(day, count, values))
    return changes
