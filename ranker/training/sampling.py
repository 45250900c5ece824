"""Fewer impressions without a label, for faster training where labels are rare.

Only what is learned from is thinned. The slices that stop the training and that are reported keep every impression, so NDCG and its
intervals are what they would be without sampling and need no weights.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ranker.training.data import ROW_COLUMNS, TrainingData

CHUNK_ROWS = 50_000
"""Rows moved at once."""


def thinned(data: TrainingData, *, negatives_per_positive: float, seed: int) -> TrainingData:
    """The data with at most so many impressions without a label per one with a label, in each slate, 1 at least; 0: all.

    Which ones is chance, the same for the same seed. The rows are moved within their arrays: `data` must not be used again.
    """
    if not negatives_per_positive or not data.slate_count:
        return data
    slates = np.repeat(np.arange(data.slate_count), data.group_sizes)
    negative = data.labels <= 0
    positives = np.bincount(slates[~negative], minlength=data.slate_count)
    allowed = np.maximum(1, np.ceil(negatives_per_positive * positives)).astype(np.int64)
    # Each slate's negatives in an order of chance; the first so many of them stay.
    drawn = np.flatnonzero(negative)
    drawn = drawn[np.lexsort((np.random.default_rng(seed).random(drawn.size), slates[drawn]))]
    of_slate = slates[drawn]
    place = np.arange(drawn.size) - np.searchsorted(of_slate, of_slate)
    kept = ~negative
    kept[drawn[place < allowed[of_slate]]] = True
    rows = np.flatnonzero(kept)
    for begin in range(0, rows.size, CHUNK_ROWS):
        chunk = rows[begin : begin + CHUNK_ROWS]
        for name in ROW_COLUMNS:
            # A row never moves down: what is overwritten was moved before.
            getattr(data, name)[begin : begin + chunk.size] = getattr(data, name)[chunk]
    sizes = np.bincount(slates[rows], minlength=data.slate_count)
    columns = {name: getattr(data, name)[: rows.size] for name in ROW_COLUMNS}
    return replace(data, **columns, offsets=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64))
