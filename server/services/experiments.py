"""ExperimentService."""

from __future__ import annotations

from typing import Any

from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1 import experiment_pb2_grpc
from server.experiments.experiments import Experiments


class ExperimentServicer(experiment_pb2_grpc.ExperimentServiceServicer):
    """Decodes, asks, encodes."""

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments

    async def CreateExperiment(self, request: pb.CreateExperimentRequest, context: Any) -> pb.CreateExperimentResponse:
        return pb.CreateExperimentResponse(experiment=await self._experiments.create(request.experiment))

    async def UpdateExperiment(self, request: pb.UpdateExperimentRequest, context: Any) -> pb.UpdateExperimentResponse:
        return pb.UpdateExperimentResponse(experiment=await self._experiments.update(request.experiment))

    async def StartExperiment(self, request: pb.StartExperimentRequest, context: Any) -> pb.StartExperimentResponse:
        return pb.StartExperimentResponse(experiment=await self._experiments.start(request.experiment_id, request.etag))

    async def StopExperiment(self, request: pb.StopExperimentRequest, context: Any) -> pb.StopExperimentResponse:
        return pb.StopExperimentResponse(experiment=await self._experiments.stop(request))

    async def GetExperiment(self, request: pb.GetExperimentRequest, context: Any) -> pb.GetExperimentResponse:
        experiment, changes = await self._experiments.get(request.experiment_id)
        return pb.GetExperimentResponse(experiment=experiment, changes=changes)

    async def ListExperiments(self, request: pb.ListExperimentsRequest, context: Any) -> pb.ListExperimentsResponse:
        experiments, token = await self._experiments.page(request)
        return pb.ListExperimentsResponse(experiments=experiments, next_page_token=token)

    async def GetAssignment(self, request: pb.GetAssignmentRequest, context: Any) -> pb.GetAssignmentResponse:
        return await self._experiments.assignment(request)

    async def GetExperimentResults(self, request: pb.GetExperimentResultsRequest, context: Any) -> pb.GetExperimentResultsResponse:
        return await self._experiments.results(request)
