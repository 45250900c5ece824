"""How close a candidate's embedding is to those of the items the user liked."""

from __future__ import annotations

from math import nan
from typing import Final

import numpy as np

from ranker.features.columns import Candidates, Floats
from ranker.features.feature import family
from ranker.features.history import History

FAMILY: Final = "embedding"

FEATURES: Final = family(
    FAMILY,
    ("embedding_match", nan, "mean cosine with the embeddings of the items the user liked, weighted by label"),
    ("embedding_match_best", nan, "largest cosine with the embedding of an item the user liked"),
)


def fill(out: Floats, candidates: Candidates, history: History) -> None:
    """Writes (2, n_candidates); NaN where either side has no embedding, or theirs differ in size."""
    out.fill(np.nan)
    embeddings, liked, weights = candidates.embeddings, history.liked, history.liked_weights
    if embeddings is None or liked is None or weights is None or liked.shape[1] != embeddings.unit.shape[1]:
        return
    cosines = embeddings.unit @ liked.T
    present = embeddings.present
    out[0, present] = (cosines @ (weights / weights.sum()))[present]
    out[1, present] = cosines.max(axis=1)[present]
