"""Maximal marginal relevance: a slate whose items are relevant and unlike each other.

Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing summaries", SIGIR 1998.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranker.diversity.picks import Picks, by_relevance
from ranker.diversity.quota import Quota
from ranker.diversity.similarity import SimilarityRows
from ranker.features.columns import Floats


def mmr(
    relevance: Floats,
    similarities: SimilarityRows,
    *,
    count: int,
    balance: float,
    given: Sequence[int] = (),
    quota: Quota | None = None,
) -> Picks:
    """Chooses one after the other the item with the largest `balance · relevance − (1 − balance) · largest similarity to a chosen one`.

    The first is the most relevant, whatever the balance, unless something is given. Similarities are taken with their sign. Equal values:
    the one that stands first, so items come best first and, where relevance is equal, by item id.

    Args:
        relevance: (n,) float64, finite, largest first.
        similarities: of the n, rows and columns in the order of `relevance`; asked for the chosen ones only.
        count: how many to choose. Fewer are chosen where no more may be.
        balance: λ, 0 to 1; 1 is relevance only.
        given: places that stand in the slate anyway: they are not chosen, and what is chosen is compared with them, too.
        quota: the most items per type; None: no bound.
    """
    gain = balance * relevance
    for place in given:
        gain[place] = -np.inf
    if quota is not None:
        for place in given:
            quota.take(place, gain)
        quota.close(gain)
    if balance >= 1.0:
        return by_relevance(gain, count=count, quota=quota)
    chosen: list[int] = []
    values = np.full(len(gain), -np.inf)
    nearest: Floats | None = None
    distaste = 1.0 - balance
    for place in given:
        nearest = _nearer(nearest, similarities.row(place), distaste)
    while len(chosen) < count:
        value = gain if nearest is None else gain - nearest
        best = int(value.argmax()) if len(value) else 0
        if not len(value) or value[best] == -np.inf:
            break
        chosen.append(best)
        values[best] = value[best]
        gain[best] = -np.inf
        if quota is not None:
            quota.take(best, gain)
        if len(chosen) < count:
            nearest = _nearer(nearest, similarities.row(best), distaste)
    left = gain > -np.inf
    values[left] = gain[left] if nearest is None else (gain - nearest)[left]
    return Picks(places=np.array(chosen, dtype=np.int64), values=values)


def _nearer(nearest: Floats | None, row: Floats, distaste: float) -> Floats:
    penalty: Floats = distaste * row
    return penalty if nearest is None else np.maximum(nearest, penalty, out=nearest)
