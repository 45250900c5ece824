"""Counters by key and day, in sorted arrays: what a window's sum is made of."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Kept = NDArray[np.int32] | NDArray[np.int64]
"""Counters as they are kept."""

_DAY_SHIFT = 40
_HALF_BITS = 31
_HALF = 1 << _HALF_BITS
_LOW = _HALF - 1
_ROW_MASK = (1 << _DAY_SHIFT) - 1


def keys_of(days: Ints, rows: Ints) -> Ints:
    """(n,) int64 that sort by day, then by row. Days count from 1970-01-01 and may be negative."""
    return (days << _DAY_SHIFT) | rows


class Daybook:
    """The counters of each (day, row), absolute.

    Two levels: new entries go to a small one, which is merged into the large one when it is full. Counters are kept in half the room
    until one comes that does not fit; sums of labels never do, and are kept in two halves.
    """

    def __init__(self, counter_count: int, *, halved: int | None = None, fresh_limit: int = 65_536) -> None:
        """`halved` is the counter that is kept in two halves; None: no counter is kept in less than its full room."""
        self._counter_count = counter_count
        self._halved = halved
        self._keys: Ints = np.empty(0, dtype=np.int64)
        self._values: Kept = self._pack(np.empty((0, counter_count), dtype=np.int64))
        self._fresh_keys: Ints = np.empty(0, dtype=np.int64)
        self._fresh_values: Kept = self._values
        self._fresh_limit = fresh_limit

    def __len__(self) -> int:
        return len(self._keys) + len(self._fresh_keys)

    @property
    def entry_bytes(self) -> int:
        """What an entry takes."""
        return int(self._keys.itemsize + self._values.itemsize * self._values.shape[1])

    def replace(self, keys: Ints, values: Ints) -> Ints:
        """Sets the counters of `keys`, each at most once among them; returns by how much each changed.

        Args:
            keys: (n,) int64 of `keys_of`.
            values: (n, n_counters) int64.

        Returns:
            (n, n_counters) int64, new minus old.
        """
        if self._halved is not None and not self._fit(values):
            self._widen()
        change = values.copy()
        missing = np.ones(len(keys), dtype=np.bool_)
        for known_keys, known_values in ((self._keys, self._values), (self._fresh_keys, self._fresh_values)):
            if not len(known_keys):
                continue
            places = np.minimum(np.searchsorted(known_keys, keys), len(known_keys) - 1)
            found = known_keys[places] == keys
            change[found] -= self._unpack(known_values[places[found]])
            known_values[places[found]] = self._pack(values[found])
            missing &= ~found
        if missing.any():
            self._insert(keys[missing], self._pack(values[missing]))
        return change

    def on(self, day: int) -> tuple[Ints, Ints]:
        """The rows (n,) that have counters on a day, and the counters (n, n_counters)."""
        rows, values = [], []
        for known_keys, known_values in ((self._keys, self._values), (self._fresh_keys, self._fresh_values)):
            first, last = np.searchsorted(known_keys, (day << _DAY_SHIFT, (day + 1) << _DAY_SHIFT))
            rows.append(known_keys[first:last] & _ROW_MASK)
            values.append(self._unpack(known_values[first:last]))
        return np.concatenate(rows), np.concatenate(values)

    def _fit(self, values: Ints) -> bool:
        """Whether (n, n_counters) int64 can be packed."""
        others = np.delete(values, self._halved, axis=1) if self._halved is not None else values
        least, most = others.min(initial=0), others.max(initial=0)
        halved = values[:, self._halved] if self._halved is not None else values
        return bool(least > -_HALF and most < _HALF and halved.min(initial=0) >= 0 and halved.max(initial=0) < _HALF << _HALF_BITS)

    def _pack(self, values: Ints) -> Kept:
        if self._halved is None:
            return values
        packed = np.empty((len(values), self._counter_count + 1), dtype=np.int32)
        packed[:, :-1] = np.where(np.arange(self._counter_count) == self._halved, values & _LOW, values)
        packed[:, -1] = values[:, self._halved] >> _HALF_BITS
        return packed

    def _unpack(self, kept: Kept) -> Ints:
        if self._halved is None:
            return kept.astype(np.int64, copy=False)
        values = kept[:, :-1].astype(np.int64)
        values[:, self._halved] |= kept[:, -1].astype(np.int64) << _HALF_BITS
        return values

    def _widen(self) -> None:
        """Gives every counter its full room, for good."""
        wide, fresh = self._unpack(self._values), self._unpack(self._fresh_values)
        self._halved = None
        self._values, self._fresh_values = wide, fresh

    def _insert(self, keys: Ints, values: Kept) -> None:
        self._fresh_keys, self._fresh_values = _merged(self._fresh_keys, self._fresh_values, keys, values)
        if len(self._fresh_keys) > self._fresh_limit:
            self._keys, self._values = _merged(self._keys, self._values, self._fresh_keys, self._fresh_values)
            self._fresh_keys, self._fresh_values = self._fresh_keys[:0], self._fresh_values[:0]


def _merged(keys: Ints, values: Kept, more_keys: Ints, more_values: Kept) -> tuple[Ints, Kept]:
    all_keys = np.concatenate((keys, more_keys))
    order = np.argsort(all_keys, kind="stable")
    return all_keys[order], cast("Kept", np.concatenate((values, more_values))[order])
