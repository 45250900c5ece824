"""What each user did in a period, added up day by day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from runtime.timestamps import EPOCH
from server.statistics.day_columns import DAY_HOURS, HOUR_MILLISECONDS, DayColumns, Places
from server.statistics.period import DAY, Period

MILLISECOND = timedelta(milliseconds=1)
NEVER = np.iinfo(np.int64).min
MOST_TYPES = 2**15
Integers = NDArray[np.int64]


class Names:
    """Gives names places, in the order in which they come."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def places(self, names: Sequence[str]) -> Integers:
        """(n,) int64: where these stand."""
        known = self._places
        return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)

    def listed(self) -> list[str]:
        """All of them, by place."""
        return list(self._places)


class UserTotals:
    """Users by their places among `users`; each array is (n_users,)."""

    def __init__(self, period: Period, users: Names) -> None:
        self.period = period
        self.users = users
        self.counts = np.zeros(0, np.int64)
        """Interactions; 0: not active in the period."""
        self.days = np.zeros(0, np.int64)
        """UTC days with an interaction."""
        self.labels = np.zeros(0, np.float64)
        self.latest = np.zeros(0, np.int64)
        """Milliseconds since 1970; NEVER where there is none."""
        self._types = Names()
        self._pairs: list[Integers] = []
        """Users with the types of their interactions, as numbers; none twice in one of them."""

    def feed(self, day: datetime, columns: DayColumns) -> tuple[DayColumns, Integers]:
        """Takes a day in; returns what of it lies in the period, and the places of its users."""
        columns, places = columns.within(*bounds_of(self.period, day)), self.users.places(columns.users)
        self._grow()
        rows = columns.rows
        users = places[rows["user"]]
        found, counts = np.unique(users, return_counts=True)
        self.counts[found] += counts
        self.days[found] += 1
        np.add.at(self.labels, users, rows["label"])
        np.maximum.at(self.latest, users, milliseconds_of(day) + rows["time"].astype(np.int64))
        types = self._types.places(columns.types)
        self._pairs.append(np.unique(users * MOST_TYPES + types[rows["type"]]) if len(rows) else np.zeros(0, np.int64))
        return columns, places

    def types(self) -> Integers:
        """How many different types of interactions each had."""
        self._grow()
        pairs = np.unique(np.concatenate([np.zeros(0, np.int64), *self._pairs]))
        return np.bincount(pairs // MOST_TYPES, minlength=len(self.counts)).astype(np.int64)

    def active_since(self, moment: datetime) -> int:
        """Users with an interaction in the period, at that moment or later."""
        return int((self.latest >= milliseconds_of(moment)).sum())

    def _grow(self) -> None:
        missing = len(self.users) - len(self.counts)
        if missing > 0:
            self.counts, self.days = (np.append(of, np.zeros(missing, np.int64)) for of in (self.counts, self.days))
            self.labels = np.append(self.labels, np.zeros(missing))
            self.latest = np.append(self.latest, np.full(missing, NEVER, np.int64))


def milliseconds_of(moment: datetime) -> int:
    """Since 1970."""
    return (moment - EPOCH) // MILLISECOND


def bounds_of(period: Period, day: datetime) -> tuple[int, int]:
    """Where the period begins and ends within a day, in milliseconds of it."""
    start = 0 if period.start <= day else min(DAY, period.start - day) // MILLISECOND
    whole = DAY_HOURS * HOUR_MILLISECONDS
    end = whole if period.end - day >= DAY else max(timedelta(0), period.end - day) // MILLISECOND
    return start, end


def distinct(parts: Sequence[Places]) -> Integers:
    """The places that stand in any of them, once each."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *parts]))
