"""What was seen of a metric in periods of changing shares, each variant brought to the same mixture of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from server.experiments.design import MIN_CONVERSIONS, Metric
from server.experiments.observed import Group, Observed, Period, in_order
from server.inference.moments import Moments, together
from server.inference.standardising import standardised


def evened(metric: Metric, variant_ids: Sequence[str], periods: Sequence[Period]) -> dict[str, Moments]:
    """The metric's moments by variant, each period counting as much as it had users of all variants; empty: too few conversions in all.

    A variant with fewer than MIN_CONVERSIONS users with a value other than 0 cannot tell how its users vary, and is taken to vary as all
    do.
    """
    there = comparable(metric, variant_ids, periods)
    observed = {name: [observed_of(metric, group) for group in groups] for name, groups in there.items()}
    converted = {name: sum(one.converted_count for one in parts) for name, parts in observed.items()}
    if sum(converted.values()) < MIN_CONVERSIONS:
        return {}
    everybody = together([one.moments for parts in observed.values() for one in parts], 0)
    user_counts = [sum(group.user_count for group in groups) for groups in zip(*there.values(), strict=True)]
    return {
        name: standardised(
            [one.moments for one in parts], user_counts, None if converted[name] >= MIN_CONVERSIONS else everybody.covariance
        )
        for name, parts in observed.items()
    }


def comparable(metric: Metric, variant_ids: Sequence[str], periods: Sequence[Period]) -> dict[str, list[Group]]:
    """The groups by variant, of periods in which the metric was measured in every one: others compare nothing."""
    by_period = [in_order(variant_ids, period.groups) for period in periods]
    kept = [groups for groups in by_period if all(observed_of(metric, group).moments.count for group in groups)]
    return {name: [groups[place] for groups in kept] for place, name in enumerate(variant_ids)}


def observed_of(metric: Metric, group: Group) -> Observed:
    """The metric in a group; of nobody where it was not measured."""
    return group.metrics.get(metric.name) or Observed(Moments.nothing(metric.kind.width), 0)
