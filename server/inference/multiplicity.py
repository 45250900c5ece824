"""Several tests at once: p-values that may be held against the level one by one."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from server.inference.moments import Floats


class Correction(StrEnum):
    """What is kept below the level."""

    HOLM = "holm"
    """The chance that any of the tests is wrong."""
    BENJAMINI_HOCHBERG = "benjamini_hochberg"
    """The expected share of wrong ones among those called; more is found."""


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p-values, (n_tests,): max over j ≤ i of min(1, (m − j + 1)·p_(j)).

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    return _back(np.minimum(np.maximum.accumulate(steps), 1.0), order)


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p-values, (n_tests,): min over j ≥ i of min(1, m ÷ j · p_(j)).

    Source: Benjamini and Hochberg, "Controlling the false discovery rate", Journal of the Royal Statistical Society B 57, 1995.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _back(np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0), order)


def corrected(p_values: ArrayLike, correction: Correction) -> Floats:
    """Adjusted p-values by either."""
    return holm(p_values) if correction is Correction.HOLM else benjamini_hochberg(p_values)


def _back(steps: Floats, order: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> Floats:
    adjusted = np.empty_like(steps)
    adjusted[order] = steps
    return adjusted
