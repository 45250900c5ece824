"""Rows by key, handed out once and never moved."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

MANY_ROWS = 200_000


class Rows:
    """Gives each key a row from 1 on; row 0 stands for every key that has none. Bounded: over `capacity` new keys get row 0."""

    def __init__(self, capacity: int) -> None:
        self._row_of: dict[str, int] = {}
        self._capacity = capacity
        self.refused_count = 0
        """Keys that found no room."""

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def end(self) -> int:
        """One past the last row in use; at least 1."""
        return len(self._row_of) + 1

    def add(self, key: str) -> int:
        """The key's row, a new one if it has none; 0 when there is no room."""
        row = self._row_of.get(key)
        if row is None:
            if len(self._row_of) >= self._capacity:
                self.refused_count += 1
                return 0
            row = len(self._row_of) + 1
            self._row_of[key] = row
        return row

    def get(self, key: str) -> int:
        """The key's row; 0 if it has none."""
        return self._row_of.get(key, 0)

    def find(self, keys: Iterable[str], count: int) -> NDArray[np.int64]:
        """(count,) int64: the rows of `count` keys, 0 where a key has none."""
        get = self._row_of.get
        return np.fromiter((get(key, 0) for key in keys), dtype=np.int64, count=count)


def grown(length: int, needed: int) -> int:
    """The length an array of `length` rows should get to hold `needed`.

    Half as much again, so that growing is rare; of many rows an eighth, so that little memory lies idle.
    """
    return max(needed, length + (length // 2 if length < MANY_ROWS else length // 8) + 64)
