"""The arm of an experiment that a log is imported as."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1.experiment_pb2_grpc import ExperimentServiceStub
from runtime.errors import RankloopError
from scripts.connection import CallFailed, Connection


class NoSuchArm(RankloopError):
    """There is no such experiment, or it has no such variant."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant of an experiment."""

    experiment_id: str
    variant_id: str


async def check_arm(connection: Connection, arm: Arm) -> None:
    """Passes an arm that the server knows.

    Raises:
        NoSuchArm: it is not there, or every user sees both variants.
    """
    stub = ExperimentServiceStub(connection.channel)
    try:
        answer = await connection.call(stub.GetExperiment, pb.GetExperimentRequest(experiment_id=arm.experiment_id))
    except CallFailed as failed:
        if failed.code is grpc.StatusCode.NOT_FOUND:
            raise NoSuchArm(
                f"--experiment: there is no experiment {arm.experiment_id}; write it with `rankloop experiments create` first"
            ) from None
        raise
    experiment: pb.Experiment = answer.experiment
    names = [variant.variant_id for variant in experiment.variants]
    if arm.variant_id not in names:
        raise NoSuchArm(f"--variant: {arm.experiment_id} has no variant {arm.variant_id}; it has {', '.join(names)}")
    if experiment.method == pb.EXPERIMENT_METHOD_INTERLEAVING:
        raise NoSuchArm(f"--experiment: {arm.experiment_id} interleaves its variants, and a log is of one of them")
