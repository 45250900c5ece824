"""Labels as LambdaRank wants them: whole grades, each with a gain.

A label lies in 0..1 and its gain is `2^(4·label) − 1`, so that a label of 1.0 is worth 15 and one of 0.4 (a click) 2.03. LightGBM
takes whole grades only, so labels are laid on a grid of 1/20: fine enough to tell every label of the default policy apart except
views a few seconds longer or shorter. The figures reported use the exact label; only training and early stopping use the grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRADES_PER_LABEL = 20
"""Steps of the grid between label 0 and label 1."""

LABEL_EXPONENT = 4.0
"""Label 1 has a gain of 2^LABEL_EXPONENT − 1."""

LABEL_GAIN: tuple[float, ...] = tuple(2.0 ** (LABEL_EXPONENT * grade / GRADES_PER_LABEL) - 1.0 for grade in range(GRADES_PER_LABEL + 1))
"""Gain of each grade, 0 to 20."""


def grades(labels: NDArray[np.float64]) -> NDArray[np.int32]:
    """The nearest grade of each label in 0..1; (n,) float64 → (n,) int32. A half is rounded up, and a positive label is never grade 0."""
    nearest = np.floor(labels * GRADES_PER_LABEL + 0.5).astype(np.int32)
    return np.asarray(np.where((labels > 0) & (nearest == 0), 1, nearest), dtype=np.int32)


def gains(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """`2^(4·label) − 1` of each exact label; (n,) float64."""
    return np.exp2(LABEL_EXPONENT * labels) - 1.0
