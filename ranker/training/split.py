"""Which slates are learned from, which stop the training, which are reported.

By time, never at random: a model is judged on what came after all it has seen. With a share `v` held out of `n` slates, ordered by the
time they were shown,

    train       the first n − round(v·n)
    validation  the earlier half of the rest: early stopping looks at it, so its figures flatter the model
    test        the later half: seen by nothing, and the only one whose figures decide

A slate is never divided. Between slices lies a gap: what was shown shortly before a slice begins is left out of the one before it, because
what became of it was still to come, and because it shares its hour with what the next slice judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from ranker.models.passport import Slice
from ranker.training.data import TrainingData
from ranker.training.failures import CannotTrain


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Split:
    """The three parts."""

    train: TrainingData
    validation: TrainingData
    test: TrainingData
    in_gap: int = 0
    """Slates left out for the gaps."""

    def slices(self) -> tuple[Slice, ...]:
        """As the passport states them."""
        return (
            slice_of("train", self.train),
            slice_of("validation", self.validation),
            slice_of("test", self.test),
        )


GAP_SHARE = 1 / 50
"""A gap takes no more of the time that all slates span: a log of minutes has no hours to give."""


def split(data: TrainingData, *, validation_split: float, min_slates: int, gap: timedelta = timedelta(0)) -> Split:
    """Divides the data, whose slates are in the order they were shown. No slice is emptied for the sake of the gap.

    Raises:
        CannotTrain: there are fewer than `min_slates` slates, or too few for three parts.
    """
    slates = data.slate_count
    held_out = round(validation_split * slates)
    if slates < min_slates or held_out < 2 or held_out >= slates:
        wanted = max(min_slates, int(np.ceil(2 / validation_split)), 3)
        raise CannotTrain(
            f"{slates} slates with labels and features are too few to split by time into train, validation and test: {wanted} are needed",
            "TOO_FEW_SLATES",
        )
    return parted(data, held_out, gap=gap, span=int(data.show_times[-1] - data.show_times[0]))


def parted(data: TrainingData, held_out: int, *, gap: timedelta, span: int) -> Split:
    """Divides the data where so many slates are held out, with gaps.

    `held_out` is at least 2 and fewer than all. `span` is the time that the model's slates and these span, in milliseconds.
    """
    slates = data.slate_count
    first, second = slates - held_out, slates - held_out + held_out // 2
    wait = min(gap // timedelta(milliseconds=1), int(span * GAP_SHARE))
    learned = max(1, min(first, int(np.searchsorted(data.show_times, data.show_times[first] - wait, side="right"))))
    stopping = max(first + 1, min(second, int(np.searchsorted(data.show_times, data.show_times[second] - wait, side="right"))))
    return Split(
        train=data.part(0, learned),
        validation=data.part(first, stopping),
        test=data.part(second, slates),
        in_gap=first - learned + second - stopping,
    )


def slice_of(name: str, data: TrainingData) -> Slice:
    """What the passport states of a part."""
    return Slice(
        name=name,
        start_time=moment(int(data.show_times[0])),
        end_time=moment(int(data.show_times[-1]) + 1),
        slate_count=data.slate_count,
        row_count=data.row_count,
        user_count=int(np.unique(data.users).size),
    )


def moment(milliseconds: int) -> datetime:
    """The time of so many milliseconds since 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
