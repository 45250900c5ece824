"""What a user has to do with a candidate's type, its tags, and the candidate itself."""

from __future__ import annotations

from math import nan
from typing import Final

import numpy as np

from ranker.features.columns import Candidates, Floats
from ranker.features.feature import family
from ranker.features.history import (
    ACT_COUNT,
    COUNT,
    ITEM_BEST_LABEL,
    ITEM_COUNT,
    ITEM_DISMISSED,
    ITEM_LAST_SECONDS,
    LABEL_SUM,
    LAST_SECONDS,
    History,
)
from ranker.features.user import ACT_PRIOR, LABEL_PRIOR, act_rate, mean_label

TYPE_FAMILY: Final = "user_type"
TAG_FAMILY: Final = "user_tag"
ITEM_FAMILY: Final = "user_item"

STRENGTH: Final = 3.0
"""Interactions that the user's own mean weighs."""

_DAY_SECONDS: Final = 86_400.0

TYPE_FEATURES: Final = family(
    TYPE_FAMILY,
    ("user_type_interactions", 0.0, "the user's interactions with items of this type"),
    ("user_type_share", 0.0, "share of the user's interactions that are with items of this type"),
    ("user_type_label", LABEL_PRIOR, "mean label of the user's interactions with this type, smoothed with the user's mean"),
    ("user_type_act_rate", ACT_PRIOR, "share of the user's interactions with this type that act, smoothed"),
    ("user_type_days_since", nan, "days since the user's newest interaction with this type"),
)
TAG_FEATURES: Final = family(
    TAG_FAMILY,
    ("user_tag_label", LABEL_PRIOR, "the user's mean label with a tag, smoothed: its mean over the item's tags"),
    ("user_tag_label_best", LABEL_PRIOR, "the user's mean label with a tag, smoothed: its largest over the item's tags"),
    ("user_tag_overlap", 0.0, "share of the item's tags that the user has met before"),
)
ITEM_FEATURES: Final = family(
    ITEM_FAMILY,
    ("user_item_interactions", 0.0, "the user's interactions with this item"),
    ("user_item_best_label", nan, "largest label of the user's interactions with this item"),
    ("user_item_days_since", nan, "days since the user's newest interaction with this item"),
    ("user_item_dismissed", 0.0, "1 if the user dismissed this item"),
)


def fill_types(out: Floats, candidates: Candidates, history: History, moment_seconds: float) -> None:
    """Writes (5, n_candidates)."""
    count = len(candidates.item_ids)
    row = history.type_rows.get
    rows = np.fromiter((row(item_type, 0) for item_type in candidates.item_types), dtype=np.int64, count=count)
    table = history.by_type[rows]
    counts = table[:, COUNT]
    out[0] = counts
    out[1] = counts / max(1, len(history.seconds))
    out[2] = (table[:, LABEL_SUM] + STRENGTH * mean_label(history)) / (counts + STRENGTH)
    out[3] = (table[:, ACT_COUNT] + STRENGTH * act_rate(history)) / (counts + STRENGTH)
    out[4] = np.maximum((moment_seconds - table[:, LAST_SECONDS]) / _DAY_SECONDS, 0.0)


def fill_tags(out: Floats, candidates: Candidates, history: History) -> None:
    """Writes (3, n_candidates); an item without tags has the user's mean label."""
    of_user = mean_label(history)
    out[0] = of_user
    out[1] = of_user
    out[2] = 0.0
    if not len(candidates.tag_codes) or not history.tag_rows:
        return
    row = history.tag_rows.get
    rows = np.fromiter((row(tag, 0) for tag in candidates.tag_names), dtype=np.int64, count=len(candidates.tag_names))
    table = history.by_tag[rows]
    labels = ((table[:, LABEL_SUM] + STRENGTH * of_user) / (table[:, COUNT] + STRENGTH))[candidates.tag_codes]
    met = (rows > 0)[candidates.tag_codes].astype(np.float64)
    tagged = candidates.tag_counts > 0
    counts = candidates.tag_counts[tagged]
    starts = np.cumsum(counts) - counts
    out[0, tagged] = np.add.reduceat(labels, starts) / counts
    out[1, tagged] = np.maximum.reduceat(labels, starts)
    out[2, tagged] = np.add.reduceat(met, starts) / counts


def fill_items(out: Floats, candidates: Candidates, history: History, moment_seconds: float) -> None:
    """Writes (4, n_candidates)."""
    row = history.item_rows.get
    rows = np.fromiter((row(item_id, 0) for item_id in candidates.item_ids), dtype=np.int64, count=len(candidates.item_ids))
    table = history.by_item[rows]
    out[0] = table[:, ITEM_COUNT]
    out[1] = table[:, ITEM_BEST_LABEL]
    out[2] = np.maximum((moment_seconds - table[:, ITEM_LAST_SECONDS]) / _DAY_SECONDS, 0.0)
    out[3] = table[:, ITEM_DISMISSED]
