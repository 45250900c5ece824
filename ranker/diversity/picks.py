"""What a diversifier chose, and the choice by relevance alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.diversity.quota import Quota
from ranker.features.columns import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """Candidates in the order in which they were chosen, and what each was worth."""

    places: NDArray[np.int64]
    """(k,) int64, the chosen ones, first to last."""

    values: Floats
    """(n,) float64, by candidate: of a chosen one its value when it was chosen, of any other its value after the last choice.
    −inf: it could not be chosen."""


def by_relevance(gain: Floats, *, count: int, quota: Quota | None) -> Picks:
    """The first `count` of (n,) gains, largest first, that may be chosen; −inf: may not. `gain` is used up."""
    if quota is None:
        places: NDArray[np.int64] = np.flatnonzero(gain > -np.inf)[:count]
        return Picks(places=places, values=gain)
    chosen: list[int] = []
    values = gain.copy()
    for place in range(len(gain)):
        if len(chosen) == count:
            break
        if gain[place] > -np.inf:
            chosen.append(place)
            quota.take(place, gain)
    closed = gain == -np.inf
    closed[chosen] = False
    values[closed] = -np.inf
    return Picks(places=np.array(chosen, dtype=np.int64), values=values)
