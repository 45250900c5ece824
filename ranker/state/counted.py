"""Windowed tallies that are counted up event by event, in time order: what a ranker would have known then."""

from __future__ import annotations

from typing import Final

import numpy as np

from ranker.features.counters import ALL_TIME, COUNTERS, WINDOW_DAYS
from ranker.state.daybook import Daybook, Ints
from ranker.state.rows import Rows
from ranker.state.tallies import WindowedTallies

KEPT_DAYS: Final = max(WINDOW_DAYS) + 1
"""Days that a window may still need."""


class CountedDays(Daybook):
    """A page per day, for changes that come one by one."""

    def __init__(self, counter_count: int) -> None:
        super().__init__(counter_count)
        self._width = counter_count
        self._pages: dict[int, dict[int, Ints]] = {}

    def add(self, row: int, day: int, change: Ints) -> None:
        """Adds (n_counters,) int64 to a row's day."""
        page = self._pages.setdefault(day, {})
        counted = page.get(row)
        if counted is None:
            page[row] = change.copy()
        else:
            counted += change

    def forget(self, before: int) -> None:
        """Drops the days before this one."""
        for day in [day for day in self._pages if day < before]:
            del self._pages[day]

    def on(self, day: int) -> tuple[Ints, Ints]:
        """The rows (n,) that have counters on a day, and the counters (n, n_counters)."""
        page = self._pages.get(day)
        if not page:
            return np.empty(0, dtype=np.int64), np.empty((0, self._width), dtype=np.int64)
        return np.fromiter(page, dtype=np.int64, count=len(page)), np.stack(list(page.values()))


class CountedTallies(WindowedTallies):
    """The sums of `WindowedTallies`, from changes instead of from what the database holds."""

    def __init__(self, rows: Rows, today: int) -> None:
        """As `WindowedTallies`."""
        super().__init__(rows, today)
        self._book = self._days = CountedDays(len(COUNTERS))

    def add(self, key: str, day: int, change: Ints) -> None:
        """Counts (n_counters,) int64 for a key, on a day up to today."""
        row = self._rows.add(key)
        if row == 0:
            return
        if row >= len(self._sums):
            self._grow()
        sums = self._sums[row]
        sums[ALL_TIME] += change
        if day > self.today - KEPT_DAYS:
            self._days.add(row, day, change)
        for window, length in enumerate(WINDOW_DAYS):
            if self.today - length < day <= self.today:
                sums[window] += change

    def advance(self, today: int) -> None:
        """Moves the windows on to a later day; an earlier one changes nothing."""
        super().advance(today)
        self._days.forget(self.today - KEPT_DAYS)
