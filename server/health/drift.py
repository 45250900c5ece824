"""The population stability index: how far a distribution has moved from the one a model learned from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 10
LEAST = 200
"""Values on either side below which nothing can be said."""

NOTABLE = 0.1
LARGE = 0.25
"""The customary bounds: below 0.1 stable, above 0.25 moved."""

FLOOR = 1e-4
"""Stands in for a share of nothing, so that a new value counts as far and not as infinitely far."""

Floats = NDArray[np.float64]


def stability_index(reference: Floats, recent: Floats) -> float | None:
    """Σ (rᵢ − eᵢ) · ln(rᵢ / eᵢ) over the reference's deciles and one more bin for missing values (Siddiqi, Credit Risk Scorecards, 2006).

    `reference` and `recent`: (n,) and (m,) values of one feature, NaN where missing. None where either side has fewer than 200.
    """
    if len(reference) < LEAST or len(recent) < LEAST:
        return None
    known = reference[~np.isnan(reference)]
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS, method="inverted_cdf")) if len(known) else np.empty(0)
    expected, found = _shares(reference, edges), _shares(recent, edges)
    return float(np.sum((found - expected) * np.log(found / expected)))


def _shares(values: Floats, edges: Floats) -> Floats:
    """The share of values up to each edge, above the last, and missing: (len(edges) + 2,), none of them 0."""
    missing = np.isnan(values)
    counts = np.bincount(np.searchsorted(edges, values[~missing], side="left"), minlength=len(edges) + 1)
    return np.maximum(np.append(counts, missing.sum()) / len(values), FLOOR)
