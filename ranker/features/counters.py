"""Which counters of the tallies features are made of, and over which spans."""

from __future__ import annotations

from typing import Final

COUNTERS: Final = (
    "impressions",
    "clicked",
    "acted",
    "positions",
    "interactions",
    "label_nanos",
    "type_view",
    "type_dismiss",
)
"""Counters kept in memory, in the order of their axis; named as in the tallies."""

IMPRESSIONS, CLICKED, ACTED, POSITIONS, INTERACTIONS, LABEL_NANOS, VIEWS, DISMISSALS = range(len(COUNTERS))

WINDOW_DAYS: Final = (1, 7, 30)
"""Lengths in UTC days of the windows that end with the present day, in the order of their axis; all time comes last."""

WINDOW_COUNT: Final = len(WINDOW_DAYS) + 1
"""The windows and all time."""

DAY, WEEK, MONTH, ALL_TIME = range(WINDOW_COUNT)

LABEL_UNIT: Final = 1e-9
"""One `label_nanos` in labels."""
