"""How fast the fold takes the ledger in, and whether it is exact."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.stack import running
from benchmarks.traffic import PER_SLATE, interaction, slate
from collector.fold import FoldWorker
from collector.process import fold_lease, open_tracking
from collector.rebuild import recount
from collector.settings import CollectorSettings, LabelSettings, RetentionSettings
from runtime.mongo import Mongo
from runtime.process import settle_memory
from runtime.schema import migrate
from runtime.settings import MongoSettings

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class FoldRate:
    """What was folded, and how fast."""

    interactions: int
    slates: int
    seconds: float
    agrees: bool
    """Whether a recount of the ledger says the same."""

    @property
    def entries_per_second(self) -> float:
        """Interactions and slates."""
        return (self.interactions + self.slates) / self.seconds


class _Silent:
    def step(self, description: str, total: int | None = None) -> None:
        """Nobody watches."""

    def advance(self, count: int) -> None:
        """Nobody watches."""


async def bench(directory: Path, *, events: int) -> FoldRate:
    """Folds interactions, each attributed to an impression, and their slates of ten."""
    settings, labels = CollectorSettings(), LabelSettings()
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)
    async with running(directory, server=False) as stack:
        mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
        try:
            await migrate(mongo)
            tracking = open_tracking(mongo, settings, labels, RetentionSettings())
            slates = events // PER_SLATE
            for first in range(0, slates, BATCH):
                await tracking.record_slates([slate(number, _moment(start, number)) for number in range(first, min(first + BATCH, slates))])
            for first in range(0, events, BATCH):
                numbers = range(first, min(first + BATCH, events))
                await tracking.track([interaction(number, _moment(start, number // PER_SLATE)) for number in numbers])
            settle_memory()  # as the collector does before it begins
            lease = fold_lease(mongo, settings)
            worker = FoldWorker(mongo, lease, labels.combination, batch_entries=settings.fold_entries, poll_seconds=1)
            begin = time.perf_counter()
            while await worker.step():
                pass
            seconds = time.perf_counter() - begin
            await lease.release()
            found = await recount(mongo, fold_lease(mongo, settings), labels.combination, _Silent())
            return FoldRate(events, slates, seconds, found.agrees)
        finally:
            await mongo.close()


def _moment(start: datetime, slate_number: int) -> datetime:
    return start + timedelta(milliseconds=20 * slate_number)
