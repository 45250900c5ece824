"""How an experiment shows its variants: one to each user, or both interleaved, and what the latter asks of it."""

from __future__ import annotations

from collections.abc import Iterator

from rankloop.v1 import experiment_pb2 as pb
from runtime.errors import Violation

EVERY_USER = 0.5
"""The weight of either interleaved variant; every user sees both."""

ALL_USERS = ""
"""The one group of users in which everybody sees both variants."""


def groups_of(experiment: pb.Experiment) -> list[str]:
    """By what users are told apart: their variants, unless they see both."""
    return [ALL_USERS] if interleaves(experiment) else [variant.variant_id for variant in experiment.variants]


def interleaves(experiment: pb.Experiment) -> bool:
    """Whether every user sees both variants in one slate."""
    return experiment.method == pb.EXPERIMENT_METHOD_INTERLEAVING


def fill_method(experiment: pb.Experiment) -> None:
    """Sets what goes without saying when variants are interleaved: their weights, and that the preference decides."""
    if not interleaves(experiment):
        return
    if not any(variant.weight for variant in experiment.variants):
        for variant in experiment.variants:
            variant.weight = EVERY_USER
    if not experiment.HasField("primary_metric"):
        experiment.primary_metric.kind = pb.METRIC_KIND_PREFERENCE


def method_faults(experiment: pb.Experiment) -> Iterator[Violation]:
    """What the method does not allow."""
    if experiment.method not in pb.ExperimentMethod.values():
        yield _fault("method", "UNKNOWN_METHOD", "expected EXPERIMENT_METHOD_AB or EXPERIMENT_METHOD_INTERLEAVING")
    elif interleaves(experiment):
        yield from _interleaving_faults(experiment)
    else:
        metrics = [("primary_metric", experiment.primary_metric)]
        metrics += [(f"secondary_metrics[{place}]", one) for place, one in enumerate(experiment.secondary_metrics)]
        metrics += [(f"guardrails[{place}]", one) for place, one in enumerate(experiment.guardrails)]
        for path, one in metrics:
            if one.kind == pb.METRIC_KIND_PREFERENCE:
                yield _fault(f"{path}.kind", "OUT_OF_RANGE", "PREFERENCE is for EXPERIMENT_METHOD_INTERLEAVING only")


def _interleaving_faults(experiment: pb.Experiment) -> Iterator[Violation]:
    if len(experiment.variants) != 2:
        yield _fault("variants", "OUT_OF_RANGE", f"interleaving takes exactly two variants; there are {len(experiment.variants)}")
    for place, variant in enumerate(experiment.variants):
        if variant.weight != EVERY_USER:
            yield _fault(
                f"variants[{place}].weight",
                "OUT_OF_RANGE",
                f"is {variant.weight:g}; every user sees both interleaved variants: leave weights out, or say 0.5",
            )
    primary = experiment.primary_metric
    if primary.kind != pb.METRIC_KIND_PREFERENCE:
        yield _fault("primary_metric.kind", "OUT_OF_RANGE", "interleaving is decided by PREFERENCE: leave primary_metric out, or say so")
    if primary.better == pb.METRIC_DIRECTION_LOWER:
        yield _fault("primary_metric.better", "OUT_OF_RANGE", "of a preference higher is better")
    for name in ("secondary_metrics", "guardrails"):
        if getattr(experiment, name):
            yield _fault(
                name,
                "OUT_OF_RANGE",
                "interleaved variants share every slate, so that nothing but the preference tells them apart; an A/B test can compare this",
            )
    if experiment.HasField("planned_effect"):
        yield _fault("planned_effect", "OUT_OF_RANGE", "interleaving plans no size: its always-valid result may be looked at any day")
    if experiment.HasField("bandit"):
        yield _fault("bandit", "OUT_OF_RANGE", "moves weights, and interleaved variants have none: every user sees both")
    if experiment.stop_on_breach:
        yield _fault("stop_on_breach", "OUT_OF_RANGE", "is about guardrails, and interleaved variants share every slate")
    if experiment.decide_by == pb.DECIDE_BY_FIXED_HORIZON:
        yield _fault("decide_by", "OUT_OF_RANGE", "interleaving is decided by the always-valid result, DECIDE_BY_SEQUENTIAL")


def _fault(field: str, reason: str, description: str) -> Violation:
    return Violation(field=f"experiment.{field}", reason=reason, description=description)
