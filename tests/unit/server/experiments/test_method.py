"""Experiments that interleave: what goes without saying, what is refused, and who takes part."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from rankloop.assignment import Because, assignments, plan_of
from rankloop.v1 import experiment_pb2 as pb
from runtime.errors import FailedPrecondition, InvalidInput
from server.experiments.lifecycle import created, started, stopped, updated

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
USERS = [f"user-{number}" for number in range(2_000)]
CTR = pb.ExperimentMetric(kind=pb.METRIC_KIND_CTR)


def wanted(**changed: Any) -> pb.Experiment:
    fields: dict[str, Any] = {
        "experiment_id": "taste",
        "surface": "home",
        "method": pb.EXPERIMENT_METHOD_INTERLEAVING,
        "variants": [pb.Variant(variant_id="usual"), pb.Variant(variant_id="new", parameters=pb.VariantParameters(mmr_lambda=0.9))],
    }
    return pb.Experiment(**(fields | changed))


def draft(**changed: Any) -> pb.Experiment:
    experiment = wanted(**changed)
    return created(experiment, experiment.experiment_id, NOW)


def test_two_variants_are_enough_said() -> None:
    one = draft()
    assert one.primary_metric.kind == pb.METRIC_KIND_PREFERENCE
    assert [variant.weight for variant in one.variants] == [0.5, 0.5]
    assert one.control_variant_id == "usual"
    runs = started(one, [], NOW)
    assert updated(runs, runs, NOW) == (runs, [])
    described = wanted(hypothesis="Other words.")
    assert updated(runs, described, NOW)[1] == ["hypothesis"]
    ended = stopped(runs, pb.StopExperimentRequest(winner_variant_id="new", promote=True), NOW)
    assert (ended.state, ended.winner_variant_id, ended.promoted) == (pb.EXPERIMENT_STATE_CONCLUDED, "new", True)
    with pytest.raises(FailedPrecondition, match="method"):
        updated(runs, wanted(method=pb.EXPERIMENT_METHOD_AB, primary_metric=CTR, variants=list(runs.variants)), NOW)


PREFERENCE = pb.ExperimentMetric(kind=pb.METRIC_KIND_PREFERENCE)
AB = {
    "method": pb.EXPERIMENT_METHOD_AB,
    "variants": [pb.Variant(variant_id=name, weight=0.5) for name in ("usual", "new")],
    "primary_metric": CTR,
}


@pytest.mark.parametrize(
    ("changed", "field", "reason"),
    [
        ({"method": 9}, "method", "UNKNOWN_METHOD"),
        ({"variants": [pb.Variant(variant_id=name) for name in "abc"]}, "variants", "OUT_OF_RANGE"),
        (
            {"variants": [pb.Variant(variant_id="a", weight=0.4), pb.Variant(variant_id="b", weight=0.6)]},
            "variants[1].weight",
            "OUT_OF_RANGE",
        ),
        ({"primary_metric": CTR}, "primary_metric.kind", "OUT_OF_RANGE"),
        (
            {"primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_PREFERENCE, better=pb.METRIC_DIRECTION_LOWER)},
            "primary_metric.better",
            "OUT_OF_RANGE",
        ),
        ({"primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_PREFERENCE, cuped=True)}, "primary_metric.cuped", "OUT_OF_RANGE"),
        ({"secondary_metrics": [CTR]}, "secondary_metrics", "OUT_OF_RANGE"),
        ({"guardrails": [pb.ExperimentMetric(kind=pb.METRIC_KIND_LATENCY)]}, "guardrails", "OUT_OF_RANGE"),
        ({"planned_effect": pb.PlannedEffect(baseline=0.1, lift=0.1)}, "planned_effect", "OUT_OF_RANGE"),
        ({"bandit": pb.Bandit()}, "bandit", "OUT_OF_RANGE"),
        ({"stop_on_breach": True}, "stop_on_breach", "OUT_OF_RANGE"),
        ({"decide_by": pb.DECIDE_BY_FIXED_HORIZON}, "decide_by", "OUT_OF_RANGE"),
        (AB | {"primary_metric": PREFERENCE}, "primary_metric.kind", "OUT_OF_RANGE"),
        (AB | {"secondary_metrics": [PREFERENCE]}, "secondary_metrics[0].kind", "OUT_OF_RANGE"),
        (AB | {"guardrails": [PREFERENCE]}, "guardrails[0].kind", "OUT_OF_RANGE"),
    ],
)
def test_what_makes_no_sense_is_refused(changed: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        draft(**changed)
    assert (f"experiment.{field}", reason) in [(one.field, one.reason) for one in caught.value.violations]


def test_everybody_takes_part_and_has_no_variant_alone() -> None:
    plan = plan_of(started(draft(holdout=0.1, traffic=0.5, overrides={"tester": "new"}), [], NOW))
    found = [plan.assign(user) for user in USERS]
    shares = {reason: sum(one.because is reason for one in found) / len(USERS) for reason in Because}
    assert shares[Because.INTERLEAVED] == pytest.approx(0.45, abs=0.05)
    assert shares[Because.HELD_OUT] == pytest.approx(0.1, abs=0.03)
    assert shares[Because.ELSEWHERE] == pytest.approx(0.45, abs=0.05)
    assert {one.variant_id for one in found} == {""}
    assert len(assignments([plan], next(user for user, one in zip(USERS, found, strict=True) if one.takes_part))) == 1
    assert plan.assign("tester").variant_id == "new"
    assert plan.assign("").because is Because.ANONYMOUS


def test_a_slate_holds_two_rankings_and_no_four() -> None:
    first = started(draft(), [], NOW)
    for surface in ("home", ""):
        with pytest.raises(FailedPrecondition, match="one slate holds no more than two rankings") as caught:
            started(draft(experiment_id="second", layer="other", surface=surface), [first], NOW)
        assert caught.value.reason == "INTERLEAVED_ALREADY"
    started(draft(experiment_id="second", layer="other", surface="email"), [first], NOW)
    started(draft(experiment_id="second", layer="other", **AB), [first], NOW)
    half = started(draft(traffic=0.5), [], NOW)
    started(draft(experiment_id="second", traffic=0.5), [half], NOW)
