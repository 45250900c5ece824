"""Rows that tell two scorers of a forest apart if anything does."""

from __future__ import annotations

from typing import Final

import numpy as np

from ranker.features.columns import Floats
from ranker.scoring.layout import CATEGORY, Layout

PROBE_ROWS: Final = 205
"""Three blocks of 64 and some rows over: whole blocks, and rows that are scored alone."""

SPECIAL: Final = np.array(
    [
        np.nan,
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        5e-324,
        -5e-324,
        1e-35,
        float(np.float32(1e-35)),
        1.1e-35,
        -1e-35,
        -1.1e-35,
        1e308,
        -1e308,
        2.0**31,
        -0.5,
    ]
)
"""What is missing, zero, nearly zero, huge, or no category."""


def probes(layout: Layout, feature_count: int, *, count: int = PROBE_ROWS, seed: int = 0) -> Floats:
    """(count, feature_count) float64: thresholds of the forest, their neighbours, categories, and special values; each feature's own."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, feature_count))
    columns = len(layout.column_features)
    column_of_split = np.repeat(np.arange(len(layout.starts) - 1) % columns, np.diff(layout.starts))
    most = 32 * int(np.diff(layout.category_words).max(initial=0)) + 2
    for feature in np.unique(layout.column_features).tolist():
        own = np.flatnonzero(layout.column_features == feature)
        thresholds = np.unique(layout.thresholds[np.isin(column_of_split, own)])
        with np.errstate(over="ignore"):  # next to the largest number is infinity
            pool = [thresholds, np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf), SPECIAL]
        if (layout.column_kinds[own] == CATEGORY).any():
            pool.append(np.arange(-1.0, most))
        # Every other row has something special in a feature, and plain numbers of the thresholds' size elsewhere.
        spread = float(np.abs(thresholds[np.isfinite(thresholds)]).max(initial=1.0))
        rows[:, feature] *= spread
        special = rng.random(count) < 0.5
        rows[special, feature] = rng.choice(np.concatenate(pool), int(special.sum()))
    return rows
