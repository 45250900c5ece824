"""Whether the users were shared out as planned. If not, whatever broke the sharing may have broken the comparison too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

ALARM = 0.001
"""A p-value below this one voids a readout."""


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Users seen against users expected."""

    expected: tuple[float, ...]
    chi_square: float
    p_value: float

    @property
    def void(self) -> bool:
        """Nothing may be concluded from the experiment."""
        return self.p_value < ALARM


def sample_ratio(counts: Sequence[int], weights: Sequence[float]) -> SampleRatio:
    """Pearson's chi-square test of the counts against the weights: χ² = Σ (seen − expected)² ÷ expected, variants − 1 degrees of freedom.

    Source: Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019.

    Args:
        counts: (n_variants,) users exposed.
        weights: (n_variants,) planned shares; only their proportions matter. Users where none were planned are a mismatch for sure.
    """
    total, whole = sum(counts), math.fsum(weights)
    if total == 0 or whole <= 0:
        return SampleRatio(tuple(0.0 for _ in counts), 0.0, 1.0)
    expected = tuple(total * weight / whole for weight in weights)
    if any(seen and not due for seen, due in zip(counts, expected, strict=True)):
        return SampleRatio(expected, math.inf, 0.0)
    pairs = [(seen, due) for seen, due in zip(counts, expected, strict=True) if due]
    chi_square = math.fsum((seen - due) ** 2 / due for seen, due in pairs)
    return SampleRatio(expected, chi_square, float(special.chdtrc(len(pairs) - 1, chi_square)) if len(pairs) > 1 else 1.0)
