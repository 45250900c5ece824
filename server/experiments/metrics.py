"""What the contract calls metrics, as the readout knows them."""

from __future__ import annotations

from dataclasses import dataclass

from rankloop.v1 import experiment_pb2 as pb
from server.experiments.design import Better, DecideBy, Design, Metric, Role
from server.inference.difference import LEVEL
from server.inference.estimate import Kind
from server.inference.multiplicity import Correction
from server.inference.winsorising import QUANTILE

KINDS: dict[int, Kind] = {
    pb.METRIC_KIND_CTR: Kind.RATIO,
    pb.METRIC_KIND_CONVERSION: Kind.PROPORTION,
    pb.METRIC_KIND_LABEL: Kind.MEAN,
    pb.METRIC_KIND_RATING: Kind.MEAN,
    pb.METRIC_KIND_ENGAGEMENT: Kind.MEAN,
    pb.METRIC_KIND_TIME_TO_ACTION: Kind.MEAN,
    pb.METRIC_KIND_RETENTION: Kind.PROPORTION,
    pb.METRIC_KIND_OUTCOME_VALUE: Kind.MEAN,
    pb.METRIC_KIND_DIVERSITY: Kind.MEAN,
    pb.METRIC_KIND_LATENCY: Kind.MEAN,
    pb.METRIC_KIND_ERROR_RATE: Kind.RATIO,
    pb.METRIC_KIND_FALLBACK_RATIO: Kind.RATIO,
    pb.METRIC_KIND_PREFERENCE: Kind.MEAN,
}
LOWER = {pb.METRIC_KIND_TIME_TO_ACTION, pb.METRIC_KIND_LATENCY, pb.METRIC_KIND_ERROR_RATE, pb.METRIC_KIND_FALLBACK_RATIO}
CAPPED = {pb.METRIC_KIND_OUTCOME_VALUE, pb.METRIC_KIND_TIME_TO_ACTION}
WITH_PAST = {pb.METRIC_KIND_CONVERSION, pb.METRIC_KIND_LABEL, pb.METRIC_KIND_ENGAGEMENT, pb.METRIC_KIND_OUTCOME_VALUE}
"""Kinds that can be measured before the exposure as well."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A metric as it was asked for, and as it is read."""

    definition: pb.ExperimentMetric
    metric: Metric
    quantile: float
    """Above which values count as the quantile; 1: none do."""


def name_of(definition: pb.ExperimentMetric) -> str:
    """Its name in the results."""
    kind = pb.MetricKind.Name(definition.kind).removeprefix("METRIC_KIND_").lower()
    return definition.name or (f"{kind}:{definition.type}" if definition.type else kind)


def metrics_of(experiment: pb.Experiment) -> list[Asked]:
    """The primary one, then secondary ones, then guardrails."""
    return [
        *([_asked(experiment.primary_metric, Role.PRIMARY)]),
        *(_asked(one, Role.SECONDARY) for one in experiment.secondary_metrics),
        *(_asked(one, Role.GUARDRAIL) for one in experiment.guardrails),
    ]


def design_of(experiment: pb.Experiment) -> Design:
    """How a checked experiment is read."""
    return Design(
        control_id=experiment.control_variant_id,
        weights={variant.variant_id: variant.weight for variant in experiment.variants},
        metrics=[one.metric for one in metrics_of(experiment)],
        planned_users=experiment.planned_users_per_variant or None,
        level=experiment.level or LEVEL,
        correction=Correction.BENJAMINI_HOCHBERG if experiment.correction == pb.CORRECTION_BENJAMINI_HOCHBERG else Correction.HOLM,
        decide_by=DecideBy.FIXED_HORIZON if experiment.decide_by == pb.DECIDE_BY_FIXED_HORIZON else DecideBy.SEQUENTIAL,
    )


def _asked(definition: pb.ExperimentMetric, role: Role) -> Asked:
    better = Better.LOWER if definition.kind in LOWER else Better.HIGHER
    if definition.better:
        better = Better.LOWER if definition.better == pb.METRIC_DIRECTION_LOWER else Better.HIGHER
    default = QUANTILE if definition.kind == pb.METRIC_KIND_OUTCOME_VALUE else 1.0
    return Asked(
        definition,
        Metric(name=name_of(definition), kind=KINDS[definition.kind], role=role, better=better, margin=definition.margin),
        definition.winsor_quantile if definition.HasField("winsor_quantile") else default,
    )
