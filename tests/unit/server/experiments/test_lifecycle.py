"""What an experiment may become, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from rankloop.assignment import plan_of
from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1 import ranking_pb2
from runtime.errors import FailedPrecondition, InvalidInput
from server.experiments.allocation import NoRoom
from server.experiments.lifecycle import created, reweighted, started, stopped, stopped_by_itself, updated, weights_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
USERS = [f"user-{number}" for number in range(3_000)]


def wanted(**changed: Any) -> pb.Experiment:
    fields: dict[str, Any] = {
        "experiment_id": "diversity",
        "hypothesis": "More variety is clicked more.",
        "surface": "home",
        "variants": [
            pb.Variant(variant_id="half", weight=0.5, parameters=pb.VariantParameters(mmr_lambda=0.5)),
            pb.Variant(variant_id="most", weight=0.5, parameters=pb.VariantParameters(mmr_lambda=0.9)),
        ],
        "primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION, type="click"),
    }
    return pb.Experiment(**(fields | changed))


def draft(**changed: Any) -> pb.Experiment:
    experiment = wanted(**changed)
    return created(experiment, experiment.experiment_id, NOW)


def running(**changed: Any) -> pb.Experiment:
    return started(draft(**changed), [], NOW)


def variants(*weights: float, mmr_lambda: float = 0.5) -> list[pb.Variant]:
    return [
        pb.Variant(variant_id=name, weight=weight, parameters=pb.VariantParameters(mmr_lambda=value))
        for name, weight, value in zip(("half", "most"), weights, (mmr_lambda, 0.9), strict=True)
    ]


def test_from_draft_to_verdict() -> None:
    one = draft(planned_effect=pb.PlannedEffect(baseline=0.1, lift=0.1))
    assert (one.state, one.control_variant_id, one.layer, one.salt) == (pb.EXPERIMENT_STATE_DRAFT, "half", "default", "diversity")
    assert one.planned_users_per_variant == 14_749
    assert "unpooled" in one.planned_formula
    runs = started(one, [], NOW)
    assert runs.state == pb.EXPERIMENT_STATE_RUNNING
    assert runs.etag != one.etag
    with pytest.raises(FailedPrecondition, match="diversity is running; only a draft can be started"):
        started(runs, [], NOW)
    ended = stopped(runs, pb.StopExperimentRequest(), NOW)
    assert ended.state == pb.EXPERIMENT_STATE_STOPPED
    concluded = stopped(ended, pb.StopExperimentRequest(winner_variant_id="most", promote=True), NOW + timedelta(days=1))
    assert (concluded.state, concluded.promoted) == (pb.EXPERIMENT_STATE_CONCLUDED, True)
    assert concluded.stop_time == ended.stop_time
    for request in (pb.StopExperimentRequest(), pb.StopExperimentRequest(verdict="again")):
        with pytest.raises(FailedPrecondition, match="does not run"):
            stopped(concluded, request, NOW)


def test_a_running_one_changes_in_weights_and_words_only() -> None:
    runs = running()
    new, changed = updated(runs, wanted(variants=variants(0.6, 0.4), hypothesis="Other words."), NOW)
    assert changed == ["hypothesis", "variants"]
    assert [dict(period.weights) for period in new.weight_periods] == [{"half": 0.5, "most": 0.5}, {"half": 0.6, "most": 0.4}]
    before, after = plan_of(runs), plan_of(new)
    moves = {(before.assign(user).variant_id, after.assign(user).variant_id) for user in USERS}
    assert moves == {("half", "half"), ("most", "most"), ("most", "half")}
    for fixed, field in (
        ({"surface": "search"}, "surface"),
        ({"variants": variants(0.5, 0.5, mmr_lambda=0.4)}, "variants"),
        ({"primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_CTR)}, "primary_metric"),
        ({"salt": "other"}, "salt"),
    ):
        with pytest.raises(FailedPrecondition, match=f"is running: {field}"):
            updated(runs, wanted(**fixed), NOW)
    with pytest.raises(FailedPrecondition, match="has ended"):
        updated(stopped(runs, pb.StopExperimentRequest(), NOW), wanted(), NOW)


def test_the_weights_of_a_running_bandit_are_its_own() -> None:
    runs = running(bandit=pb.Bandit())
    with pytest.raises(FailedPrecondition, match="is a bandit: its weights follow what is seen"):
        updated(runs, wanted(bandit=pb.Bandit(), variants=variants(0.6, 0.4)), NOW)
    with pytest.raises(FailedPrecondition, match="is running: bandit"):
        updated(runs, wanted(), NOW)
    guarded = {"guardrails": [pb.ExperimentMetric(kind=pb.METRIC_KIND_LATENCY)]}
    for changes in (guarded | {"bandit": pb.Bandit()}, guarded):
        assert updated(running(**changes), wanted(stop_on_breach=True, **changes), NOW)[1] == ["stop_on_breach"]
    new = reweighted(runs, {"half": 0.2, "most": 0.8}, NOW + timedelta(days=1))
    assert weights_of(new) == {"half": 0.2, "most": 0.8}
    assert [dict(period.weights) for period in new.weight_periods] == [{"half": 0.5, "most": 0.5}, {"half": 0.2, "most": 0.8}]
    assert new.etag != runs.etag
    before, after = plan_of(runs), plan_of(new)
    moves = [(before.assign(user).variant_id, after.assign(user).variant_id) for user in USERS]
    assert set(moves) == {("half", "half"), ("most", "most"), ("half", "most")}
    assert moves.count(("half", "most")) / len(USERS) == pytest.approx(0.3, abs=0.03)
    with pytest.raises(FailedPrecondition, match="does not run"):
        reweighted(draft(), {"half": 0.2, "most": 0.8}, NOW)


def test_what_stopped_by_itself_can_still_be_concluded() -> None:
    ended = stopped_by_itself(running(), "Stopped by itself.", NOW)
    assert (ended.state, ended.verdict, ended.stop_time.ToDatetime(UTC)) == (pb.EXPERIMENT_STATE_STOPPED, "Stopped by itself.", NOW)
    with pytest.raises(FailedPrecondition, match="does not run"):
        stopped_by_itself(ended, "Again.", NOW)
    won = stopped(ended, pb.StopExperimentRequest(winner_variant_id="most"), NOW)
    assert (won.state, won.verdict) == (pb.EXPERIMENT_STATE_CONCLUDED, "Stopped by itself.")
    assert stopped(ended, pb.StopExperimentRequest(verdict="Keep half."), NOW).verdict == "Keep half."


def test_a_draft_changes_in_every_way_and_keeps_what_the_server_set() -> None:
    one = draft()
    new, changed = updated(one, wanted(surface="search", state=pb.EXPERIMENT_STATE_CONCLUDED, promoted=True), NOW)
    assert changed == ["surface"]
    assert (new.state, new.promoted, new.create_time) == (pb.EXPERIMENT_STATE_DRAFT, False, one.create_time)


def test_what_was_read_can_be_sent_back() -> None:
    for one in (draft(), running(holdout=0.1, traffic=0.5, overrides={"tester": "most"})):
        assert updated(one, one, NOW) == (one, [])


def test_one_layer_on_one_surface_has_room_once() -> None:
    first = running()
    with pytest.raises(NoRoom, match=r"wants 100\.0% of the layer's users and 0\.0% are free"):
        started(draft(experiment_id="other"), [first], NOW)
    with pytest.raises(NoRoom):
        started(draft(experiment_id="everywhere", surface=""), [first], NOW)
    for free in ({"surface": "search"}, {"layer": "second"}):
        assert started(draft(experiment_id="other", **free), [first], NOW).state == pb.EXPERIMENT_STATE_RUNNING
    part = running(traffic=0.4, holdout=0.1)
    beside = started(draft(experiment_id="other", traffic=0.6), [part], NOW)
    plans = plan_of(part), plan_of(beside)
    found = [[bool(plan.assign(user).variant_id) for plan in plans] for user in USERS]
    assert [True, True] not in found
    assert found.count([False, False]) / len(USERS) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    ("changed", "field", "reason"),
    [
        ({"variants": variants(0.5, 0.4)}, "experiment.variants", "OUT_OF_RANGE"),
        ({"variants": variants(0.5, 0.5)[:1]}, "experiment.variants", "OUT_OF_RANGE"),
        ({"variants": []}, "experiment.variants", "MISSING"),
        ({"variants": [*variants(0.5, 0.5)[:1] * 2]}, "experiment.variants[1].variant_id", "DUPLICATE"),
        ({"variants": variants(0.5, 0.5, mmr_lambda=1.5)}, "experiment.variants[0].parameters.mmr_lambda", "OUT_OF_RANGE"),
        (
            {
                "variants": [
                    *variants(0.5, 0.5)[:1],
                    pb.Variant(variant_id="x", weight=0.5, parameters=pb.VariantParameters(algorithm="magic")),
                ]
            },
            "experiment.variants[1].parameters.algorithm",
            "UNKNOWN_ALGORITHM",
        ),
        ({"control_variant_id": "nobody"}, "experiment.control_variant_id", "UNKNOWN_VARIANT"),
        ({"primary_metric": None}, "experiment.primary_metric", "MISSING"),
        ({"primary_metric": pb.ExperimentMetric()}, "experiment.primary_metric.kind", "MISSING"),
        ({"primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION)}, "experiment.primary_metric.type", "MISSING"),
        (
            {"guardrails": [pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION, type="click")]},
            "experiment.guardrails[0].name",
            "DUPLICATE",
        ),
        ({"planned_effect": pb.PlannedEffect(baseline=1.2, lift=0.1)}, "experiment.planned_effect.baseline", "OUT_OF_RANGE"),
        ({"planned_effect": pb.PlannedEffect(baseline=0.2)}, "experiment.planned_effect.lift", "OUT_OF_RANGE"),
        ({"decide_by": pb.DECIDE_BY_FIXED_HORIZON}, "experiment.planned_effect", "MISSING"),
        ({"overrides": {"tester": "nobody"}}, 'experiment.overrides["tester"]', "UNKNOWN_VARIANT"),
        ({"holdout": 1.0}, "experiment.holdout", "OUT_OF_RANGE"),
        ({"traffic": -0.1}, "experiment.traffic", "OUT_OF_RANGE"),
        ({"hypothesis": "x" * 5000}, "experiment.hypothesis", "TOO_LONG"),
        ({"bandit": pb.Bandit(floor=0.0)}, "experiment.bandit.floor", "OUT_OF_RANGE"),
        ({"bandit": pb.Bandit(floor=float("nan"))}, "experiment.bandit.floor", "OUT_OF_RANGE"),
        ({"bandit": pb.Bandit(floor=0.51)}, "experiment.bandit.floor", "OUT_OF_RANGE"),
        ({"bandit": pb.Bandit(), "variants": variants(0.96, 0.04)}, "experiment.variants[1].weight", "OUT_OF_RANGE"),
        ({"stop_on_breach": True}, "experiment.guardrails", "MISSING"),
        ({"bandit": pb.Bandit(min_users=1)}, "experiment.bandit.min_users", "OUT_OF_RANGE"),
        ({"bandit": pb.Bandit(update_interval=Duration())}, "experiment.bandit.update_interval", "OUT_OF_RANGE"),
        ({"bandit": pb.Bandit(update_interval=Duration(seconds=91 * 86_400))}, "experiment.bandit.update_interval", "OUT_OF_RANGE"),
    ],
)
def test_what_cannot_be_run_is_named_by_its_path(changed: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        draft(**changed)
    assert (field, reason) in [(one.field, one.reason) for one in caught.value.violations]


def test_rules_of_a_variant_are_checked_like_those_of_a_request() -> None:
    rules = ranking_pb2.Rules(
        pins=[ranking_pb2.Pin(item_id="i", position=1)], boosts=[ranking_pb2.Boost(target=ranking_pb2.Target(tag="t"), factor=-1)]
    )
    wrong = pb.Variant(variant_id="ruled", weight=0.5, parameters=pb.VariantParameters(rules=rules))
    with pytest.raises(InvalidInput) as caught:
        draft(variants=[*variants(0.5, 0.5)[:1], wrong])
    assert [one.field for one in caught.value.violations] == ["experiment.variants[1].parameters.rules.boosts[0].factor"]


@pytest.mark.parametrize(
    "request_", [pb.StopExperimentRequest(winner_variant_id="nobody"), pb.StopExperimentRequest(verdict="Fine.", promote=True)]
)
def test_verdicts_that_cannot_be(request_: pb.StopExperimentRequest) -> None:
    with pytest.raises(InvalidInput, match="winner_variant_id"):
        stopped(running(), request_, NOW)
