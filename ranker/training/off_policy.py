"""What another policy would have earned, estimated from what this one earned and the probabilities it showed things with.

The unit is an impression: an item at a position of a slate, its reward (the label of what became of it), the probability `propensity` with
which the logging policy put it there, and the probability `target` with which the policy in question would have. Weights are target ÷
propensity. With reward r, weight w and n impressions,

    IPS       mean of w·r                              Horvitz and Thompson (1952)
    clipped   mean of min(w, cap)·r                    Ionides (2008): less variance, biased downwards
    SNIPS     Σ w·r ÷ Σ w                              Swaminathan and Joachims (NeurIPS 2015)
    DR        mean of v + w·(r − q)                    Dudík, Langford and Li (ICML 2011)

where q is a model's guess of this impression's reward and v its guess of what the target policy would have got in its place.

Standard errors are those of a mean over clusters (the slates): impressions of one slate are seen by one person at one moment and are not
independent. For SNIPS it is that of the linearised ratio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_EFFECTIVE_SAMPLE = 200.0
MIN_EFFECTIVE_CONVERSIONS = 30.0
CAP = 10.0
"""Largest weight of the clipped estimate."""

NO_RANDOMNESS = (
    "every impression was shown with probability 1: a log without randomness says nothing of what it did not show; "
    "let an experiment explore, with a few percent of the traffic"
)

TINY = 1e-9
Z = 1.959963984540054
"""Of a 95 % interval."""

Reason = Literal[
    "NO_PROPENSITIES", "NO_RANDOMNESS", "CANDIDATES_NOT_SHOWN", "NO_OVERLAP", "FEW_EFFECTIVE_IMPRESSIONS", "FEW_EFFECTIVE_CONVERSIONS"
]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LoggedImpressions:
    """What was logged; all (impressions,)."""

    rewards: Floats
    """At least 0; above 0 is a conversion."""
    propensities: Floats
    """Above 0, at most 1; NaN: not logged, and the impression is left out."""
    targets: Floats
    """Probability that the policy in question puts this item at this position."""
    clusters: NDArray[np.int64]
    """A code per slate."""
    guesses: Floats | None = None
    """q of each impression; None: there is no model of rewards, and no DR."""
    target_guesses: Floats | None = None
    """v of each impression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate of the mean reward per impression under the policy in question."""

    value: float
    standard_error: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - Z * self.standard_error

    @property
    def high(self) -> float:
        """Upper end."""
        return self.value + Z * self.standard_error


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyValue:
    """What the log says of a policy, or why it says nothing."""

    impression_count: int
    """Impressions with a propensity."""
    logged_value: float | None
    """Mean reward of those as they were shown; None: there are none."""
    effective_sample: float
    """(Σ w)² ÷ Σ w² (Kish, 1965): so many impressions, all weighed alike, would tell as much."""
    effective_conversions: float
    """The same over the impressions with a reward: what the estimates really stand on."""
    largest_weight: float
    mean_weight: float
    """Close to 1 where the log has a chance of everything that the policy would show; below it, that is not so, and values are too low."""
    refusal: Reason | None
    """Why there are no estimates; None: there are."""
    refusal_text: str
    """That in words."""
    estimates: dict[str, Estimate] = field(default_factory=dict)
    """By name: `ips`, `clipped_ips`, `snips`, and `dr` where there is a model of rewards; empty if refused."""


def evaluate(log: LoggedImpressions, *, cap: float = CAP) -> PolicyValue:
    """The value of a policy, refused where the log cannot tell it.

    Raises:
        ValueError: a probability or a reward is no such thing.
    """
    known = ~np.isnan(log.propensities)
    rewards, propensities, targets = log.rewards[known], log.propensities[known], log.targets[known]
    clusters = log.clusters[known]
    if ((propensities <= 0) | (propensities > 1)).any() or ((targets < 0) | (targets > 1 + TINY)).any() or np.isnan(targets).any():
        raise ValueError("propensities lie above 0 and at most at 1, target probabilities from 0 to 1")
    if not np.isfinite(rewards).all() or (rewards < 0).any():
        raise ValueError("rewards are finite and at least 0")
    weights = targets / propensities
    sample, conversions = effective_size(weights), effective_size(weights[rewards > 0])
    refusal = _refusal(propensities, weights, sample, conversions)
    estimates: dict[str, Estimate] = {}
    if refusal is None:
        estimates = {
            "ips": ips(rewards, weights, clusters),
            "clipped_ips": ips(rewards, np.minimum(weights, cap), clusters),
            "snips": snips(rewards, weights, clusters),
        }
        if log.guesses is not None and log.target_guesses is not None:
            estimates["dr"] = doubly_robust(rewards, weights, log.guesses[known], log.target_guesses[known], clusters)
    return PolicyValue(
        impression_count=int(known.sum()),
        logged_value=float(rewards.mean()) if rewards.size else None,
        effective_sample=sample,
        effective_conversions=conversions,
        largest_weight=float(weights.max()) if weights.size else 0.0,
        mean_weight=float(weights.mean()) if weights.size else 0.0,
        refusal=None if refusal is None else refusal[0],
        refusal_text="" if refusal is None else refusal[1],
        estimates=estimates,
    )


def refused(reason: Reason, text: str) -> PolicyValue:
    """Nothing to estimate from."""
    return PolicyValue(
        impression_count=0,
        logged_value=None,
        effective_sample=0.0,
        effective_conversions=0.0,
        largest_weight=0.0,
        mean_weight=0.0,
        refusal=reason,
        refusal_text=text,
    )


def ips(rewards: Floats, weights: Floats, clusters: NDArray[np.int64]) -> Estimate:
    """Inverse propensity scoring."""
    earned = weights * rewards
    value = float(earned.mean())
    return Estimate(value=value, standard_error=_clustered_error(earned - value, clusters, rewards.size))


def snips(rewards: Floats, weights: Floats, clusters: NDArray[np.int64]) -> Estimate:
    """Self-normalised inverse propensity scoring; the weights must not all be 0."""
    total = float(weights.sum())
    value = float((weights * rewards).sum() / total)
    return Estimate(value=value, standard_error=_clustered_error(weights * (rewards - value), clusters, total))


def doubly_robust(rewards: Floats, weights: Floats, guesses: Floats, target_guesses: Floats, clusters: NDArray[np.int64]) -> Estimate:
    """Right where the propensities are, whatever the guesses; less noisy the better the guesses are."""
    earned = target_guesses + weights * (rewards - guesses)
    value = float(earned.mean())
    return Estimate(value=value, standard_error=_clustered_error(earned - value, clusters, rewards.size))


def effective_size(weights: Floats) -> float:
    """(Σ w)² ÷ Σ w²; 0 where all weights are 0."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def _clustered_error(residuals: Floats, clusters: NDArray[np.int64], total: float) -> float:
    """Standard error of Σ residuals ÷ total, where those of a cluster may depend on each other. `residuals` add up to about 0."""
    _, codes = np.unique(clusters, return_inverse=True)
    sums = np.bincount(codes, weights=residuals)
    count = sums.size
    return float(np.sqrt((sums**2).sum() * count / (count - 1)) / total) if count > 1 else float("inf")


def _refusal(propensities: Floats, weights: Floats, sample: float, conversions: float) -> tuple[Reason, str] | None:
    if not propensities.size:
        return "NO_PROPENSITIES", "no impression has a logged propensity: nothing can be said of another policy"
    if (propensities > 1 - TINY).all():
        return "NO_RANDOMNESS", NO_RANDOMNESS
    if not (weights > 0).any():
        return "NO_OVERLAP", "the policy would have shown none of the logged impressions where they were shown"
    if sample < MIN_EFFECTIVE_SAMPLE:
        return (
            "FEW_EFFECTIVE_IMPRESSIONS",
            f"{propensities.size} impressions weigh as much as {sample:.0f}, and {MIN_EFFECTIVE_SAMPLE:.0f} are needed: "
            "the policy differs too much from the logged one, or too little was logged",
        )
    if conversions < MIN_EFFECTIVE_CONVERSIONS:
        return (
            "FEW_EFFECTIVE_CONVERSIONS",
            f"the impressions with a reward weigh as much as {conversions:.1f}, and {MIN_EFFECTIVE_CONVERSIONS:.0f} are needed: "
            "too few to tell",
        )
    return None
