"""Experiments, as callers see them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta

from prometheus_client import Counter

from ranker.models.registry import ModelRegistry
from rankloop.assignment import Because, plan_of
from rankloop.v1 import experiment_pb2 as pb
from runtime.errors import FailedPrecondition, InvalidInput, NotFound, RankloopError
from runtime.logs import get_logger
from runtime.mongo import Mongo
from runtime.timestamps import EPOCH, at_millisecond, is_valid, to_datetime
from server.experiments import lifecycle
from server.experiments.answer import answer, point_message, segment_message
from server.experiments.breakdown import by_period, by_segment, by_time
from server.experiments.followed import stop_of
from server.experiments.gathering import MAX_LOOKS, Gathering
from server.experiments.method import interleaves
from server.experiments.metrics import design_of
from server.experiments.observed import Period
from server.experiments.preference_answer import preference_answer
from server.experiments.readout import read, read_periods
from server.experiments.recall import latest
from server.experiments.running import RunningExperiments
from server.experiments.store import ExperimentStore
from server.experiments.verdict import judge
from server.paging import last_of, page_size, token_after

log = get_logger("server")

MAX_SEGMENTS = 4
KEPT_READOUTS = 100
FRESH = timedelta(seconds=2)
"""A readout is not read again within this time, or within ten times what it took, whichever is longer, up to STALE."""
STALE = timedelta(minutes=1)

MISMATCHES = Counter(
    "rankloop_experiment_sample_ratio_mismatches", "Readouts that are void: users were not shared out as planned.", ["experiment_id"]
)

REASONS = {
    Because.ASSIGNED: pb.ASSIGNMENT_REASON_ASSIGNED,
    Because.OVERRIDDEN: pb.ASSIGNMENT_REASON_OVERRIDDEN,
    Because.INTERLEAVED: pb.ASSIGNMENT_REASON_INTERLEAVED,
    Because.HELD_OUT: pb.ASSIGNMENT_REASON_HELD_OUT,
    Because.ELSEWHERE: pb.ASSIGNMENT_REASON_ELSEWHERE,
    Because.ANONYMOUS: pb.ASSIGNMENT_REASON_ANONYMOUS,
}


class Experiments:
    """Written, started, read out, stopped. Belongs to one event loop."""

    def __init__(
        self, mongo: Mongo, store: ExperimentStore, running: RunningExperiments, *, new_id: Callable[[], str], clock: Callable[[], datetime]
    ) -> None:
        self._mongo = mongo
        self._store = store
        self._running = running
        self._models = ModelRegistry(mongo)
        self._new_id = new_id
        self._clock = clock
        self._readouts: OrderedDict[tuple[str, ...], tuple[datetime, pb.GetExperimentResultsResponse]] = OrderedDict()

    async def create(self, wanted: pb.Experiment) -> pb.Experiment:
        """A draft. Raises InvalidInput and AlreadyExists."""
        now = self._now()
        draft = lifecycle.created(wanted, wanted.experiment_id or self._new_id(), now)
        await self._check_models(draft)
        await self._store.insert(draft, now)
        return draft

    async def update(self, wanted: pb.Experiment) -> pb.Experiment:
        """The experiment as it shall be. Raises InvalidInput, NotFound, FailedPrecondition and Aborted."""
        now = self._now()
        _named(wanted.experiment_id, "experiment.experiment_id")

        def decide(old: pb.Experiment, _: list[pb.Experiment]) -> tuple[pb.Experiment, str]:
            new, changed = lifecycle.updated(old, wanted, now)
            return new, ", ".join(changed) or "nothing"

        await self._check_models(wanted)
        changed = await self._store.change(wanted.experiment_id, wanted.etag, "update", now, decide)
        await self._heard()
        return changed

    async def start(self, experiment_id: str, etag: str) -> pb.Experiment:
        """Lets a draft run. Raises NotFound, FailedPrecondition and Aborted."""
        now = self._now()
        _named(experiment_id, "experiment_id")
        draft, _ = await self._store.get(experiment_id)
        await self._check_models(draft)
        changed = await self._store.change(
            experiment_id, etag, "start", now, lambda old, running: (lifecycle.started(old, running, now), "")
        )
        await self._heard()
        return changed

    async def stop(self, request: pb.StopExperimentRequest) -> pb.Experiment:
        """Ends it, and promotes the winner if asked to. Raises NotFound, FailedPrecondition, InvalidInput and Aborted."""
        now = self._now()
        _named(request.experiment_id, "experiment_id")

        def decide(old: pb.Experiment, _: list[pb.Experiment]) -> tuple[pb.Experiment, str]:
            new = lifecycle.stopped(old, request, now)
            said = request.verdict or (f"{request.winner_variant_id} won" if request.winner_variant_id else "")
            return new, f"{said}; promoted" if request.promote else said

        changed = await self._store.change(request.experiment_id, request.etag, "stop", now, decide)
        winner = lifecycle.variant_of(changed, changed.winner_variant_id)
        if request.promote and winner is not None and winner.parameters.model_version:
            await self._models.promote(
                winner.parameters.model_version, now, reason=f"won experiment {request.experiment_id} as {winner.variant_id}"
            )
        await self._heard()
        return changed

    async def get(self, experiment_id: str) -> tuple[pb.Experiment, list[pb.ExperimentChange]]:
        """One, with its history. Raises NotFound."""
        _named(experiment_id, "experiment_id")
        return await self._store.get(experiment_id)

    async def page(self, request: pb.ListExperimentsRequest) -> tuple[list[pb.Experiment], str]:
        """A page, newest first, and the token of the next one."""
        limit, question = page_size(request.page_size), ["experiments", int(request.state)]
        last = last_of(request.page_token, question, int, str)
        before = (EPOCH + timedelta(milliseconds=last[0]), last[1]) if last else None
        found = await self._store.page(request.state, limit, before)
        if len(found) < limit:
            return found, ""
        return found, token_after(question, [found[-1].create_time.ToMilliseconds(), found[-1].experiment_id])

    async def assignment(self, request: pb.GetAssignmentRequest) -> pb.GetAssignmentResponse:
        """A user's variant, and why. Raises NotFound."""
        _named(request.experiment_id, "experiment_id")
        experiment, _ = await self._store.get(request.experiment_id)
        response = pb.GetAssignmentResponse(experiment_id=request.experiment_id, user_id=request.user_id)
        if experiment.state != pb.EXPERIMENT_STATE_RUNNING:
            response.reason = pb.ASSIGNMENT_REASON_NOT_RUNNING
            return response
        found = plan_of(experiment).assign(request.user_id)
        response.variant_id, response.reason = found.variant_id, REASONS[found.because]
        if found.propensity is not None:
            response.variant_propensity = found.propensity
        variant = lifecycle.variant_of(experiment, found.variant_id)
        if variant is not None and variant.HasField("parameters"):
            response.parameters.CopyFrom(variant.parameters)
        return response

    async def results(self, request: pb.GetExperimentResultsRequest) -> pb.GetExperimentResultsResponse:
        """The readout. Raises NotFound and InvalidInput."""
        _named(request.experiment_id, "experiment_id")
        if len(request.segment_by) > MAX_SEGMENTS:
            raise InvalidInput.of("segment_by", "TOO_MANY", f"has {len(request.segment_by)} entries; at most {MAX_SEGMENTS}")
        if request.HasField("as_of_time") and not is_valid(request.as_of_time):
            raise InvalidInput.of("as_of_time", "OUT_OF_RANGE", "is not a time between the years 1 and 9999")
        experiment, _ = await self._store.get(request.experiment_id)
        now = self._now()
        key = (experiment.experiment_id, experiment.etag, str(request.as_of_time), *request.segment_by)
        kept = self._readouts.get(key)
        if kept is not None and now < kept[0]:
            return kept[1]
        response = await self._read(experiment, request, now)
        took = 10 * (self._now() - now)
        self._readouts[key] = (now + min(max(took, FRESH), STALE), response)
        while len(self._readouts) > KEPT_READOUTS:
            self._readouts.popitem(last=False)
        if response.sample_ratio.void:
            MISMATCHES.labels(experiment.experiment_id).inc()
            log.warning("an experiment's users are not shared out as planned", experiment=experiment.experiment_id)
        return response

    async def periods(self, experiment: pb.Experiment, now: datetime) -> list[Period]:
        """What was seen of a running experiment so far, by weights."""
        found, _ = await latest(self._mongo, experiment, now)
        return found.periods

    async def _read(
        self, experiment: pb.Experiment, request: pb.GetExperimentResultsRequest, now: datetime
    ) -> pb.GetExperimentResultsResponse:
        if request.HasField("as_of_time") or request.segment_by:
            as_of = to_datetime(request.as_of_time) if request.HasField("as_of_time") else stop_of(experiment) or now
            found = await Gathering(self._mongo, experiment, as_of=as_of, segment_by=request.segment_by).gather()
        else:
            found, as_of = await latest(self._mongo, experiment, now)
        design = design_of(experiment)
        start = to_datetime(experiment.start_time) if experiment.HasField("start_time") else to_datetime(experiment.create_time)
        if interleaves(experiment):
            return preference_answer(experiment, design, found, start, as_of)
        readout = read(design, found.groups) if len(found.periods) == 1 else read_periods(design, found.periods)
        response = answer(experiment, readout, judge(design, readout, start_time=start, now=as_of), found.caps, as_of)
        control = experiment.control_variant_id
        if request.segment_by:
            segments, response.segment_warning = by_segment(design, found.segments)
            response.segments.extend(segment_message(one, control) for one in segments)
        if len(found.periods) == 1:
            points = by_time(design, found.looks)
        else:
            ends = [*(start for one in experiment.weight_periods[1:] if (start := to_datetime(one.start_time)) < as_of), as_of]
            points = await asyncio.to_thread(by_period, design, found.periods, ends, most=MAX_LOOKS)
        response.series.extend(point_message(one, control) for one in points)
        response.mixed_user_count = found.mixed_user_count
        response.anonymous_slate_count = found.anonymous_slate_count
        response.tester_count = found.tester_count
        return response

    async def _check_models(self, experiment: pb.Experiment) -> None:
        """Raises InvalidInput for a model that is not there or was refused."""
        for place, variant in enumerate(experiment.variants):
            version, path = variant.parameters.model_version, f"experiment.variants[{place}].parameters.model_version"
            if not version:
                continue
            try:
                record = await self._models.get(version)
            except NotFound as error:
                raise InvalidInput.of(path, "UNKNOWN_MODEL", f"there is no model {version}; ListModels names them") from error
            if record.status == "refused":
                raise FailedPrecondition(f"model {version} was refused: {record.status_reason}", reason="MODEL_REFUSED")

    async def _heard(self) -> None:
        """Here a change holds at once; elsewhere within the poll."""
        try:
            await self._running.refresh()
        except RankloopError as error:
            log.warning("a changed experiment is heard of with the next poll", reason=error.reason)

    def _now(self) -> datetime:
        return at_millisecond(self._clock())


def _named(experiment_id: str, field: str) -> None:
    if not experiment_id:
        raise InvalidInput.of(field, "MISSING", "is required; ListExperiments names them")
