"""What came of an experiment: from sums over users to values, differences and tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from server.experiments.comparison import Comparison, compared, corrected_together
from server.experiments.design import Design, Metric, Role
from server.experiments.evening import evened
from server.experiments.observed import Group, Observed, Period, in_order
from server.inference.batches import TUNING_PERIODS, batched
from server.inference.bayes import Outlook, outlook
from server.inference.difference import Difference, Scale, difference
from server.inference.estimate import Estimate, Kind, adjusted, estimate
from server.inference.moments import Moments
from server.inference.multiplicity import Correction
from server.inference.sample_ratio import SampleRatio, sample_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A metric in one variant."""

    variant_id: str
    user_count: int
    """Users over whom it was measured."""
    converted_count: int
    """Of them, those with a value other than 0."""
    estimate: Estimate | None
    """None where it is not defined."""
    probability_to_be_best: float | None
    expected_loss: float | None
    """Of choosing this variant, in units of the metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricReadout:
    """One metric, in all variants."""

    metric: Metric
    values: Sequence[Value]
    comparisons: Sequence[Comparison]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """The whole of it."""

    groups: Sequence[Group]
    """In the order of the design."""
    sample_ratio: SampleRatio
    metrics: Sequence[MetricReadout]

    def of(self, name: str) -> MetricReadout:
        """One metric.

        Raises:
            KeyError: there is none of that name.
        """
        for one in self.metrics:
            if one.metric.name == name:
                return one
        raise KeyError(name)

    @property
    def comparisons(self) -> list[Comparison]:
        """Those of all metrics."""
        return [comparison for one in self.metrics for comparison in one.comparisons]


def read(design: Design, groups: Sequence[Group]) -> Readout:
    """The readout of an experiment whose shares stood still."""
    variants = in_order(list(design.weights), groups)
    ratio = sample_ratio([group.user_count for group in variants], list(design.weights.values()))
    metrics = [_read_metric(design, metric, variants) for metric in design.metrics]
    return _corrected(design, Readout(groups=variants, sample_ratio=ratio, metrics=metrics))


def read_periods(design: Design, periods: Sequence[Period]) -> Readout:
    """The readout of an experiment whose shares changed, as a bandit's do: compared within each period, then taken together (`batches`).

    A period counts for a comparison once it has enough conversions on both sides. Users are expected as the shares of each period say. The
    values are those of all users together, for looking at: what is tested is the difference over periods. Which variant is the best is
    asked of each brought to the same mixture of periods (`evening`), as a bandit asks.
    """
    return _together(design, periods, _parts(design, periods))


def read_growing(design: Design, periods: Sequence[Period], counts: Sequence[int]) -> list[Readout]:
    """`read_periods` of the first so many periods, once for each of `counts`; `read`, where that is one."""
    parts = _parts(design, periods)
    return [_together(design, periods[:count], parts[:count]) if count > 1 else parts[0] for count in counts]


def _parts(design: Design, periods: Sequence[Period]) -> list[Readout]:
    names = list(design.weights)
    return [read(replace(design, weights={name: period.weights.get(name, 0.0) for name in names}), period.groups) for period in periods]


def _together(design: Design, periods: Sequence[Period], parts: Sequence[Readout]) -> Readout:
    names = list(design.weights)
    groups = [sum((part.groups[place] for part in parts), Group(variant_id=name)) for place, name in enumerate(names)]
    due = [math.fsum(part.sample_ratio.expected[place] for part in parts) for place in range(len(names))]
    whole = read(design, groups)
    metrics = [
        replace(
            one,
            values=_in_even_periods(one, evened(one.metric, names, periods)),
            comparisons=[_over_periods(design, one, found, parts) for found in one.comparisons],
        )
        for one in whole.metrics
    ]
    ratio = sample_ratio([group.user_count for group in groups], due)
    return _corrected(design, Readout(groups=groups, sample_ratio=ratio, metrics=metrics))


def _read_metric(design: Design, metric: Metric, variants: Sequence[Group]) -> MetricReadout:
    nothing = Observed(Moments.nothing(metric.kind.width), 0)
    observed = {group.variant_id: group.metrics.get(metric.name, nothing) for group in variants}
    raw = {name: estimate(metric.kind, one.moments) for name, one in observed.items()}
    freed, reduction = _adjusted(metric.kind, observed, raw)
    return MetricReadout(
        metric=metric,
        values=_values(metric, observed, raw, freed),
        comparisons=[_compare(design, metric, observed, freed, name, reduction) for name in design.treatment_ids],
    )


def _adjusted(
    kind: Kind, observed: Mapping[str, Observed], raw: Mapping[str, Estimate | None]
) -> tuple[Mapping[str, Estimate | None], float | None]:
    """CUPED's values by variant and how much they gained; the raw ones and None where there is no covariate to go by."""
    there = {name: one.moments for name, one in observed.items() if raw[name] is not None}
    if len({len(moments.mean) for moments in there.values()}) != 1:
        return raw, None
    found = adjusted(kind, list(there.values()))
    return (raw, None) if found is None else ({**raw, **dict(zip(there, found.estimates, strict=True))}, found.variance_reduction)


def _values(
    metric: Metric, observed: Mapping[str, Observed], raw: Mapping[str, Estimate | None], freed: Mapping[str, Estimate | None]
) -> list[Value]:
    judged = _judged(metric, freed)
    return [
        Value(
            variant_id=name,
            user_count=one.moments.count,
            converted_count=one.converted_count,
            estimate=raw[name],
            probability_to_be_best=float(judged.best[place]) if judged else None,
            expected_loss=float(judged.loss[place]) if judged else None,
        )
        for place, (name, one) in enumerate(observed.items())
    ]


def _judged(metric: Metric, freed: Mapping[str, Estimate | None]) -> Outlook | None:
    # Where lower is better, the best is the highest of what is turned round.
    there = [replace(one, value=metric.better.sign * one.value) for one in freed.values() if one is not None]
    return outlook(there) if there and len(there) == len(freed) and all(one.variance > 0 for one in there) else None


def _in_even_periods(whole: MetricReadout, users: Mapping[str, Moments]) -> list[Value]:
    """The values of all users, judged by those whose periods count alike in every variant."""
    kind = whole.metric.kind
    raw = {name: estimate(kind, one) for name, one in users.items()}
    freed, _ = _adjusted(kind, {name: Observed(one, 0) for name, one in users.items()}, raw)
    judged = _judged(whole.metric, freed)
    return [
        replace(
            one,
            probability_to_be_best=float(judged.best[place]) if judged else None,
            expected_loss=float(judged.loss[place]) if judged else None,
        )
        for place, one in enumerate(whole.values)
    ]


def _compare(
    design: Design,
    metric: Metric,
    observed: Mapping[str, Observed],
    values: Mapping[str, Estimate | None],
    variant_id: str,
    reduction: float | None,
) -> Comparison:
    control, treatment = values[design.control_id], values[variant_id]
    found = {}
    if control is not None and treatment is not None:
        found = {scale: one for scale in Scale if (one := difference(control, treatment, scale)) is not None}
    sides = observed[design.control_id], observed[variant_id]
    fewest = min(one.converted_count for one in sides)
    if metric.role is Role.GUARDRAIL and fewest < design.min_conversions and (harm := _as_if_alike(design, metric, *sides)) is not None:
        found, fewest = {Scale.ABSOLUTE: harm}, design.min_conversions
    return compared(
        design,
        metric,
        variant_id,
        found,
        control_value=control.value if control else 0.0,
        tuning=design.tuning_users,
        lacking_conversions=max(0, design.min_conversions - fewest),
        variance_reduction=reduction,
    )


def _as_if_alike(design: Design, metric: Metric, control: Observed, treatment: Observed) -> Difference | None:
    """The absolute difference of a guardrail that has hardly a value other than 0 on one side; None: too little to tell by.

    A variant that always fails beside a control that never does would else never have conversions enough on both sides, nor any variation
    within them. So the error is that of users who are all alike, whatever their variant, which is right where nothing is: as of a score
    test. Enough are as many conversions as would, were both alike, be MIN_CONVERSIONS on either side.
    """
    counts = control.moments.count, treatment.moments.count
    a, b = estimate(metric.kind, control.moments), estimate(metric.kind, treatment.moments)
    expected = (control.converted_count + treatment.converted_count) * min(counts) / max(1, sum(counts))
    if a is None or b is None or expected < design.min_conversions:
        return None
    whole = estimate(metric.kind, control.moments + treatment.moments)
    assert whole is not None
    a, b = (replace(one, variance=whole.variance * whole.count / one.count) for one in (a, b))
    return difference(a, b)


def _over_periods(design: Design, whole: MetricReadout, comparison: Comparison, parts: Sequence[Readout]) -> Comparison:
    """The comparison of all users, its tests replaced by those over periods."""
    same = [one for part in parts for one in part.of(whole.metric.name).comparisons if one.variant_id == comparison.variant_id]
    ready = [one for one in same if not one.lacking_conversions]
    found = {}
    for scale in Scale:
        # A scale on which one period has no difference would leave that period out, and with it what it says.
        if ready and all(scale in one.differences for one in ready):
            over = batched([one.differences[scale] for one in ready])
            assert over is not None
            found[scale] = over
    control = next(one.estimate for one in whole.values if one.variant_id == design.control_id)
    return compared(
        design,
        whole.metric,
        comparison.variant_id,
        found,
        control_value=control.value if control else 0.0,
        tuning=TUNING_PERIODS,
        lacking_conversions=0 if ready else max(1, min((one.lacking_conversions for one in same), default=design.min_conversions)),
        variance_reduction=comparison.variance_reduction,
    )


def _corrected(design: Design, readout: Readout) -> Readout:
    """With p-values corrected: Holm over the primary metric's comparisons, the design's correction over those of all secondary metrics."""
    final: dict[tuple[str, str], Comparison] = {}
    for role, correction in ((Role.PRIMARY, Correction.HOLM), (Role.SECONDARY, design.correction)):
        together = corrected_together([one for one in readout.comparisons if one.metric.role is role], correction)
        final |= {(one.metric.name, one.variant_id): one for one in together}
    metrics = [
        replace(one, comparisons=[final.get((one.metric.name, found.variant_id), found) for found in one.comparisons])
        for one in readout.metrics
    ]
    return replace(readout, metrics=metrics)
