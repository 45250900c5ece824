"""What an experiment may become: draft, running, stopped, concluded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from rankloop.assignment import Share, Span
from rankloop.v1 import experiment_pb2 as pb
from runtime.errors import FailedPrecondition, InvalidInput
from runtime.timestamps import to_timestamp
from server.experiments.allocation import first_shares, layer_spans, moved_shares
from server.experiments.checking import check
from server.experiments.method import fill_method, interleaves
from server.experiments.metrics import KINDS
from server.inference import power
from server.inference.difference import LEVEL

DEFAULT_LAYER = "default"
SET_BY_SERVER = (
    "state",
    "etag",
    "create_time",
    "start_time",
    "stop_time",
    "planned_users_per_variant",
    "planned_formula",
    "weight_periods",
    "shares",
    "layer_spans",
    "verdict",
    "winner_variant_id",
    "promoted",
)
CHANGES_WHILE_RUNNING = ("hypothesis", "overrides", "stop_on_breach")
"""Beside the variants' weights and descriptions."""


def created(wanted: pb.Experiment, experiment_id: str, now: datetime) -> pb.Experiment:
    """A draft.

    Raises:
        InvalidInput: it cannot be run.
    """
    draft = _filled(wanted, experiment_id)
    draft.state = pb.EXPERIMENT_STATE_DRAFT
    draft.create_time.CopyFrom(to_timestamp(now))
    return sealed(draft)


def updated(old: pb.Experiment, wanted: pb.Experiment, now: datetime) -> tuple[pb.Experiment, list[str]]:
    """The experiment as somebody wants it, and the fields that changed.

    Raises:
        InvalidInput: it cannot be run like that.
        FailedPrecondition: something changes that may not change in this state.
    """
    new = _filled(wanted, old.experiment_id)
    for name in SET_BY_SERVER:
        new.ClearField(name)  # type: ignore[arg-type]
    kept = pb.Experiment()
    kept.CopyFrom(old)
    for field in pb.Experiment.DESCRIPTOR.fields:
        if field.name not in SET_BY_SERVER:
            kept.ClearField(field.name)  # type: ignore[arg-type]
    kept.ClearField("planned_users_per_variant")
    kept.ClearField("planned_formula")
    changed = _changed(old, new)
    new.MergeFrom(kept)
    _plan_size(new)
    if old.state == pb.EXPERIMENT_STATE_DRAFT:
        return sealed(new), changed
    if old.state != pb.EXPERIMENT_STATE_RUNNING:
        raise FailedPrecondition(f"{old.experiment_id} has ended and does not change any more; write a new one")
    fixed = [name for name in changed if name not in (*CHANGES_WHILE_RUNNING, "variants")]
    if "variants" in changed and _without_weights(old) != _without_weights(new):
        fixed.append("variants (other than weights and descriptions)")
    if fixed:
        raise FailedPrecondition(
            f"{old.experiment_id} is running: {', '.join(fixed)} may not change any more. Stop it and write a new one; while it runs, "
            "weights, descriptions, overrides, `stop_on_breach` and the hypothesis may change",
            reason="EXPERIMENT_RUNNING",
        )
    if weights_of(new) != weights_of(old):
        if old.HasField("bandit"):
            raise FailedPrecondition(
                f"{old.experiment_id} is a bandit: its weights follow what is seen, and are not set by hand while it runs. Send them as "
                "GetExperiment tells them, or stop it and write an experiment without `bandit`",
                reason="BANDIT_RUNNING",
            )
        _share_out(new, now)
    return sealed(new), changed


def reweighted(old: pb.Experiment, weights: Mapping[str, float], now: datetime) -> pb.Experiment:
    """The experiment with other weights by variant: as few users as possible change theirs.

    Raises:
        FailedPrecondition: it does not run.
        InvalidInput: the weights do not add up to 1.
    """
    _must_run(old)
    new = pb.Experiment()
    new.CopyFrom(old)
    for variant in new.variants:
        variant.weight = weights[variant.variant_id]
    _share_out(new, now)
    return sealed(new)


def stopped_by_itself(old: pb.Experiment, why: str, now: datetime) -> pb.Experiment:
    """The experiment, stopped and not concluded: somebody may still say what is to be learned from it.

    Raises:
        FailedPrecondition: it does not run.
    """
    _must_run(old)
    new = pb.Experiment()
    new.CopyFrom(old)
    new.state, new.verdict = pb.EXPERIMENT_STATE_STOPPED, why
    new.stop_time.CopyFrom(to_timestamp(now))
    return sealed(new)


def started(draft: pb.Experiment, running: Iterable[pb.Experiment], now: datetime) -> pb.Experiment:
    """The experiment, running.

    Args:
        running: the experiments that run already.

    Raises:
        FailedPrecondition: it is no draft, its layer has not as many users left where their surfaces meet, or it interleaves where another
            experiment interleaves for the same users.
    """
    if draft.state != pb.EXPERIMENT_STATE_DRAFT:
        state = pb.ExperimentState.Name(draft.state).removeprefix("EXPERIMENT_STATE_").lower()
        raise FailedPrecondition(f"{draft.experiment_id} is {state}; only a draft can be started", reason="NOT_A_DRAFT")
    running = list(running)
    _check_interleaving(draft, running)
    beside = [one for one in running if one.layer == draft.layer and meet(one.surface, draft.surface)]
    taken = [Span(span.start, span.end) for one in beside for span in one.layer_spans]
    holdout = max([draft.holdout, *(one.holdout for one in beside)])
    new = pb.Experiment()
    new.CopyFrom(draft)
    new.holdout = holdout
    del new.layer_spans[:]
    spans = layer_spans(taken, draft.traffic or 1.0, holdout)
    new.layer_spans.extend(pb.PlaceShare(start=span.start, end=span.end) for span in spans)
    del new.shares[:]
    new.shares.extend(_shares_message(first_shares(weights_of(draft))))
    del new.weight_periods[:]
    new.weight_periods.append(pb.WeightPeriod(start_time=to_timestamp(now), weights=weights_of(draft)))
    new.state = pb.EXPERIMENT_STATE_RUNNING
    new.start_time.CopyFrom(to_timestamp(now))
    return sealed(new)


def stopped(old: pb.Experiment, request: pb.StopExperimentRequest, now: datetime) -> pb.Experiment:
    """The experiment, ended: concluded if there is a verdict or a winner.

    Raises:
        FailedPrecondition: it does not run, and is not waiting for a verdict either.
        InvalidInput: the winner is not one of its variants, or nobody is to be promoted.
    """
    concludes = bool(request.verdict or request.winner_variant_id)
    waiting = old.state == pb.EXPERIMENT_STATE_STOPPED and concludes
    if old.state != pb.EXPERIMENT_STATE_RUNNING and not waiting:
        raise FailedPrecondition(f"{old.experiment_id} does not run", reason="NOT_RUNNING")
    names = [variant.variant_id for variant in old.variants]
    if request.winner_variant_id and request.winner_variant_id not in names:
        raise InvalidInput.of(
            "winner_variant_id", "UNKNOWN_VARIANT", f"there is no variant {request.winner_variant_id}; there are {', '.join(names)}"
        )
    if request.promote and not request.winner_variant_id:
        raise InvalidInput.of("winner_variant_id", "MISSING", "is required to promote somebody")
    new = pb.Experiment()
    new.CopyFrom(old)
    new.state = pb.EXPERIMENT_STATE_CONCLUDED if concludes else pb.EXPERIMENT_STATE_STOPPED
    if not new.HasField("stop_time"):
        new.stop_time.CopyFrom(to_timestamp(now))
    new.verdict = request.verdict or old.verdict
    new.winner_variant_id, new.promoted = request.winner_variant_id, request.promote
    return sealed(new)


def variant_of(experiment: pb.Experiment, variant_id: str) -> pb.Variant | None:
    """The variant of that name."""
    return next((variant for variant in experiment.variants if variant.variant_id == variant_id), None)


def weights_of(experiment: pb.Experiment) -> dict[str, float]:
    """By variant."""
    return {variant.variant_id: variant.weight for variant in experiment.variants}


def meet(one: str, other: str) -> bool:
    """Whether a slate can be of both surfaces; empty is all of them."""
    return not one or not other or one == other


def sealed(experiment: pb.Experiment) -> pb.Experiment:
    """The experiment with the etag of its content."""
    experiment.etag = ""
    experiment.etag = hashlib.blake2b(experiment.SerializeToString(deterministic=True), digest_size=8).hexdigest()
    return experiment


def _filled(wanted: pb.Experiment, experiment_id: str) -> pb.Experiment:
    new = pb.Experiment()
    new.CopyFrom(wanted)
    fill_method(new)
    check(new)
    for name in SET_BY_SERVER:
        new.ClearField(name)  # type: ignore[arg-type]
    new.experiment_id = experiment_id
    new.layer = new.layer or DEFAULT_LAYER
    new.salt = new.salt or experiment_id
    new.control_variant_id = new.control_variant_id or new.variants[0].variant_id
    _plan_size(new)
    return new


def _check_interleaving(draft: pb.Experiment, running: Iterable[pb.Experiment]) -> None:
    """A slate holds two rankings and no four. In one layer nobody is in two experiments, so that only other layers matter."""
    if not interleaves(draft):
        return
    for one in running:
        if interleaves(one) and one.layer != draft.layer and meet(one.surface, draft.surface):
            raise FailedPrecondition(
                f"{one.experiment_id} interleaves the slates of the same surface in another layer, and one slate holds no more than two "
                f"rankings: stop it, or put {draft.experiment_id} into its layer, {one.layer}, and give each a part of the users (traffic)",
                reason="INTERLEAVED_ALREADY",
            )


def _plan_size(experiment: pb.Experiment) -> None:
    if not experiment.HasField("planned_effect"):
        return
    planned = experiment.planned_effect
    a, b = planned.baseline, planned.baseline * (1 + planned.lift)
    level, wanted, comparisons = experiment.level or LEVEL, planned.power or power.POWER, len(experiment.variants) - 1
    if KINDS[experiment.primary_metric.kind].value == "proportion":
        users = power.users_per_variant_for_proportions(a, b, level=level, power=wanted, comparisons=comparisons)
    else:
        square = planned.deviation**2
        users = power.users_per_variant(square, square, b - a, level=level, power=wanted, comparisons=comparisons)
    experiment.planned_users_per_variant, experiment.planned_formula = users, power.FORMULA


def _changed(old: pb.Experiment, new: pb.Experiment) -> list[str]:
    changed = []
    for field in pb.Experiment.DESCRIPTOR.fields:
        # One that is there with nothing in it (a bandit by default) is not one that is absent.
        there = [field.has_presence and one.HasField(field.name) for one in (old, new)]  # type: ignore[arg-type]
        if field.name not in SET_BY_SERVER and (there[0] != there[1] or getattr(old, field.name) != getattr(new, field.name)):
            changed.append(field.name)
    return changed


def _without_weights(experiment: pb.Experiment) -> list[pb.Variant]:
    return [pb.Variant(variant_id=one.variant_id, parameters=one.parameters) for one in experiment.variants]


def _must_run(experiment: pb.Experiment) -> None:
    if experiment.state != pb.EXPERIMENT_STATE_RUNNING:
        raise FailedPrecondition(f"{experiment.experiment_id} does not run", reason="NOT_RUNNING")


def _share_out(experiment: pb.Experiment, now: datetime) -> None:
    """Moves the places to the variants' weights, and begins a period of them."""
    weights, shares = weights_of(experiment), _shares(experiment)
    del experiment.shares[:]
    experiment.shares.extend(_shares_message(moved_shares(shares, weights)))
    experiment.weight_periods.append(pb.WeightPeriod(start_time=to_timestamp(now), weights=weights))


def _shares(experiment: pb.Experiment) -> tuple[Share, ...]:
    return tuple(Share(one.variant_id, Span(one.start, one.end)) for one in experiment.shares)


def _shares_message(shares: Iterable[Share]) -> list[pb.PlaceShare]:
    return [pb.PlaceShare(variant_id=one.variant_id, start=one.span.start, end=one.span.end) for one in shares]
