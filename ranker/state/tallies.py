"""Counters per key over the last days and all time, kept up to date as days and counts change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranker.features.counters import ALL_TIME, COUNTERS, LABEL_NANOS, WINDOW_COUNT, WINDOW_DAYS
from ranker.state.daybook import Daybook, keys_of
from ranker.state.rows import Rows, grown

Ints = NDArray[np.int64]


class WindowedTallies:
    """Sums over the UTC day of today and the days before it, for windows of 1, 7 and 30 days, and over all time.

    A count on a day after today (clocks differ) enters all time at once and the windows when its day comes.
    """

    def __init__(self, rows: Rows, today: int) -> None:
        """`today` counts days from 1970-01-01 (UTC)."""
        self._rows = rows
        self._book: Daybook = Daybook(len(COUNTERS), halved=LABEL_NANOS)
        self._sums: Ints = np.zeros((rows.end, WINDOW_COUNT, len(COUNTERS)), dtype=np.int64)
        self.today = today
        """The day the windows end with."""

    def at(self, rows: Ints) -> Ints:
        """(n, n_windows, n_counters) int64 for (n,) rows; zeros for row 0 and for rows nothing was counted for."""
        if len(self._sums) < self._rows.end:
            self._grow()
        sums: Ints = self._sums[rows]
        return sums

    def replace(self, keys: Sequence[str], days: Sequence[int], counters: Sequence[Sequence[int]]) -> None:
        """Sets what was counted for each key on each day. Saying it again changes nothing; where a key's day comes twice, the last wins."""
        if not keys:
            return
        rows = np.fromiter(map(self._rows.add, keys), dtype=np.int64, count=len(keys))
        day = np.asarray(days, dtype=np.int64)
        values = np.asarray(counters, dtype=np.int64)
        # Kept: rows that found room, and of each (day, row) the last, which comes first when read backwards.
        backwards = np.flatnonzero(rows)[::-1]
        places, first = np.unique(keys_of(day[backwards], rows[backwards]), return_index=True)
        kept = backwards[first]
        rows, day = rows[kept], day[kept]
        self._grow()
        change = self._book.replace(places, values[kept])
        np.add.at(self._sums[:, ALL_TIME], rows, change)
        for window, length in enumerate(WINDOW_DAYS):
            inside = (day <= self.today) & (day > self.today - length)
            np.add.at(self._sums[:, window], rows[inside], change[inside])

    def advance(self, today: int) -> None:
        """Moves the windows on to a later day; an earlier one changes nothing."""
        if today == self.today + 1:
            self.today = today
            coming, came = self._book.on(today)
            for window, length in enumerate(WINDOW_DAYS):
                going, went = self._book.on(today - length)
                # A row occurs once per day, so plain indexing adds it once.
                self._sums[coming, window] += came
                self._sums[going, window] -= went
        elif today > self.today:
            self.today = today
            self._sums[:, :ALL_TIME] = 0
            for ago in range(max(WINDOW_DAYS)):
                rows, values = self._book.on(today - ago)
                for window, length in enumerate(WINDOW_DAYS):
                    if ago < length:
                        self._sums[rows, window] += values

    def _grow(self) -> None:
        if len(self._sums) < self._rows.end:
            sums = np.zeros((grown(len(self._sums), self._rows.end), *self._sums.shape[1:]), dtype=np.int64)
            sums[: len(self._sums)] = self._sums
            self._sums = sums
