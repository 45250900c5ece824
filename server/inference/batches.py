"""A difference from periods in which users were shared out differently, as a bandit does.

Pooling such periods is wrong twice: a variant that had more users in good weeks looks better than it is, and a variant that was unlucky at
first keeps its bad luck, because it got few users later. Within one period the shares stand still and the comparison is fair; so periods
are compared within themselves, each brought to its own standard error, and then added:

    Z = Σ_t (δ_t ÷ se_t) ÷ √T,   δ = Σ_t (δ_t ÷ se_t) ÷ Σ_t (1 ÷ se_t),   se = √T ÷ Σ_t (1 ÷ se_t)

Source: Zhang, Janson and Murphy, "Inference for batched bandits", NeurIPS 2020 (batched least squares): Z is standard normal although the
shares of a period follow from the periods before it, which does not hold for the pooled difference. δ is the effect where it is the same in
every period.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from server.inference.difference import Difference

TUNING_PERIODS = 10
"""For the always-valid interval, whose steps are periods here: the number of periods at which it is tightest, about."""


def batched(periods: Sequence[Difference]) -> Difference | None:
    """The difference over periods, all on one scale; its `count` is the number of periods. None without any.

    Args:
        periods: the difference within each, with enough users for a normal approximation (25 conversions per variant).
    """
    if not periods:
        return None
    precision = math.fsum(1.0 / one.standard_error for one in periods)
    value = math.fsum(one.value / one.standard_error for one in periods) / precision
    freedom = math.fsum(one.degrees_of_freedom for one in periods)
    return Difference(periods[0].scale, value, math.sqrt(len(periods)) / precision, freedom, len(periods))
