"""What counters say."""

from __future__ import annotations

from collections.abc import Mapping

from collector.attribution import NANOS

Counters = dict[str, int]
"""Sums by counter, as tallies name them."""


def label_sum(counters: Mapping[str, int]) -> float:
    """The sum of labels, back from billionths."""
    return counters.get("label_nanos", 0) / NANOS


def outcome_value(counters: Mapping[str, int]) -> float:
    """The sum of outcome values, back from units and billionths."""
    return counters.get("outcome_units", 0) + counters.get("outcome_nanos", 0) / NANOS


def type_counts(counters: Mapping[str, int]) -> dict[str, int]:
    """Interactions by type."""
    return {name.removeprefix("type_"): count for name, count in counters.items() if name.startswith("type_") and count}


def ratio(part: float, whole: float) -> float | None:
    """A rate; None where it is not defined."""
    return part / whole if whole else None
