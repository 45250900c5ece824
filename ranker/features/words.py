"""Feature values in words that a person reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

import numpy as np

from ranker.features.columns import Floats
from ranker.features.feature import Feature

NEARLY_ALL: Final = 0.9
MOST: Final = 0.5

_SPANS: Final = {"1d": "today", "7d": "in 7 days", "30d": "in 30 days", "all": "so far"}
_RATES: Final = {
    "ctr": "clicked by {percent} of those shown {span}",
    "act_rate": "acted upon by {percent} of those shown {span}",
    "label": "what people did with it is worth {number} on average {span}",
    "dismiss_rate": "dismissed in {percent} of interactions {span}",
    "position": "shown at position {number} on average {span}",
    "impressions": "shown {count} times {span}",
    "interactions": "{count} interactions {span}",
    "clicked": "clicked {count} times {span}",
}
_PHRASES: Final = {
    "prior_score": "your own score of it is {number}",
    "roi_potential": "its expected return is {number}",
    "cost": "its cost is {number}",
    "price": "its price is {number}",
    "salary_increase": "pay is expected to rise by {number}",
    "duration": "it takes {number}",
    "match_score": "your match score is {number}",
    "quality": "your quality score is {number}",
    "item_age_days": "it is {days} old",
    "item_tag_count": "it has {count} tags",
    "user_interactions_1d": "the user's interactions in 24 hours: {count}",
    "user_interactions_7d": "the user's interactions in 7 days: {count}",
    "user_interactions_30d": "the user's interactions in 30 days: {count}",
    "user_interactions_all": "the user's interactions so far: {count}",
    "user_label": "what the user does is worth {number} on average",
    "user_act_rate": "the user acts in {percent} of interactions",
    "user_dismiss_rate": "the user dismisses in {percent} of interactions",
    "user_days_since_last": "the user was last active {days} ago",
    "user_days_since_act": "the user last acted {days} ago",
    "user_distinct_items": "the user has met {count} items",
    "user_distinct_types": "the user has met {count} types",
    "user_type_interactions": "the user's interactions with its type: {count}",
    "user_type_share": "{percent} of the user's interactions are with its type",
    "user_type_label": "what the user does with its type is worth {number} on average",
    "user_type_act_rate": "the user acts in {percent} of interactions with its type",
    "user_type_days_since": "the user last met its type {days} ago",
    "user_tag_label": "what the user does with its tags is worth {number} on average",
    "user_tag_label_best": "what the user does with the best of its tags is worth {number} on average",
    "user_tag_overlap": "the user has met {percent} of its tags",
    "user_item_interactions": "the user's interactions with it: {count}",
    "user_item_best_label": "the best the user did with it is worth {number}",
    "user_item_days_since": "the user last met it {days} ago",
    "embedding_match": "its likeness to what the user liked is {number} on average",
    "embedding_match_best": "its likeness to what the user liked is {number} at best",
    "hour": "the time of day is {number} h (UTC)",
    "list_size": "{count} candidates were offered",
    "list_prior_rank": "its rank by your own score is {number} (0 is best, 1 is last)",
    "list_prior_z": "your own score of it is {number} standard deviations from the mean",
    "list_type_share": "{percent} of the candidates are of its type",
}
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NAMED: Final[Mapping[str, str]] = MappingProxyType(
    {"item_type_code": "its type", "item_tier_code": "its tier", "device_code": "the device", "surface_code": "the surface"}
)


def words(feature: Feature, value: float, column: Floats, contribution: float) -> str:
    """What a value says, how it stands among the candidates, and what it did, as in
    "clicked by 12 % of those shown so far, more than most candidates (+0.31)".

    Args:
        feature: whose value.
        value: NaN: missing.
        column: (n,) float64, the feature's values of all candidates of the request.
        contribution: what it added to the score.
    """
    return f"{_said(feature, value)}{_comparison(feature, value, column)} ({contribution:+.2f})"


def _said(feature: Feature, value: float) -> str:
    name = feature.name
    if name in _NAMED:
        return f"{_NAMED[name]} is not known" if math.isnan(value) else _NAMED[name]
    if math.isnan(value):
        return f"{feature.meaning}: not known"
    if name == "weekday":
        return f"it is {_WEEKDAYS[int(value) % 7]} (UTC)"
    if name == "user_item_dismissed":
        return "the user dismissed it" if value else "the user has not dismissed it"
    if name.startswith(("device_", "surface_")):
        kind, _, word = name.partition("_")
        return f"the {kind} is {word}" if value else f"the {kind} is not {word}"
    template = _template(name)
    if template is None:
        return f"{name} is {value:.4g}"
    return template.format(percent=_percent(value), number=f"{value:.3g}", count=f"{value:,.0f}", days=_days(value))


@cache
def _template(name: str) -> str | None:
    if name in _PHRASES:
        return _PHRASES[name]
    owner, _, rest = name.partition("_")
    figure, _, span = rest.rpartition("_")
    if owner in ("item", "type") and figure in _RATES and span in _SPANS:
        # The span is put in now, the value later.
        return ("items of its type: " if owner == "type" else "") + _RATES[figure].replace("{span}", _SPANS[span])
    return None


def _comparison(feature: Feature, value: float, column: Floats) -> str:
    if math.isnan(value) or feature.name in _NAMED or feature.name == "list_prior_rank":
        return ""
    known = column[~np.isnan(column)]
    if len(known) < 2 or set(np.unique(known).tolist()) <= {0.0, 1.0}:
        return ""
    less, more = float((known < value).mean()), float((known > value).mean())
    if less == more == 0.0:
        return ""
    for share, sense in ((less, "more"), (more, "less")):
        # One candidate is not less than itself: of n the best has n − 1 behind it.
        behind = share * len(known) / (len(known) - 1)
        if behind >= NEARLY_ALL:
            return f", {sense} than nearly all candidates"
        if behind > MOST:
            return f", {sense} than most candidates"
    return ", about as most candidates"


def _percent(value: float) -> str:
    return f"{value * 100:.2g} %" if abs(value) < 0.1 else f"{value * 100:.0f} %"


def _days(value: float) -> str:
    if value < 1.0 / 24.0:
        return f"{value * 1440:.0f} min"
    if value < 2.0:
        return f"{value * 24:.0f} h"
    return f"{value:,.0f} days"
