"""The experiments in force, in memory: assigning a user asks nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from rankloop.assignment import Assignment, Because, Plan, plan_of
from rankloop.v1 import experiment_pb2 as pb
from rankloop.worker.v1.worker_pb2 import RankingParameters
from runtime.errors import RankloopError
from runtime.logs import get_logger
from server.experiments.lifecycle import variant_of
from server.experiments.store import ExperimentStore

log = get_logger("server")

RUNNING = Gauge("rankloop_experiments_running", "Experiments that users are assigned to.")
STALE = Gauge(
    "rankloop_experiments_stale",
    "1 while the experiments could not be read anew: users are assigned by the last known ones.",
)
ASSIGNED = Counter("rankloop_experiment_slates", "Slates of an experiment's variant.", ["experiment_id", "variant_id"])


@dataclass(frozen=True, slots=True)
class InForce:
    """An experiment that runs."""

    experiment: pb.Experiment
    plan: Plan
    parameters: dict[str, pb.VariantParameters]
    """By variant."""

    @property
    def treatment_id(self) -> str:
        """Of an experiment that interleaves: the variant that is not the control."""
        return next(name for name in self.parameters if name != self.experiment.control_variant_id)


@dataclass(frozen=True, slots=True)
class Treatment:
    """What a user's slate on a surface shall be like."""

    assignments: Sequence[Assignment] = ()
    """Oldest experiment first; one per layer."""
    parameters: Sequence[pb.VariantParameters] = ()
    """What wins first."""
    interleaving: Interleaving | None = None
    """Two rankings for one slate, in place of the parameters; None: one ranking."""

    @property
    def algorithm(self) -> str:
        """The first that says one."""
        return next((one.algorithm for one in self.parameters if one.algorithm), "")

    @property
    def model_version(self) -> str:
        """The first that names one."""
        return next((one.model_version for one in self.parameters if one.model_version), "")

    def over(self, surface: RankingParameters) -> RankingParameters:
        """The surface's parameters with those of the variants before them."""
        if not self.parameters:
            return surface
        merged = RankingParameters()
        merged.CopyFrom(surface)
        for one in reversed(self.parameters):
            if one.HasField("mmr_lambda"):
                merged.mmr_lambda = one.mmr_lambda
            if one.diversifier:
                merged.diversifier = one.diversifier
            if one.HasField("exploration"):
                merged.exploration.CopyFrom(one.exploration)
            if one.HasField("rules"):
                merged.rules.MergeFrom(one.rules)
        return merged


@dataclass(frozen=True, slots=True)
class Interleaving:
    """What the two rankings of a slate shall be like."""

    experiment_id: str
    control_id: str
    treatment_id: str
    """The variants."""
    control: Treatment
    treatment: Treatment
    """With the parameters of other experiments that the user takes part in, which are the same in both."""


NOTHING = Treatment()


class RunningExperiments:
    """Follows the store; when it is away, goes on with what it knew. Belongs to one event loop."""

    def __init__(self, store: ExperimentStore, *, poll_seconds: float) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._in_force: list[InForce] = []
        self._promoted: list[pb.Experiment] = []
        """Newest first."""

    def treatment(self, surface: str, user_id: str) -> Treatment:
        """What holds for a user on a surface."""
        if not self._in_force and not self._promoted:
            return NOTHING
        assignments: list[Assignment] = []
        parameters: list[pb.VariantParameters] = []
        both: InForce | None = None  # what interleaves; its control's parameters are written down, at this place
        place = 0
        layers: set[str] = set()
        for one in self._in_force:
            if not _is_about(one.experiment, surface):
                continue
            found = one.plan.assign(user_id)
            if not found.takes_part or one.plan.layer in layers or (found.because is Because.INTERLEAVED and both is not None):
                continue
            layers.add(one.plan.layer)
            assignments.append(found)
            if found.because is Because.INTERLEAVED:
                both, place = one, len(parameters)
            parameters.append(one.parameters[found.variant_id or one.experiment.control_variant_id])
        for experiment in self._promoted:
            if _is_about(experiment, surface):
                winner = variant_of(experiment, experiment.winner_variant_id)
                if winner is not None:
                    parameters.append(winner.parameters)
                break
        if both is None:
            return Treatment(assignments, parameters)
        other = [*parameters[:place], both.parameters[both.treatment_id], *parameters[place + 1 :]]
        return Treatment(
            assignments,
            parameters,
            Interleaving(
                both.experiment.experiment_id,
                both.experiment.control_variant_id,
                both.treatment_id,
                Treatment(parameters=parameters),
                Treatment(parameters=other),
            ),
        )

    @property
    def experiments(self) -> list[pb.Experiment]:
        """Those that run, as last read; oldest start first."""
        return [one.experiment for one in self._in_force]

    async def refresh(self) -> None:
        """Reads what is in force.

        Raises:
            StorageError: it cannot be read.
        """
        found = await self._store.in_force()
        running = [one for one in found if one.state == pb.EXPERIMENT_STATE_RUNNING]
        self._in_force = [
            InForce(one, plan_of(one), {variant.variant_id: variant.parameters for variant in one.variants}) for one in running
        ]
        ended = [one for one in found if one.promoted]
        self._promoted = sorted(ended, key=lambda one: one.stop_time.ToNanoseconds(), reverse=True)
        RUNNING.set(len(running))
        STALE.set(0)

    async def run(self) -> None:
        """Follows until cancelled."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.refresh()
            except RankloopError as error:
                STALE.set(1)
                log.warning("experiments could not be read; users are assigned by the last known ones", reason=error.reason)


def _is_about(experiment: pb.Experiment, surface: str) -> bool:
    """Whether it has a say in slates of a surface; one without a surface in all."""
    return not experiment.surface or experiment.surface == surface


def counted(assignments: Sequence[Assignment]) -> None:
    """Counts a slate for its variants; testers do not count, and interleaved slates are counted where they are made."""
    for one in assignments:
        if one.because is Because.ASSIGNED:
            ASSIGNED.labels(one.experiment_id, one.variant_id).inc()
