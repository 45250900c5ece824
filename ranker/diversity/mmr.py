"""Maximal marginal relevance: a slate whose items are relevant and unlike each other.

Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing summaries", SIGIR 1998.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Floats


def mmr(relevance: Floats, similarities: Floats, *, count: int, balance: float) -> NDArray[np.int64]:
    """Chooses one after the other the item with the largest `balance · relevance − (1 − balance) · largest similarity to a chosen one`.

    The first is the most relevant, whatever the balance. Equal values: the one that stands first, so items come best first and, where
    relevance is equal, by item id.

    Args:
        relevance: (n,) float64, largest first.
        similarities: (n, n) float64, symmetric, rows and columns in the order of `relevance`; may be negative.
        count: how many to choose, at most n.
        balance: λ, 0 to 1; 1 is relevance only.

    Returns:
        (count,) int64, places in `relevance` in the order of choice.
    """
    if balance >= 1.0:
        return np.arange(count, dtype=np.int64)
    chosen = np.empty(count, dtype=np.int64)
    if not count:
        return chosen
    gain = balance * relevance
    penalties = (1.0 - balance) * similarities
    best = 0
    chosen[0] = best
    gain[best] = -np.inf
    nearest = penalties[best].copy()
    value = np.empty_like(gain)
    for place in range(1, count):
        np.subtract(gain, nearest, out=value)
        best = int(value.argmax())
        chosen[place] = best
        gain[best] = -np.inf
        np.maximum(nearest, penalties[best], out=nearest)
    return chosen
