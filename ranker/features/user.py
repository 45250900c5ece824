"""What a user does altogether; the same for all candidates of a request."""

from __future__ import annotations

from math import nan
from typing import Final

from ranker.features.columns import Floats
from ranker.features.feature import family
from ranker.features.history import LIMIT, History

FAMILY: Final = "user"

STRENGTH: Final = 5.0
"""Interactions that a prior weighs."""

LABEL_PRIOR: Final = 0.25
ACT_PRIOR: Final = 0.2
DISMISS_PRIOR: Final = 0.02

_DAY_SECONDS: Final = 86_400.0

FEATURES: Final = family(
    FAMILY,
    ("user_interactions_1d", 0.0, "interactions of the user in the 24 hours before"),
    ("user_interactions_7d", 0.0, "interactions of the user in the 7 days before"),
    ("user_interactions_30d", 0.0, "interactions of the user in the 30 days before"),
    ("user_interactions_all", 0.0, f"interactions of the user, {LIMIT} at most"),
    ("user_label", LABEL_PRIOR, "mean label of the user's interactions, smoothed"),
    ("user_act_rate", ACT_PRIOR, "share of the user's interactions that act, smoothed"),
    ("user_dismiss_rate", DISMISS_PRIOR, "share of the user's interactions that dismiss, smoothed"),
    ("user_days_since_last", nan, "days since the user's newest interaction"),
    ("user_days_since_act", nan, "days since the user's newest interaction that acts"),
    ("user_distinct_items", 0.0, "different items among the user's interactions"),
    ("user_distinct_types", 0.0, "different item types among the user's interactions"),
)


def mean_label(history: History) -> float:
    """The user's mean label, smoothed."""
    return (float(history.labels.sum()) + STRENGTH * LABEL_PRIOR) / (len(history.labels) + STRENGTH)


def act_rate(history: History) -> float:
    """The share of the user's interactions that act, smoothed."""
    return (float(history.acts.sum()) + STRENGTH * ACT_PRIOR) / (len(history.acts) + STRENGTH)


def values(history: History, moment_seconds: float) -> list[float]:
    """One value per feature of the family."""
    count = len(history.seconds)
    if not count:
        return [feature.default for feature in FEATURES]
    ages = (moment_seconds - history.seconds) / _DAY_SECONDS
    return [
        float((ages <= 1.0).sum()),
        float((ages <= 7.0).sum()),
        float((ages <= 30.0).sum()),
        float(count),
        mean_label(history),
        act_rate(history),
        (history.dismissals + STRENGTH * DISMISS_PRIOR) / (count + STRENGTH),
        max(0.0, float(ages.min())),
        max(0.0, (moment_seconds - history.last_act_seconds) / _DAY_SECONDS) if history.acts.any() else nan,
        float(len(history.item_rows)),
        float(len(history.type_rows)),
    ]


def fill(out: Floats, history: History, moment_seconds: float) -> None:
    """Writes (11, n_candidates)."""
    for row, value in zip(out, values(history, moment_seconds), strict=True):
        row.fill(value)
