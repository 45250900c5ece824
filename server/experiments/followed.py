"""An experiment beside its digest, and what users' histories say of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from rankloop.v1 import experiment_pb2 as pb
from runtime.mongo import Document, ReplaceOne
from runtime.timestamps import to_datetime
from server.experiments.digests import Digest
from server.experiments.history import History
from server.experiments.rows import Outline, Row, due_time, row_of


def stop_of(experiment: pb.Experiment) -> datetime | None:
    """When it ended, if it did."""
    return to_datetime(experiment.stop_time) if experiment.HasField("stop_time") else None


@dataclass(slots=True)
class Followed:
    """An experiment and its digest."""

    experiment: pb.Experiment
    outline: Outline
    digest: Digest

    @property
    def experiment_id(self) -> str:
        """Of the experiment."""
        return self.experiment.experiment_id

    @property
    def stop_time(self) -> datetime | None:
        """When it ended, if it did."""
        return stop_of(self.experiment)

    def as_of(self, now: datetime) -> datetime:
        """Of which moment rows are made."""
        return now if self.stop_time is None else min(now, self.stop_time)


@dataclass(slots=True)
class Told:
    """What some users' histories say."""

    rows: list[Row] = field(default_factory=list)
    due: dict[str, datetime] = field(default_factory=dict)
    """When an entry will begin to count that is known already, by user."""

    def take(self, one: Followed, histories: Iterable[History], now: datetime) -> None:
        """Makes their rows."""
        for history in histories:
            due = due_time(history, one.as_of(now))
            told: History | None = history
            if due is not None:
                told = history.before(one.as_of(now))
                if one.stop_time is None or due < one.stop_time:  # else it never will
                    self.due[history.user_id] = due
            if told is not None:
                self.rows.append(row_of(one.outline, told, one.as_of(now)))


def awaiting_writes(due: dict[str, datetime]) -> list[ReplaceOne[Document]]:
    """Notes when an entry of each user will begin to count."""
    return [ReplaceOne({"_id": user_id}, {"time": moment}, upsert=True) for user_id, moment in due.items()]
