"""Scores on a scale of their own, brought to 0 to 1 within a request, and the order they make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Floats


def relevance(scores: Floats) -> Floats:
    """(n,) float64 from (n,) finite scores: (score − least) ÷ (largest − least). The best has exactly 1; equal scores all have 1."""
    if not len(scores):
        return scores.copy()
    least, largest = float(scores.min()), float(scores.max())
    # Halved, so that the span of huge scores stays finite; relevance is a ratio and does not change.
    span = largest / 2 - least / 2
    if span <= 0.0:
        return np.ones(len(scores))
    scaled: Floats = np.minimum((scores / 2 - least / 2) / span, 1.0)
    return scaled


def best_first(scores: Floats, item_ids: Sequence[str]) -> NDArray[np.int64]:
    """(n,) int64: the places of (n,) scores, the largest first, equal ones by item id."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    if not (sorted_scores[1:] == sorted_scores[:-1]).any():
        return order
    # Only with ties: ids are compared in Python.
    listed = sorted(range(len(scores)), key=lambda place: (-scores[place], item_ids[place]))
    return np.array(listed, dtype=np.int64)
