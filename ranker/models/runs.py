"""The history of the trainer: what was asked for, what ran, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from ranker.models.passport import Metric
from runtime.errors import NotFound
from runtime.mongo import Document, Mongo

RunStatus = Literal["requested", "running", "succeeded", "failed"]
Trigger = Literal["command", "request", "threshold", "schedule"]
Mode = Literal["full", "warm-start", "evaluate-only"]

MAX_PAGE_SIZE = 1000

ALIVE = timedelta(seconds=60)
"""How long a run that no longer says that it lives is still taken for running."""

FORGOTTEN = timedelta(days=1)
"""The same for a run that never said so, begun by a release that did not."""

LOST = "lost: its process ended without a word (killed, out of memory, or its machine went away)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One run of the trainer."""

    run_id: str
    status: RunStatus
    trigger: Trigger
    mode: Mode
    create_time: datetime
    """When it was asked for or began."""
    begin_time: datetime | None = None
    """When it began; None: not yet."""
    end_time: datetime | None = None
    seconds: float | None = None
    """How long it took, from its begin."""
    reason: str = ""
    """Why it was asked for, in the caller's words."""
    row_count: int = 0
    """Impressions it learned from."""
    interaction_count: int | None = None
    """Interactions that the fold had taken in when it began; None: not known."""
    rounds_added: int | None = None
    """Trees that it added to nothing (full) or to the champion's (warm start); None: it trained none."""
    rounds_removed: int | None = None
    """Trees that it trained beyond those and dropped again, since they did not help the validation slice."""
    model_version: str = ""
    """The model it published; empty: none."""
    promoted: bool = False
    """Whether that model became champion."""
    result: str = ""
    """What the gate decided, or why it failed, in words."""
    error: str = ""
    """Why it failed, in words; empty: it did not."""
    metrics: tuple[Metric, ...] = ()

    @classmethod
    def from_document(cls, document: Document) -> TrainingRun:
        """As stored."""
        fields = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**{**fields, "run_id": document["_id"], "metrics": tuple(Metric(**one) for one in document.get("metrics", []))})


class TrainingRuns:
    """The runs of a deployment, in MongoDB. Times and ids are arguments."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._runs = mongo.collection("training_runs")

    async def request(self, run_id: str, now: datetime, *, reason: str = "") -> TrainingRun:
        """Asks for a run. One that waits already is returned instead of a second one."""

        async def work(session: Any) -> Document:
            # Two requests at one moment both write here, so one of them waits for the other and then sees its run.
            meta = self._mongo.collection("meta")
            await meta.update_one({"_id": "training_request"}, {"$inc": {"count": 1}}, upsert=True, session=session)
            waiting = await self._runs.find_one({"status": "requested"}, session=session)
            if waiting is not None:
                return waiting
            asked: Document = {
                "_id": run_id,
                "status": "requested",
                "trigger": "request",
                "mode": "full",
                "create_time": now,
                "reason": reason,
                "row_count": 0,
                "promoted": False,
                "result": "",
                "metrics": [],
            }
            await self._runs.insert_one(asked, session=session)
            return asked

        return TrainingRun.from_document(await self._mongo.transact(work))

    async def begin(
        self, run_id: str, now: datetime, *, trigger: Trigger = "command", mode: Mode = "full", interaction_count: int | None = None
    ) -> TrainingRun:
        """Begins a run. A request that waits is taken up, under its own id; an evaluation leaves it waiting, for it asks for a model.

        From now on `beat` says that it lives, more often than every `ALIVE`.
        """
        living: Document = {"alive_until": now + ALIVE}
        if interaction_count is not None:
            living["interaction_count"] = interaction_count
        if mode != "evaluate-only":
            changes = {"status": "running", "begin_time": now, "mode": mode, "trigger": "request", **living}
            waiting = await self._runs.find_one_and_update({"status": "requested"}, {"$set": changes}, sort=[("create_time", 1)])
            if waiting is not None:
                return TrainingRun.from_document(waiting)
        begun: Document = {
            "_id": run_id,
            "status": "running",
            "trigger": trigger,
            "mode": mode,
            "create_time": now,
            "begin_time": now,
            "row_count": 0,
            "promoted": False,
            "result": "",
            "metrics": [],
            **living,
        }
        await self._runs.insert_one(begun)
        return TrainingRun.from_document(begun)

    async def beat(self, run: TrainingRun, now: datetime) -> None:
        """Says that a run lives."""
        await self._runs.update_one({"_id": run.run_id, "status": "running"}, {"$set": {"alive_until": now + ALIVE}})

    async def sweep(self, now: datetime) -> int:
        """Ends, as failed, the runs whose process ended without a word; returns how many there were."""
        silent = [{"alive_until": {"$lt": now}}, {"alive_until": {"$exists": False}, "begin_time": {"$lt": now - FORGOTTEN}}]
        lost = await self._runs.find({"status": "running", "$or": silent}, limit=MAX_PAGE_SIZE)
        for document in lost:
            begun, last_seen = document["begin_time"], document.get("alive_until", document["begin_time"] + ALIVE) - ALIVE
            ended = {"status": "failed", "end_time": now, "seconds": max(0.0, (last_seen - begun).total_seconds())}
            # Only what is silent still: it may have spoken, or ended, since it was read.
            still = {"_id": document["_id"], "status": "running", "$or": silent}
            await self._runs.update_one(still, {"$set": {**ended, "result": LOST, "error": LOST}})
        return len(lost)

    async def waiting(self) -> TrainingRun | None:
        """The request that waits; None: none does."""
        document = await self._runs.find_one({"status": "requested"}, sort=[("create_time", 1)])
        return None if document is None else TrainingRun.from_document(document)

    async def latest(self, *modes: Mode) -> TrainingRun | None:
        """The run of these modes that began last; None: none did."""
        query = {"mode": {"$in": list(modes)}, "begin_time": {"$exists": True}}
        document = await self._runs.find_one(query, sort=[("create_time", -1)])
        return None if document is None else TrainingRun.from_document(document)

    async def succeed(
        self,
        run: TrainingRun,
        now: datetime,
        *,
        result: str,
        row_count: int = 0,
        model_version: str = "",
        promoted: bool = False,
        metrics: Sequence[Metric] = (),
        rounds: tuple[int, int] | None = None,
    ) -> TrainingRun:
        """Ends a run well. `rounds` are those added and removed, None: none was trained."""
        changes: Document = {"result": result, "row_count": row_count, "model_version": model_version, "promoted": promoted}
        if rounds is not None:
            changes["rounds_added"], changes["rounds_removed"] = rounds
        changes["metrics"] = [metric.to_document() for metric in metrics]
        changes["error"] = ""
        return await self._end(run, "succeeded", now, changes)

    async def fail(self, run: TrainingRun, now: datetime, *, error: str) -> TrainingRun:
        """Ends a run without a model. `error` says why, in words."""
        return await self._end(run, "failed", now, {"result": error, "error": error})

    async def get(self, run_id: str) -> TrainingRun:
        """A run. Raises NotFound."""
        document = await self._runs.find_one({"_id": run_id})
        if document is None:
            raise NotFound(f"there is no training run {run_id}", reason="TRAINING_RUN_NOT_FOUND")
        return TrainingRun.from_document(document)

    async def list(self, page_size: int = 100, before: tuple[datetime, str] | None = None) -> list[TrainingRun]:
        """Runs, newest first, at most `page_size`. For the next page, `before` is (create_time, run_id) of the last one."""
        query: dict[str, Any] = {}
        if before is not None:
            moment, run_id = before
            query = {"$or": [{"create_time": {"$lt": moment}}, {"create_time": moment, "_id": {"$lt": run_id}}]}
        found = await self._runs.find(query, sort=[("create_time", -1), ("_id", -1)], limit=min(max(page_size, 1), MAX_PAGE_SIZE))
        return [TrainingRun.from_document(document) for document in found]

    async def _end(self, run: TrainingRun, status: RunStatus, now: datetime, changes: Document) -> TrainingRun:
        begun = run.begin_time or run.create_time
        ended = {"status": status, "end_time": now, "seconds": max(0.0, (now - begun).total_seconds()), **changes}
        document = await self._runs.find_one_and_update({"_id": run.run_id}, {"$set": ended})
        if document is None:
            raise NotFound(f"there is no training run {run.run_id}", reason="TRAINING_RUN_NOT_FOUND")
        return TrainingRun.from_document(document)
