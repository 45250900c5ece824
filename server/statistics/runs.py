"""Sessions that nobody stated: interactions of one user with one session id, without a gap of more than 30 minutes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from server.statistics.day_columns import NO_SESSION, DayColumns
from server.statistics.period import DAY, Period
from server.statistics.user_totals import MILLISECOND, Integers, Names, milliseconds_of
from server.statistics.users import SESSION_GAP

GAP = SESSION_GAP // MILLISECOND
RUN = np.dtype([("user", "<i8"), ("session", "<i8"), ("start", "<i8"), ("end", "<i8"), ("count", "<i8")])
"""Places of user and session; milliseconds since 1970; interactions."""


class Runs:
    """Fed day by day, in order; `users`, `counts` and `lengths` are those of runs that began in the period."""

    def __init__(self, period: Period, users: Names) -> None:
        self._users = users
        self._start, self._end = milliseconds_of(period.start), milliseconds_of(period.end)
        self._open: list[tuple[str, NDArray[np.void]]] = []
        """Runs of the day before that may go on, with the ids of their sessions."""
        self._closed: list[NDArray[np.void]] = []

    @property
    def users(self) -> Integers:
        """(n_runs,) places."""
        return self._all["user"]

    @property
    def counts(self) -> Integers:
        """(n_runs,) interactions."""
        return self._all["count"]

    @property
    def lengths(self) -> Integers:
        """(n_runs,) milliseconds."""
        every = self._all
        lengths: Integers = every["end"] - every["start"]
        return lengths

    def feed(self, day: datetime, columns: DayColumns, inferred: Sequence[bool]) -> None:
        """Takes a day in. `inferred`: which of the columns' sessions nobody stated."""
        sessions = Names()
        sessions.places(columns.sessions)
        carried = np.zeros(len(self._open), RUN)
        for place, (name, run) in enumerate(self._open):
            carried[place] = run
            carried[place]["session"] = sessions.places([name])[0]
        rows = columns.rows[columns.rows["session"] != NO_SESSION]
        rows = rows[np.array(inferred, dtype=np.bool_)[rows["session"]]]
        found = np.zeros(len(rows), RUN)
        found["user"], found["session"], found["count"] = self._users.places(columns.users)[rows["user"]], rows["session"], 1
        found["start"] = found["end"] = milliseconds_of(day) + rows["time"].astype(np.int64)
        runs = _joined(np.concatenate([carried, found]))
        goes_on = runs["end"] + GAP >= milliseconds_of(day) + DAY // MILLISECOND
        names = sessions.listed()
        self._open = [(names[run["session"]], run) for run in runs[goes_on]]
        self._close(runs[~goes_on])

    def finish(self) -> None:
        """No day comes any more."""
        if self._open:
            self._close(np.array([tuple(run) for _, run in self._open], RUN))
        self._open = []

    @property
    def _all(self) -> NDArray[np.void]:
        return np.concatenate([np.zeros(0, RUN), *self._closed])

    def _close(self, runs: NDArray[np.void]) -> None:
        self._closed.append(runs[(runs["start"] >= self._start) & (runs["start"] < self._end)])


def _joined(runs: NDArray[np.void]) -> NDArray[np.void]:
    """Runs that follow each other within the gap, as one. None of them overlap."""
    if not len(runs):
        return runs
    runs = runs[np.lexsort((runs["end"], runs["start"], runs["session"], runs["user"]))]
    begins = np.ones(len(runs), np.bool_)
    same = (runs["user"][1:] == runs["user"][:-1]) & (runs["session"][1:] == runs["session"][:-1])
    begins[1:] = ~same | (runs["start"][1:] - runs["end"][:-1] > GAP)
    firsts = np.flatnonzero(begins)
    joined = runs[firsts].copy()
    joined["end"] = runs["end"][np.append(firsts[1:], len(runs)) - 1]
    joined["count"] = np.add.reduceat(runs["count"], firsts)
    return joined
