"""Models and training runs, as callers see them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ranker.features.schema import FeatureSchema
from ranker.models.importing import import_forest
from ranker.models.passport import Metric
from ranker.models.registry import ModelRecord, ModelRegistry
from ranker.models.runs import TrainingRun, TrainingRuns
from rankloop.v1 import model_pb2 as pb
from runtime.errors import FailedPrecondition, InvalidInput
from runtime.mongo import Mongo
from runtime.timestamps import EPOCH, at_millisecond, to_duration, to_timestamp
from server.paging import last_of, page_size, token_after

MAX_REASON_BYTES = 1024

STATUSES = {
    "candidate": pb.MODEL_STATUS_CANDIDATE,
    "champion": pb.MODEL_STATUS_CHAMPION,
    "retired": pb.MODEL_STATUS_RETIRED,
    "refused": pb.MODEL_STATUS_REFUSED,
}
RUN_STATUSES = {
    "requested": pb.TRAINING_RUN_STATUS_REQUESTED,
    "running": pb.TRAINING_RUN_STATUS_RUNNING,
    "succeeded": pb.TRAINING_RUN_STATUS_SUCCEEDED,
    "failed": pb.TRAINING_RUN_STATUS_FAILED,
}


class Models:
    """The registry and the history of the trainer, in the contract's words."""

    def __init__(self, mongo: Mongo, schema: FeatureSchema, *, new_id: Callable[[], str], clock: Callable[[], datetime]) -> None:
        self._registry = ModelRegistry(mongo)
        self._runs = TrainingRuns(mongo)
        self._schema = schema
        self._new_id = new_id
        self._clock = clock

    async def list_models(self, *, size: int, token: str) -> tuple[list[pb.Model], str]:
        """A page of models, newest first, and the token of the next one."""
        limit = page_size(size)
        found = await self._registry.list(limit, _before(token, "models"))
        more = token_after(["models"], [_milliseconds(found[-1].create_time), found[-1].model_version]) if len(found) == limit else ""
        return [model_message(record) for record in found], more

    async def get(self, model_version: str) -> pb.Model:
        """A model; without a version, the champion. Raises NotFound."""
        return model_message(await self._registry.get(model_version or await self._champion()))

    async def bring(self, forest: bytes, feature_names: Sequence[str], model_version: str) -> pb.Model:
        """Takes in a forest made elsewhere. Raises InvalidInput and AlreadyExists."""
        now = self._now()
        # Checking a forest number by number takes a while, and other calls go on meanwhile.
        bundle = await asyncio.to_thread(import_forest, forest, list(feature_names), model_version or None, self._schema, now=now)
        return model_message(await self._registry.publish(bundle, now, reason="imported"))

    async def promote(self, model_version: str) -> pb.Model:
        """Makes a model the champion. Raises NotFound and FailedPrecondition."""
        if not model_version:
            raise InvalidInput.of("model_version", "MISSING", "is required; ListModels names them")
        return model_message(await self._registry.promote(model_version, self._now()))

    async def roll_back(self, expected: str) -> pb.Model:
        """Back to the champion before. Raises FailedPrecondition and Aborted."""
        return model_message(await self._registry.rollback(self._now(), expected=expected or None))

    async def request_training(self, reason: str) -> pb.TrainingRun:
        """Asks the trainer for a run."""
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise InvalidInput.of("reason", "TOO_LONG", f"has more than {MAX_REASON_BYTES} bytes")
        return run_message(await self._runs.request(self._new_id(), self._now(), reason=reason))

    async def list_runs(self, *, size: int, token: str) -> tuple[list[pb.TrainingRun], str]:
        """A page of training runs, newest first, and the token of the next one."""
        limit = page_size(size)
        await self._runs.sweep(self._now())
        found = await self._runs.list(limit, _before(token, "runs"))
        more = token_after(["runs"], [_milliseconds(found[-1].create_time), found[-1].run_id]) if len(found) == limit else ""
        return [run_message(run) for run in found], more

    async def _champion(self) -> str:
        champion = await self._registry.champion()
        if champion is None:
            raise FailedPrecondition("no model serves yet; train one with `rankloop train`", reason="NO_CHAMPION")
        return champion

    def _now(self) -> datetime:
        return at_millisecond(self._clock())


def model_message(record: ModelRecord) -> pb.Model:
    """A model in the contract's words."""
    model = pb.Model(
        model_version=record.model_version,
        status=STATUSES[record.status],
        status_reason=record.status_reason,
        create_time=to_timestamp(record.create_time),
        source=record.source,
        tree_count=record.tree_count,
        feature_names=record.feature_names,
        schema_hash=record.schema_hash,
        slate_count=record.slate_count,
        row_count=record.row_count,
        metrics=[_metric(metric) for metric in record.metrics],
        top_features=[pb.FeatureImportance(feature=gain.feature, gain_share=gain.gain_share) for gain in record.top_features],
        file_sha256=record.files,
        byte_count=record.byte_count,
        refusals=[
            pb.Refusal(ranker=one.ranker, reason=one.reason, description=one.description, refuse_time=to_timestamp(one.refuse_time))
            for one in record.refusals
        ],
    )
    if record.serve_time is not None:
        model.serve_time.CopyFrom(to_timestamp(record.serve_time))
    if record.promote_time is not None:
        model.promote_time.CopyFrom(to_timestamp(record.promote_time))
    if record.data_start_time is not None and record.data_end_time is not None:
        model.data_start_time.CopyFrom(to_timestamp(record.data_start_time))
        model.data_end_time.CopyFrom(to_timestamp(record.data_end_time))
    return model


def run_message(run: TrainingRun) -> pb.TrainingRun:
    """A training run in the contract's words."""
    message = pb.TrainingRun(
        run_id=run.run_id,
        status=RUN_STATUSES[run.status],
        trigger=run.trigger,
        mode=run.mode,
        create_time=to_timestamp(run.create_time),
        row_count=run.row_count,
        model_version=run.model_version,
        promoted=run.promoted,
        result=run.result,
        metrics=[_metric(metric) for metric in run.metrics],
        error=run.error,
        rounds_added_count=run.rounds_added,
        rounds_removed_count=run.rounds_removed,
        reason=run.reason,
    )
    if run.begin_time is not None:
        message.begin_time.CopyFrom(to_timestamp(run.begin_time))
    if run.end_time is not None:
        message.end_time.CopyFrom(to_timestamp(run.end_time))
    if run.seconds is not None:
        message.duration.CopyFrom(to_duration(run.seconds))
    return message


def _metric(metric: Metric) -> pb.Metric:
    return pb.Metric(name=metric.name, value=metric.value, low=metric.low, high=metric.high)


def _before(token: str, question: str) -> tuple[datetime, str] | None:
    last = last_of(token, [question], int, str)
    return (EPOCH + timedelta(milliseconds=last[0]), last[1]) if last else None


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)
