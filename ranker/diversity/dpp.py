"""A determinantal point process: a slate whose items span much of the space of what could be shown.

The fast greedy search for the most probable slate: Chen, Zhang and Zhou, "Fast greedy MAP inference for determinantal point process to
improve recommendation diversity", NeurIPS 2018, algorithm 1, with the trade-off of their section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from ranker.diversity.picks import Picks, by_relevance
from ranker.diversity.quota import Quota
from ranker.diversity.similarity import SimilarityRows
from ranker.features.columns import Floats

LEAST_VOLUME: Final = 1e-9
"""A candidate that adds less than this to the volume is as good as contained in what was chosen."""


def dpp(
    relevance: Floats,
    similarities: SimilarityRows,
    *,
    count: int,
    balance: float,
    given: Sequence[int] = (),
    quota: Quota | None = None,
) -> Picks:
    """Chooses one after the other the item that adds most to `balance · Σ relevance + (1 − balance) · log det S`.

    S are the similarities of the slate. They are positive semi-definite for cosines. For the Jaccard index with types they need not be,
    nor when only some candidates have an embedding: a volume that would turn negative counts as none. When nobody left adds volume (a
    16-dimensional embedding spans 16 items), the rest follows by relevance. Equal values: the one that stands first.

    Args and result as `mmr`. The values are what each choice added; of what followed by relevance, its relevance below all of those.
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
    size = len(gain)
    rows = np.zeros((min(size, count + len(given)), size))
    volume = np.ones(size)
    done = 0
    for place in given:
        done = _project(rows, volume, similarities.row(place), place, done)
    chosen: list[int] = []
    values = np.full(size, -np.inf)
    weight = 1.0 - balance
    while len(chosen) < count:
        value = np.where(volume > LEAST_VOLUME, gain + weight * np.log(np.maximum(volume, LEAST_VOLUME)), -np.inf)
        best = int(value.argmax()) if size else 0
        if not size or value[best] == -np.inf:
            break
        chosen.append(best)
        values[best] = value[best]
        gain[best] = -np.inf
        if quota is not None:
            quota.take(best, gain)
        if len(chosen) < count:
            done = _project(rows, volume, similarities.row(best), best, done)
    floor = weight * math.log(LEAST_VOLUME) - 1.0
    while len(chosen) < count and size:
        best = int(gain.argmax())
        if gain[best] == -np.inf:
            break
        chosen.append(best)
        values[best] = floor + gain[best]
        gain[best] = -np.inf
        if quota is not None:
            quota.take(best, gain)
    left = gain > -np.inf
    values[left] = np.where(volume > LEAST_VOLUME, gain + weight * np.log(np.maximum(volume, LEAST_VOLUME)), floor + gain)[left]
    return Picks(places=np.array(chosen, dtype=np.int64), values=values)


def _project(rows: Floats, volume: Floats, similarity: Floats, place: int, done: int) -> int:
    """Takes out of every candidate's volume the part that lies along the one at `place`; returns how many parts were taken out."""
    if volume[place] <= LEAST_VOLUME:
        return done  # a given item that others given already span
    # The diagonal is 1 by definition: an item without tags is as like itself as any.
    along = similarity - rows[:done].T @ rows[:done, place]
    along /= math.sqrt(volume[place])
    along[place] = math.sqrt(volume[place])
    rows[done] = along
    volume -= along * along
    np.maximum(volume, 0.0, out=volume)
    return done + 1
