"""Whether the data can teach anything, and what a reader should know of them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np

from ranker.models.registry import ModelRecord
from ranker.training.baselines import PRIOR_SCORE
from ranker.training.data import DatasetCounts, TrainingData
from ranker.training.failures import CannotTrain
from ranker.training.settings import TrainerSettings
from ranker.training.split import Split, moment

ROUGH_SLATES = 100
"""Fewer test slates than this are said to give rough figures."""


FEW_LABELS = 1_000
"""Fewer labelled slates than this are called few."""


def require_interactions(
    found: int, settings: TrainerSettings, *, newest_before: datetime | None = None, now: datetime | None = None
) -> None:
    """Raises CannotTrain, with how many are missing, where there are fewer interactions than asked for.

    `newest_before` is when the newest interaction before the window occurred, if there is any, and `now` when the window ends.
    """
    missing = settings.min_interactions - found
    if missing > 0:
        further = "look further back (--lookback-days)"
        if newest_before is not None and now is not None:
            days = math.ceil((now - newest_before) / timedelta(days=1))
            further += f", there are older ones, the newest of {newest_before:%Y-%m-%d}, {days:,} days ago,"
        raise CannotTrain(
            f"{found} interactions in the last {settings.lookback_days:g} days, {settings.min_interactions} asked for: "
            f"{missing} are missing; wait for more, {further} or ask for fewer (--min-interactions)",
            "TOO_FEW_INTERACTIONS",
        )


def require_variety(data: TrainingData, counts: DatasetCounts) -> None:
    """Raises CannotTrain where there is no slate, or none with two different labels."""
    if data.slate_count:
        if not labels_differ(data):
            raise one_label("every slate")
        return
    if counts.slates_of_one_item and not counts.slates_without_label:
        raise CannotTrain(
            f"every slate has one item only: there is no order to learn; show at least two items at once. The labels are few, too: "
            f"{counts.labelled_slates_of_one_item:,} of {counts.slates:,} slates have one above 0"
            if counts.labelled_slates_of_one_item < FEW_LABELS
            else "every slate has one item only: there is no order to learn; show at least two items at once",
            "ONE_ITEM_SLATES",
        )
    raise CannotTrain(
        f"none of {counts.slates} slates can be learned from ({counts.slates_without_label} without a label above 0, "
        f"{counts.slates_of_one_item} of one item, {counts.slates_without_features} without logged features, "
        f"{counts.slates_with_bad_features} with bad ones): "
        "send interactions with the ranking_id of their slate, or wait until the fold has taken them in",
        "NO_LABELS",
    )


def labels_differ(data: TrainingData) -> bool:
    """Whether any slate has two labels."""
    highest = np.maximum.reduceat(data.labels, data.offsets[:-1])
    lowest = np.minimum.reduceat(data.labels, data.offsets[:-1])
    return bool((highest > lowest).any())


def one_label(where: str) -> CannotTrain:
    """Nothing is better than anything else."""
    return CannotTrain(f"{where} has the same label on all of its items: there is no order to learn", "ONE_LABEL")


def notes(parts: Split, champion: ModelRecord | None) -> list[str]:
    """What a reader of the report should know beside its figures."""
    told: list[str] = []
    empty = np.atleast_1d(np.isnan(parts.train.matrix).all(axis=0))
    missing = [name for name, is_empty in zip(parts.train.feature_names, empty, strict=True) if is_empty]
    if missing:
        told.append(f"{len(missing)} features are always missing and teach nothing: {', '.join(missing)}")
    if np.isnan(parts.test.columns([PRIOR_SCORE])).all():
        told.append("no slate of the test slice has a prior_score: it is not among the baselines")
    if parts.test.slate_count < ROUGH_SLATES:
        told.append(f"the test slice has {parts.test.slate_count} slates only: its figures are rough")
    if champion is not None:
        until = champion.data_end_time
        known = 0 if until is None else sum(moment(int(one)) < until for one in parts.test.show_times)
        if known:
            told.append(f"the champion has learned from {known} of the {parts.test.slate_count} test slates, which flatters it")
        unknown = sorted(set(champion.feature_names) - set(parts.test.feature_names))
        if unknown:
            told.append(f"the champion reads features that the slates do not have, missing to it here: {', '.join(unknown)}")
    return told
