"""ModelService."""

from __future__ import annotations

from typing import Any

from rankloop.v1 import model_pb2 as pb
from rankloop.v1 import model_pb2_grpc
from server.models import Models


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Decodes, asks, encodes."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        models, token = await self._models.list_models(size=request.page_size, token=request.page_token)
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=await self._models.get(request.model_version))

    async def ImportModel(self, request: pb.ImportModelRequest, context: Any) -> pb.ImportModelResponse:
        return pb.ImportModelResponse(model=await self._models.bring(request.forest, request.feature_names, request.model_version))

    async def PromoteModel(self, request: pb.PromoteModelRequest, context: Any) -> pb.PromoteModelResponse:
        return pb.PromoteModelResponse(model=await self._models.promote(request.model_version))

    async def RollbackModel(self, request: pb.RollbackModelRequest, context: Any) -> pb.RollbackModelResponse:
        return pb.RollbackModelResponse(model=await self._models.roll_back(request.model_version))

    async def RequestTraining(self, request: pb.RequestTrainingRequest, context: Any) -> pb.RequestTrainingResponse:
        return pb.RequestTrainingResponse(run=await self._models.request_training(request.reason))

    async def ListTrainingRuns(self, request: pb.ListTrainingRunsRequest, context: Any) -> pb.ListTrainingRunsResponse:
        runs, token = await self._models.list_runs(size=request.page_size, token=request.page_token)
        return pb.ListTrainingRunsResponse(runs=runs, next_page_token=token)
