"""Training that follows the traffic: on a request, after so many new interactions, or at the times of a cron line.

What was trained on is remembered in the history of runs, so a follower that is started again goes on where the last one was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

from ranker.models.registry import ModelRegistry
from ranker.models.runs import Mode, TrainingRun, TrainingRuns, Trigger
from ranker.training import metrics
from ranker.training.arrivals import folded_interactions
from ranker.training.dataset import Progress
from ranker.training.report import TrainingReport
from ranker.training.schedule import Schedule
from ranker.training.settings import TrainerSettings
from ranker.training.trainer import Serving, TrainingOptions, train
from ranker.training.turn import AlreadyTraining
from runtime.errors import RankloopError, StorageError
from runtime.logs import get_logger
from runtime.mongo import Mongo

log = get_logger("trainer")

Told = Callable[[TrainingReport | RankloopError], None]


class TrainingFollower:
    """Trains whenever there is a reason to. One training at a time, here and in the whole deployment."""

    def __init__(
        self,
        mongo: Mongo,
        settings: TrainerSettings,
        *,
        mode: Mode,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
        progress: Callable[[], AbstractContextManager[Progress]],
        told: Told,
        serving: Serving | None = None,
    ) -> None:
        """`told` hears what every training came to.

        Raises:
            BadSchedule: `follow_schedule` is no cron line.
        """
        self._mongo, self._settings, self._mode, self._serving = mongo, settings, mode, serving or Serving()
        self._runs, self._registry = TrainingRuns(mongo), ModelRegistry(mongo)
        self._new_id, self._clock, self._progress, self._told = new_id, clock, progress, told
        self._schedule = Schedule(settings.follow_schedule, clock()) if settings.follow_schedule else None
        self._scheduled = False
        self._fewer: tuple[str, int] | None = None
        """A run, and what there was when there was less than that run has seen: retention or an erasure took some."""

    async def follow(self, stop: asyncio.Event) -> None:
        """Looks and trains until `stop` is set; a training under way is broken off then, and is in the history as failed."""
        while not stop.is_set():
            try:
                await self._runs.sweep(self._clock())
                if (trigger := await self.due()) is not None:
                    await _unless(stop, self._train(trigger))
            except StorageError as error:
                log.warning("the database does not answer; looking again", error=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.follow_poll_seconds):
                    await stop.wait()

    async def due(self) -> Trigger | None:
        """Why to train now; None: there is no reason to."""
        now, threshold = self._clock(), self._settings.follow_interactions
        if self._schedule is not None and self._schedule.due(now):
            self._scheduled = True
        last = await self._runs.latest("full", "warm-start")
        seen = await folded_interactions(self._mongo)
        new = self._new_since(last, seen)
        metrics.NEW_INTERACTIONS.set(new)
        if await self._runs.waiting() is not None:
            return "request"
        if self._scheduled:
            return "schedule"
        enough = bool(threshold) and new >= threshold and seen >= self._settings.min_interactions
        return "threshold" if enough and _rested(last, now) else None

    def _new_since(self, last: TrainingRun | None, seen: int) -> int:
        """Interactions that came since a run began."""
        if last is None:
            return seen
        known = last.interaction_count
        if known is None or known > seen:
            if self._fewer is None or self._fewer[0] != last.run_id or self._fewer[1] > seen:
                self._fewer = (last.run_id, seen)
            known = self._fewer[1]
        return seen - known

    async def _train(self, trigger: Trigger) -> None:
        log.info("training", trigger=trigger)
        try:
            report = await self._trained(trigger, await self._mode_now())
        except AlreadyTraining as error:
            # A job of cron's, say. What is due stays due.
            log.info("another training is under way", told=error.message)
            return
        except RankloopError as error:
            self._scheduled = False
            metrics.RUNS.labels(trigger, "failed").inc()
            log.warning("trained nothing", trigger=trigger, reason=error.reason, error=error.message)
            self._told(error)
            return
        self._scheduled = False
        metrics.RUNS.labels(trigger, "succeeded").inc()
        metrics.SUCCEEDED.set(self._clock().timestamp())
        metrics.SECONDS.set(report.seconds)
        log.info("trained", trigger=trigger, model_version=report.model_version, promoted=report.promoted, decision=report.decision)
        self._told(report)

    async def _mode_now(self) -> Mode:
        """A warm start where that was asked for and there is something to go on from, else a full training."""
        if self._mode != "warm-start" or (version := await self._registry.champion()) is None:
            return "full"
        champion = await self._registry.get(version)
        return "full" if champion.tree_count >= self._settings.warm_start_max_trees else "warm-start"

    async def _trained(self, trigger: Trigger, mode: Mode) -> TrainingReport:
        try:
            return await self._once(trigger, mode)
        except RankloopError as error:
            if mode != "warm-start" or error.reason not in ("OTHER_FEATURES", "NO_CHAMPION"):
                raise
            return await self._once(trigger, "full")

    async def _once(self, trigger: Trigger, mode: Mode) -> TrainingReport:
        options = TrainingOptions(
            settings=self._settings, run_id=self._new_id(), clock=self._clock, mode=mode, trigger=trigger, serving=self._serving
        )
        with self._progress() as progress:
            return await train(self._mongo, options, progress)


def _rested(last: TrainingRun | None, now: datetime) -> bool:
    """Whether as long has passed since the last run as it took: however much comes in, half of the time at most is spent training."""
    if last is None or last.end_time is None or last.seconds is None:
        return True
    return now >= last.end_time + timedelta(seconds=last.seconds)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Does `work`, or breaks it off when `stop` is set; raises what it raises."""
    working, told = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        told.cancel()
        await asyncio.gather(working, told, return_exceptions=True)
