"""Experiments as the database keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

from rankloop.v1 import experiment_pb2 as pb
from runtime.errors import Aborted, AlreadyExists, DuplicateKey, NotFound
from runtime.mongo import Document, Mongo
from runtime.timestamps import to_datetime, to_timestamp

MAX_CHANGES = 1000
"""Changes of one experiment that are kept, the latest."""


class ExperimentStore:
    """Every change is one transaction that reads, decides and writes, with a line of history."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._experiments = mongo.collection("experiments")
        self._meta = mongo.collection("meta")

    async def insert(self, experiment: pb.Experiment, now: datetime) -> None:
        """A new one. Raises AlreadyExists."""
        document = {"_id": experiment.experiment_id, **_fields(experiment), "changes": [_change("create", "", experiment, now)]}
        try:
            await self._experiments.insert_one(document)
        except DuplicateKey as error:
            raise AlreadyExists(f"there is an experiment {experiment.experiment_id} already; choose another id") from error

    async def get(self, experiment_id: str) -> tuple[pb.Experiment, list[pb.ExperimentChange]]:
        """One, with its history, oldest change first. Raises NotFound."""
        document = await self._experiments.find_one({"_id": experiment_id})
        if document is None:
            raise unknown(experiment_id)
        return experiment_in(document), changes_in(document)

    async def page(self, state: int, limit: int, before: tuple[datetime, str] | None) -> list[pb.Experiment]:
        """Newest first."""
        query: dict[str, Any] = {"state": _state_name(state)} if state else {}
        if before is not None:
            moment, experiment_id = before
            query["$or"] = [{"create_time": {"$lt": moment}}, {"create_time": moment, "_id": {"$lt": experiment_id}}]
        found = await self._experiments.find(query, {"content": 1}, sort=[("create_time", -1), ("_id", -1)], limit=limit)
        return [experiment_in(document) for document in found]

    async def in_force(self) -> list[pb.Experiment]:
        """Those that run, and those whose winner was promoted; oldest start first."""
        found = await self._experiments.find({"$or": [{"state": "running"}, {"promoted": True}]}, {"content": 1}, limit=10_000)
        experiments = [experiment_in(document) for document in found]
        return sorted(experiments, key=lambda one: (one.start_time.ToNanoseconds(), one.experiment_id))

    async def followed(self, since: datetime) -> list[pb.Experiment]:
        """Those that run, and those that were stopped after `since`."""
        ended = {"state": {"$in": ["stopped", "concluded"]}, "changes.time": {"$gt": since}}
        found = await self._experiments.find({"$or": [{"state": "running"}, ended]}, {"content": 1}, limit=10_000)
        experiments = [experiment_in(document) for document in found]
        return [one for one in experiments if not one.HasField("stop_time") or to_datetime(one.stop_time) > since]

    async def etags(self, experiment_ids: Sequence[str], session: Any) -> dict[str, str]:
        """Of each as it is now, within a transaction."""
        query = {"_id": {"$in": list(experiment_ids)}}
        found = await self._experiments.find(query, {"etag": 1}, limit=max(1, len(experiment_ids)), session=session)
        return {one["_id"]: one["etag"] for one in found}

    async def change(
        self,
        experiment_id: str,
        etag: str,
        action: str,
        now: datetime,
        decide: Callable[[pb.Experiment, list[pb.Experiment]], tuple[pb.Experiment, str]],
    ) -> pb.Experiment:
        """Replaces an experiment by what `decide` makes of it and of those that run, and notes why.

        Raises:
            NotFound: there is none.
            Aborted: its etag is another one by now.
        """

        async def work(session: Any) -> pb.Experiment:
            # Everybody who changes one writes here: of two that start at once, the second sees the first.
            await self._meta.update_one({"_id": "experiments"}, {"$inc": {"changes": 1}}, upsert=True, session=session)
            document = await self._experiments.find_one({"_id": experiment_id}, session=session)
            if document is None:
                raise unknown(experiment_id)
            if etag and document["etag"] != etag:
                raise Aborted(
                    f"{experiment_id} was changed since it was read; read it again, and make the change on that", reason="CHANGED"
                )
            running = await self._experiments.find({"state": "running"}, {"content": 1}, limit=10_000, session=session)
            others = [one for one in map(experiment_in, running) if one.experiment_id != experiment_id]
            new, description = decide(experiment_in(document), others)
            note = {"$each": [_change(action, description, new, now)], "$slice": -MAX_CHANGES}
            await self._experiments.update_one({"_id": experiment_id}, {"$set": _fields(new), "$push": {"changes": note}}, session=session)
            return new

        return await self._mongo.transact(work)


def experiment_in(document: Document) -> pb.Experiment:
    """As stored."""
    return pb.Experiment.FromString(document["content"])


def changes_in(document: Document) -> list[pb.ExperimentChange]:
    """Its history, oldest change first."""
    return [_change_message(one) for one in document["changes"]]


def unknown(experiment_id: str) -> NotFound:
    """There is none of that name."""
    return NotFound(f"there is no experiment {experiment_id}; ListExperiments names them", reason="EXPERIMENT_NOT_FOUND")


def _fields(experiment: pb.Experiment) -> Document:
    return {
        "content": experiment.SerializeToString(deterministic=True),
        "state": _state_name(experiment.state),
        "promoted": experiment.promoted,
        "etag": experiment.etag,
        "create_time": to_datetime(experiment.create_time),
    }


def _state_name(state: int) -> str:
    return pb.ExperimentState.Name(cast(Any, state)).removeprefix("EXPERIMENT_STATE_").lower()


def _change(action: str, description: str, experiment: pb.Experiment, now: datetime) -> Document:
    return {"time": now, "action": action, "description": description, "etag": experiment.etag}


def _change_message(document: Document) -> pb.ExperimentChange:
    return pb.ExperimentChange(
        change_time=to_timestamp(document["time"]),
        action=document["action"],
        description=document["description"],
        etag=document["etag"],
    )
