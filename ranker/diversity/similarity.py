"""How alike the candidates of a request are."""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.sparse

from ranker.features.columns import Candidates, Floats

DENSE_CELLS: Final = 2_000_000
"""Candidates × tags up to which tags are a dense table; beyond it, a sparse one."""


def similarity(candidates: Candidates) -> Floats:
    """(n, n) float64, symmetric: the cosine of the embeddings where both candidates have one, else the Jaccard index of their tags.

    In the Jaccard index an equal (and known) item type counts as one shared tag: (|A ∩ B| + e) ÷ (|A ∪ B| + e) with e = 1 if the types are
    equal and 0 if not; nothing in common, or nothing at all, is 0. A cosine may be negative.
    """
    embeddings = candidates.embeddings
    if embeddings is None or not embeddings.present.any():
        return _jaccard(candidates)
    unit = embeddings.unit.astype(np.float64)
    cosine: Floats = np.clip(unit @ unit.T, -1.0, 1.0)
    if embeddings.present.all():
        return cosine
    both = embeddings.present[:, None] & embeddings.present[None, :]
    return np.where(both, cosine, _jaccard(candidates))


def _jaccard(candidates: Candidates) -> Floats:
    counts = candidates.tag_counts.astype(np.float64)
    codes = candidates.type_codes
    shared = _shared_tags(candidates)
    union = counts[:, None] + counts[None, :] - shared
    equal = (codes[:, None] == codes[None, :]) & (codes >= 0)[:, None]
    shared += equal
    union += equal
    # Where the union is empty nothing is shared either: 0 ÷ 1.
    shared /= np.maximum(union, 1.0)
    return shared


def _shared_tags(candidates: Candidates) -> Floats:
    """(n, n) float64, how many tags two candidates share."""
    count, tags = len(candidates.item_ids), len(candidates.tag_names)
    owners = np.repeat(np.arange(count), candidates.tag_counts)
    if count * tags <= DENSE_CELLS:
        # float32 counts exactly up to 2^24, and multiplies twice as fast.
        table = np.zeros((count, tags), dtype=np.float32)
        table[owners, candidates.tag_codes] = 1.0
        return (table @ table.T).astype(np.float64)
    sparse = scipy.sparse.csr_array((np.ones(len(owners)), (owners, candidates.tag_codes)), shape=(count, tags))
    shared: Floats = (sparse @ sparse.T).toarray()
    return shared


def diversity_score(similarities: Floats) -> float | None:
    """1 − mean pairwise similarity of (k, k) float64, within 0 to 1; None for fewer than two items."""
    count = len(similarities)
    if count < 2:
        return None
    pairs = count * (count - 1)
    mean = (float(similarities.sum()) - float(np.trace(similarities))) / pairs
    return min(1.0, max(0.0, 1.0 - mean))
