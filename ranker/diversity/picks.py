"""What a diversifier chose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """Candidates in the order in which they were chosen, and what each was worth."""

    places: NDArray[np.int64]
    """(k,) int64, the chosen ones, first to last."""

    values: Floats
    """(n,) float64, by candidate: of a chosen one its value when it was chosen, of any other its value after the last choice.
    −inf: it could not be chosen."""
