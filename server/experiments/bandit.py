"""A bandit over variants: weights follow what was seen, on a schedule, and never fall below a floor.

Every variant's weight is the probability that it is the best, so that trying and using are balanced without a tuning parameter: Thompson
sampling, in its batched form. The floor keeps every variant measurable, and every propensity away from 0.

Source: Thompson, "On the likelihood that one unknown probability exceeds another", Biometrika 25, 1933; Scott, "A modern Bayesian look at
the multi-armed bandit", Applied Stochastic Models in Business and Industry 26, 2010 (randomised probability matching).
"""

from __future__ import annotations

from collections.abc import Mapping

from server.inference.bayes import Beta, Normal, Posterior, outlook_of
from server.inference.estimate import Estimate

FLOOR = 0.05
"""The least weight of a variant, where an experiment says no other."""


def conversion_posterior(user_count: float, converted_count: float) -> Posterior:
    """What is known of a share of users, a flat prior before: Beta(1 + converted, 1 + others). Users need not be whole.

    Raises:
        ValueError: more converted than there are.
    """
    if not 0 <= converted_count <= user_count:
        raise ValueError(f"{converted_count} of {user_count} users cannot have converted")
    return Beta(1.0 + converted_count, 1.0 + user_count - converted_count)


def mean_posterior(estimate: Estimate) -> Posterior:
    """What is known of a mean over many users: normal around it."""
    return Normal(estimate.value, estimate.standard_error)


def thompson_weights(posteriors: Mapping[str, Posterior], floor: float = FLOOR) -> dict[str, float]:
    """The next weights: floor + (1 − K·floor) · P(best), which add up to 1.

    Args:
        posteriors: by variant, of a metric that is better where it is higher.
        floor: from 0 to 1 ÷ K.

    Raises:
        ValueError: there is no variant, or the floor is outside its range.
    """
    count = len(posteriors)
    if not count:
        raise ValueError("a bandit needs at least one variant")
    if not 0 <= floor * count <= 1:
        raise ValueError(f"a floor of {floor} under each of {count} variants leaves less than nothing to share out")
    best = outlook_of(list(posteriors.values())).best
    return {name: float(floor + (1.0 - count * floor) * share) for name, share in zip(posteriors, best, strict=True)}
