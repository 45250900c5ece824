"""How many items of a type a slate takes at most."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Floats


class Quota:
    """The room that is left for each type while a slate is being chosen."""

    def __init__(self, type_codes: NDArray[np.int64], room: Mapping[int, int]) -> None:
        """`type_codes` is (n,) int64, the type of each candidate; `room` the most items by type code, types without an entry are free."""
        self._codes = type_codes
        self._room = dict(room)

    def close(self, gain: Floats) -> None:
        """Takes candidates of types without room out of (n,) gains, in place."""
        for code, room in self._room.items():
            if room <= 0:
                gain[self._codes == code] = -np.inf

    def take(self, place: int, gain: Floats) -> None:
        """Counts the candidate at `place` as chosen; where that fills its type, takes the rest of the type out of (n,) gains, in place."""
        code = int(self._codes[place])
        room = self._room.get(code)
        if room is None:
            return
        self._room[code] = room - 1
        if room <= 1:
            gain[self._codes == code] = -np.inf
