"""Counters by key and day, in sorted arrays: what a window's sum is made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_DAY_SHIFT = 40
_ROW_MASK = (1 << _DAY_SHIFT) - 1


def keys_of(days: Ints, rows: Ints) -> Ints:
    """(n,) int64 that sort by day, then by row. Days count from 1970-01-01 and may be negative."""
    return (days << _DAY_SHIFT) | rows


class Daybook:
    """The counters of each (day, row), absolute.

    Two levels: new entries go to a small one, which is merged into the large one when it is full.
    """

    def __init__(self, counter_count: int, *, fresh_limit: int = 65_536) -> None:
        self._keys: Ints = np.empty(0, dtype=np.int64)
        self._values: Ints = np.empty((0, counter_count), dtype=np.int64)
        self._fresh_keys: Ints = np.empty(0, dtype=np.int64)
        self._fresh_values: Ints = np.empty((0, counter_count), dtype=np.int64)
        self._fresh_limit = fresh_limit

    def __len__(self) -> int:
        return len(self._keys) + len(self._fresh_keys)

    def replace(self, keys: Ints, values: Ints) -> Ints:
        """Sets the counters of `keys`, each at most once among them; returns by how much each changed.

        Args:
            keys: (n,) int64 of `keys_of`.
            values: (n, n_counters) int64.

        Returns:
            (n, n_counters) int64, new minus old.
        """
        change = values.copy()
        missing = np.ones(len(keys), dtype=np.bool_)
        for known_keys, known_values in ((self._keys, self._values), (self._fresh_keys, self._fresh_values)):
            if not len(known_keys):
                continue
            places = np.minimum(np.searchsorted(known_keys, keys), len(known_keys) - 1)
            found = known_keys[places] == keys
            change[found] -= known_values[places[found]]
            known_values[places[found]] = values[found]
            missing &= ~found
        if missing.any():
            self._insert(keys[missing], values[missing])
        return change

    def on(self, day: int) -> tuple[Ints, Ints]:
        """The rows (n,) that have counters on a day, and the counters (n, n_counters)."""
        rows, values = [], []
        for known_keys, known_values in ((self._keys, self._values), (self._fresh_keys, self._fresh_values)):
            first, last = np.searchsorted(known_keys, (day << _DAY_SHIFT, (day + 1) << _DAY_SHIFT))
            rows.append(known_keys[first:last] & _ROW_MASK)
            values.append(known_values[first:last])
        return np.concatenate(rows), np.concatenate(values)

    def _insert(self, keys: Ints, values: Ints) -> None:
        self._fresh_keys, self._fresh_values = _merged(self._fresh_keys, self._fresh_values, keys, values)
        if len(self._fresh_keys) > self._fresh_limit:
            self._keys, self._values = _merged(self._keys, self._values, self._fresh_keys, self._fresh_values)
            self._fresh_keys, self._fresh_values = self._fresh_keys[:0], self._fresh_values[:0]


def _merged(keys: Ints, values: Ints, more_keys: Ints, more_values: Ints) -> tuple[Ints, Ints]:
    all_keys = np.concatenate((keys, more_keys))
    order = np.argsort(all_keys, kind="stable")
    return all_keys[order], np.concatenate((values, more_values))[order]
