"""A warm start: from which forest to go on, and which slates are new to it.

The slates held out are the same latest share of all slates, as in a full training, so that a model is judged on as much either way. New to
the forest is what has moved out of that share since: slates shown after those it learned from, and before those held out. With `n` slates
learned from before, `m` shown since and a share `v` held out, it learns the first `m − round(v·(n + m))` of the `m`.

    champion   | learned (n)                    | held out then       |
    now                                         | new | held out now        |
                                                | shown since (m)           |
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ranker.models.bundle import Bundle
from ranker.models.passport import Slice
from ranker.training.data import TrainingData
from ranker.training.failures import CannotTrain
from ranker.training.split import Split, parted
from runtime.errors import FailedPrecondition
from runtime.timestamps import EPOCH

LEARNED = ("continued", "train")
"""The slices of a passport that its forest has learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """What a warm start goes on from."""

    bundle: Bundle
    learned: Slice | None
    """What its forest has learned from, as one span; None: nothing of this ledger (it was imported)."""

    def start(self, window_start: datetime) -> datetime:
        """From when on slates are new to it, within the look-back window."""
        return window_start if self.learned is None else max(window_start, self.learned.end_time)


def continuation(bundle: Bundle | None, *, max_trees: int) -> Continuation:
    """What a warm start goes on from.

    Raises:
        FailedPrecondition: there is no champion, or it has so many trees already that another training from nothing is due.
    """
    if bundle is None:
        raise FailedPrecondition("there is no champion to continue from: train with --mode full first", reason="NO_CHAMPION")
    passport = bundle.passport
    if passport.tree_count >= max_trees:
        raise FailedPrecondition(
            f"the champion {passport.model_version} has {passport.tree_count} trees, and one of {max_trees} or more is not continued "
            "(trainer.warm_start_max_trees): every tree costs time at each ranking; train with --mode full",
            reason="FOREST_TOO_LARGE",
        )
    spans = [one for one in passport.slices if one.name in LEARNED]
    return Continuation(bundle=bundle, learned=_joined(spans) if spans else None)


def require_same_features(base: Continuation, data: TrainingData) -> None:
    """Raises FailedPrecondition where the slates have other columns than the forest."""
    passport = base.bundle.passport
    if passport.feature_names != data.feature_names:
        described = f"the champion {passport.model_version} has other features than the slates and cannot be continued"
        raise FailedPrecondition(f"{described}: train with --mode full", reason="OTHER_FEATURES")


def split_new(data: TrainingData, base: Continuation, *, validation_split: float, min_slates: int, gap: timedelta = timedelta(0)) -> Split:
    """Divides the slates shown since into new ones to learn from, and held-out ones; see above. Gaps are those of `split`.

    Raises:
        CannotTrain: all of them are held out: there is nothing new yet.
    """
    before = 0 if base.learned is None else base.learned.slate_count
    slates = data.slate_count
    held_out = max(round(validation_split * (before + slates)), 2)
    if slates - held_out < 1 or before + slates < min_slates:
        # One more slate adds 1 to `slates` and `validation_split` to what is held out.
        missing = max(1, int((held_out + 1 - slates) / (1 - validation_split)) + 1, min_slates - before - slates)
        raise CannotTrain(
            f"{slates} labelled slates were shown since those that the champion learned from, and {held_out} of them are held out to "
            f"measure on: nothing is new; about {missing} more are needed, or train with --mode full",
            "NOTHING_NEW",
        )
    begin = int(data.show_times[0])
    if base.learned is not None:
        begin = min(begin, (base.learned.start_time - EPOCH) // timedelta(milliseconds=1))
    return parted(data, held_out, gap=gap, span=int(data.show_times[-1]) - begin)


def _joined(spans: list[Slice]) -> Slice:
    return Slice(
        name=LEARNED[0],
        start_time=min(one.start_time for one in spans),
        end_time=max(one.end_time for one in spans),
        slate_count=sum(one.slate_count for one in spans),
        row_count=sum(one.row_count for one in spans),
        # Users come again: at least so many.
        user_count=max(one.user_count for one in spans),
    )
