"""How items and their types have done lately and ever, smoothed.

A rate of few observations says little, so each is drawn towards a prior as if that had been observed `STRENGTH` times besides:
`(successes + STRENGTH × prior) / (trials + STRENGTH)`. An item's prior in a window is its type's rate in that window, a type's is its own
rate of all time, that one's is everything's rate of all time, and that one's is a constant. So a never-shown item has its type's rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ranker.features.columns import Candidates, Floats
from ranker.features.counters import (
    ACTED,
    ALL_TIME,
    CLICKED,
    DAY,
    DISMISSALS,
    IMPRESSIONS,
    INTERACTIONS,
    LABEL_NANOS,
    LABEL_UNIT,
    MONTH,
    POSITIONS,
    WEEK,
)
from ranker.features.feature import Feature

STRENGTH: Final = 20.0
"""Observations that a prior weighs."""

ITEM_FAMILY: Final = "item_rates"
TYPE_FAMILY: Final = "type_rates"


@dataclass(frozen=True, slots=True)
class _Rate:
    name: str
    numerator: int
    denominator: int
    scale: float
    prior: float
    meaning: str


_RATES: Final = (
    _Rate("ctr", CLICKED, IMPRESSIONS, 1.0, 0.05, "clicked impressions per impression"),
    _Rate("act_rate", ACTED, IMPRESSIONS, 1.0, 0.05, "impressions acted upon per impression"),
    _Rate("label", LABEL_NANOS, INTERACTIONS, LABEL_UNIT, 0.25, "mean label of the interactions"),
    _Rate("dismiss_rate", DISMISSALS, INTERACTIONS, 1.0, 0.02, "dismissals per interaction"),
    _Rate("position", POSITIONS, IMPRESSIONS, 1.0, 5.0, "mean position shown at, 1 is the top"),
)
_NUMERATORS: Final = [rate.numerator for rate in _RATES]
_DENOMINATORS: Final = [rate.denominator for rate in _RATES]
_SCALES: Final = np.array([rate.scale for rate in _RATES])
_CONSTANTS: Final = np.array([rate.prior for rate in _RATES])
_PLACE: Final = {rate.name: place for place, rate in enumerate(_RATES)}
_SPANS: Final = {DAY: ("1d", "today (UTC)"), WEEK: ("7d", "over 7 days"), MONTH: ("30d", "over 30 days"), ALL_TIME: ("all", "of all time")}

_ITEM_COUNTS: Final = (
    (IMPRESSIONS, DAY),
    (IMPRESSIONS, WEEK),
    (IMPRESSIONS, MONTH),
    (IMPRESSIONS, ALL_TIME),
    (INTERACTIONS, DAY),
    (INTERACTIONS, WEEK),
    (INTERACTIONS, MONTH),
    (INTERACTIONS, ALL_TIME),
)
_ITEM_RATES: Final = tuple(
    [(name, window) for name in ("ctr", "act_rate", "label", "dismiss_rate") for window in (DAY, WEEK, MONTH, ALL_TIME)]
    + [("position", ALL_TIME)]
)
_TYPE_COUNTS: Final = tuple((counter, window) for counter in (IMPRESSIONS, INTERACTIONS) for window in (DAY, WEEK, MONTH, ALL_TIME))
_TYPE_RATES: Final = tuple(
    (name, window) for name in ("ctr", "act_rate", "label", "dismiss_rate") for window in (DAY, WEEK, MONTH, ALL_TIME)
)
_COUNT_NAMES: Final = {IMPRESSIONS: "impressions", INTERACTIONS: "interactions"}


def _features(family: str, owner: str, counts: tuple[tuple[int, int], ...], rates: tuple[tuple[str, int], ...]) -> tuple[Feature, ...]:
    counted = [
        Feature(
            name=f"{owner}_{_COUNT_NAMES[counter]}_{_SPANS[window][0]}",
            family=family,
            default=0.0,
            meaning=f"{_COUNT_NAMES[counter]} of the {owner}, {_SPANS[window][1]}",
        )
        for counter, window in counts
    ]
    rated = [
        Feature(
            name=f"{owner}_{name}_{_SPANS[window][0]}",
            family=family,
            default=_RATES[_PLACE[name]].prior,
            meaning=f"{_RATES[_PLACE[name]].meaning}, of the {owner}, {_SPANS[window][1]}, smoothed",
        )
        for name, window in rates
    ]
    return (*counted, *rated)


ITEM_FEATURES: Final = _features(ITEM_FAMILY, "item", _ITEM_COUNTS, _ITEM_RATES)
TYPE_FEATURES: Final = _features(TYPE_FAMILY, "type", _TYPE_COUNTS, _TYPE_RATES)

_ITEM_COUNT_AT: Final = ([window for _, window in _ITEM_COUNTS], [counter for counter, _ in _ITEM_COUNTS])
_ITEM_RATE_AT: Final = ([window for _, window in _ITEM_RATES], [_PLACE[name] for name, _ in _ITEM_RATES])
_TYPE_COUNT_AT: Final = ([window for _, window in _TYPE_COUNTS], [counter for counter, _ in _TYPE_COUNTS])
_TYPE_RATE_AT: Final = ([window for _, window in _TYPE_RATES], [_PLACE[name] for name, _ in _TYPE_RATES])


def _smoothed(tallies: Floats, prior: Floats) -> Floats:
    """(…, n_rates) from (…, n_counters) and a prior that broadcasts to it."""
    successes = tallies[..., _NUMERATORS] * _SCALES
    successes += STRENGTH * prior
    successes /= tallies[..., _DENOMINATORS] + STRENGTH
    smoothed: Floats = successes
    return smoothed


def overall_rates(overall: Floats) -> Floats:
    """(n_rates,) float64: everything's rates of all time, from (n_windows, n_counters)."""
    return _smoothed(overall[ALL_TIME], _CONSTANTS)


def type_rates(tallies: Floats, overall: Floats) -> Floats:
    """(n, n_windows, n_rates) float64 from the types' tallies (n, n_windows, n_counters) and everything's (n_windows, n_counters)."""
    of_all_time = _smoothed(tallies[:, ALL_TIME], overall_rates(overall))
    rates = _smoothed(tallies, of_all_time[:, None, :])
    rates[:, ALL_TIME] = of_all_time
    return rates


def fill(item_out: Floats, type_out: Floats, candidates: Candidates) -> None:
    """Writes (n_item_features, n_candidates) and (n_type_features, n_candidates), finite whatever was counted."""
    of_types = type_rates(candidates.type_tallies.astype(np.float64), candidates.overall_tallies.astype(np.float64))
    items = candidates.item_tallies.astype(np.float64)
    of_items = _smoothed(items, of_types)
    counts = len(_ITEM_COUNTS)
    item_out[:counts] = items[:, _ITEM_COUNT_AT[0], _ITEM_COUNT_AT[1]].T
    item_out[counts:] = of_items[:, _ITEM_RATE_AT[0], _ITEM_RATE_AT[1]].T
    counts = len(_TYPE_COUNTS)
    type_out[:counts] = candidates.type_tallies[:, _TYPE_COUNT_AT[0], _TYPE_COUNT_AT[1]].T
    type_out[counts:] = of_types[:, _TYPE_RATE_AT[0], _TYPE_RATE_AT[1]].T
