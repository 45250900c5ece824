"""Values above a cap count as the cap, so that one extraordinary user does not decide an experiment.

Source: Kohavi, Tang and Xu, "Trustworthy online controlled experiments", 2020; Wilcox, "Introduction to robust estimation", 2012.
The cap is a quantile of all variants' users together: one per variant would take away the very effect it meets.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from server.inference.moments import Floats

QUANTILE = 0.999
"""Of the users whose value is not 0, where a metric is winsorised and says no other."""

FINENESS = 0.005
"""A cap read from a sketch is within this share of the quantile."""


def winsorised(values: ArrayLike, cap: float) -> Floats:
    """The values, those above the cap brought down to it, those below −cap up to it."""
    return np.clip(np.asarray(values, dtype=np.float64), -cap, cap)


class Sketch:
    """Sizes of values, counted in buckets whose width grows with them: quantiles of any number of values in constant memory.

    Source: Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees", PVLDB 12, 2019.
    """

    def __init__(self) -> None:
        self._growth = math.log((1 + FINENESS) / (1 - FINENESS))
        self._counts: dict[int, int] = {}

    def add(self, values: ArrayLike) -> None:
        """Takes in the sizes of values; 0 is left out."""
        sizes = np.abs(np.asarray(values, dtype=np.float64))
        buckets = np.ceil(np.log(sizes[sizes > 0]) / self._growth).astype(np.int64)
        for bucket, count in zip(*np.unique(buckets, return_counts=True), strict=True):
            self._counts[int(bucket)] = self._counts.get(int(bucket), 0) + int(count)

    def quantile(self, share: float) -> float | None:
        """The size below which this share of the sizes other than 0 is; None where there is none."""
        wanted, seen = share * (sum(self._counts.values()) - 1), 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen > wanted:
                return 2.0 * math.exp(bucket * self._growth) / (1 + math.exp(self._growth))
        return None
