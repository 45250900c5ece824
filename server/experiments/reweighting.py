"""What a bandit's next weights are, or why they stay. Pure.

What is known of each variant must not follow from the weights themselves: users count in the period of their first exposure, and every
variant is brought to the same mixture of periods (`standardising`). The posteriors are those of independent variants, so that each
weight is the probability to be best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from rankloop.v1 import experiment_pb2 as pb
from server.experiments.bandit import FLOOR, conversion_posterior, mean_posterior, thompson_weights
from server.experiments.design import MIN_CONVERSIONS, Design, Metric
from server.experiments.evening import comparable, evened, observed_of
from server.experiments.observed import Period
from server.experiments.readout import read_periods
from server.inference.bayes import Posterior
from server.inference.estimate import Estimate, Kind, adjusted, estimate
from server.inference.moments import Moments, together

UPDATE_INTERVAL = timedelta(days=1)
MIN_USERS = 100
"""Of every variant, before weights move."""
SMALLEST_MOVE = 0.005
"""Weights that would all move less than this stay: a change moves users, and ends what those of the period may still do."""
MAX_CHANGES = 1000
"""Changes of weights that an experiment can have: each of them stands in it for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a bandit's weights follow."""

    floor: float = FLOOR
    update_interval: timedelta = UPDATE_INTERVAL
    min_users: int = MIN_USERS


class Outcome(StrEnum):
    """What became of an update."""

    MOVED = "moved"
    TOO_FEW = "too_few"
    """Too few users or conversions to tell anything."""
    VOID = "void"
    """Users are not shared out as the weights say."""
    UNCHANGED = "unchanged"
    """The weights would hardly move."""
    FULL = "full"
    """It has had as many changes as it can have."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next weights, or why there are none."""

    outcome: Outcome
    why: str
    """For people."""
    weights: Mapping[str, float] | None = None
    """Only of MOVED."""


def rule_of(bandit: pb.Bandit) -> Rule:
    """A checked bandit's rule, with what it leaves out."""
    return Rule(
        floor=bandit.floor if bandit.HasField("floor") else FLOOR,
        update_interval=bandit.update_interval.ToTimedelta() if bandit.HasField("update_interval") else UPDATE_INTERVAL,
        min_users=bandit.min_users if bandit.HasField("min_users") else MIN_USERS,
    )


def decide(design: Design, rule: Rule, periods: Sequence[Period]) -> Decision:
    """The weights after those of `design`, by what was seen in all periods; the last one may go on."""
    if len(periods) > MAX_CHANGES:
        return Decision(Outcome.FULL, f"its weights changed {MAX_CHANGES:,} times; stop it, and take a longer interval")
    ratio = read_periods(replace(design, metrics=[design.primary]), periods).sample_ratio
    if ratio.void:
        return Decision(Outcome.VOID, f"users are not shared out as the weights say (p {ratio.p_value:.1g})")
    there = comparable(design.primary, list(design.weights), periods)
    seen = {name: together([observed_of(design.primary, group).moments for group in groups], 0) for name, groups in there.items()}
    fewest = min(seen, key=lambda name: seen[name].count)
    if seen[fewest].count < rule.min_users:
        return Decision(Outcome.TOO_FEW, f"{fewest} has {seen[fewest].count:,} of {rule.min_users:,} users")
    posteriors = posteriors_of(design, periods)
    if posteriors is None:
        return Decision(Outcome.TOO_FEW, f"fewer than {MIN_CONVERSIONS} users have a value in {design.primary.name}, or all the same")
    weights = thompson_weights(posteriors, rule.floor)
    if max(abs(weights[name] - design.weights[name]) for name in weights) < SMALLEST_MOVE:
        return Decision(Outcome.UNCHANGED, f"no weight would move by {SMALLEST_MOVE:.1%}")
    return Decision(
        Outcome.MOVED, _told(design, rule, weights, sum(one.count for one in seen.values()), len(next(iter(there.values())))), weights
    )


def posteriors_of(design: Design, periods: Sequence[Period]) -> dict[str, Posterior] | None:
    """What is known of the primary metric in each variant, higher being better; None: too little for that.

    A share of users has a Beta posterior, everything else a normal one around its value; with CUPED, around the adjusted value.
    """
    metric, users = design.primary, evened(design.primary, list(design.weights), periods)
    if not users:
        return None
    found = adjusted(metric.kind, list(users.values()))
    if found is None and metric.kind is Kind.PROPORTION:
        return {name: _of_share(metric, one) for name, one in users.items()}
    values = found.estimates if found is not None else [estimate(metric.kind, one) for one in users.values()]
    known = {name: _turned(metric, one) for name, one in zip(users, values, strict=True) if one is not None and one.variance > 0}
    return {name: mean_posterior(one) for name, one in known.items()} if len(known) == len(users) else None


def _of_share(metric: Metric, evened: Moments) -> Posterior:
    converted = min(max(float(evened.mean[0]), 0.0), 1.0) * evened.count
    return conversion_posterior(evened.count, converted if metric.better.sign > 0 else evened.count - converted)


def _turned(metric: Metric, one: Estimate) -> Estimate:
    return Estimate(metric.better.sign * one.value, one.variance, one.count)


def _told(design: Design, rule: Rule, weights: Mapping[str, float], user_count: int, period_count: int) -> str:
    moves = ", ".join(f"{name} {design.weights[name]:.1%} → {weight:.1%}" for name, weight in weights.items())
    spare = 1.0 - rule.floor * len(weights)
    best = ", ".join(f"{name} {(weight - rule.floor) / spare if spare > 0 else 0:.3f}" for name, weight in weights.items())
    periods = f"{period_count:,} period{'s' if period_count > 1 else ''}"
    return f"{moves}; probability to be best by {design.primary.name}: {best}; {user_count:,} users in {periods}"
