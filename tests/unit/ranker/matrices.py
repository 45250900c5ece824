"""Similarities that are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Matrix:
    """A matrix of similarities, and which of its rows were asked for."""

    def __init__(self, similarities: NDArray[np.float64]) -> None:
        self._similarities = similarities
        self.asked: set[int] = set()

    def row(self, place: int) -> NDArray[np.float64]:
        """The row of a place, not to be written to."""
        self.asked.add(place)
        row: NDArray[np.float64] = self._similarities[place]
        row.setflags(write=False)
        return row
