"""Who looks after running experiments: a bandit's weights move when they are due, and what breaches a guardrail is stopped if it asks.

Every server has one, and one at a time acts, under a lease. That no change is made twice does not rest on the lease: a change names the
etag of what was read out, and whoever comes second is refused. When a bandit's weights are due follows from its stored periods alone, so
that a restart forgets nothing, repeats nothing, and what was missed in between is made up once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta

from prometheus_client import Counter

from rankloop.v1 import experiment_pb2 as pb
from runtime.errors import Aborted, RankloopError
from runtime.lease import Lease
from runtime.logs import get_logger
from runtime.timestamps import at_millisecond, to_datetime
from server.experiments import lifecycle
from server.experiments.experiments import Experiments
from server.experiments.metrics import design_of
from server.experiments.reweighting import decide, rule_of
from server.experiments.running import RunningExperiments
from server.experiments.store import ExperimentStore
from server.inference.difference import LEVEL

log = get_logger("server")

LEASE_NAME = "experiments"
LEASE_SECONDS = 60.0
RENEWAL = timedelta(seconds=LEASE_SECONDS / 4)

UPDATES = Counter(
    "rankloop_experiment_weight_updates",
    "Updates of a bandit's weights that were due, by what came of them: moved, unchanged, too_few, void, full, overtaken, failed.",
    ["experiment_id", "outcome"],
)
LOOKS = Counter(
    "rankloop_experiment_breach_looks",
    "Readouts of experiments that stop on a breach, by what came of them: sound, stopped, overtaken, failed.",
    ["experiment_id", "outcome"],
)

Action = Callable[[pb.Experiment], Awaitable[str]]
"""Reads out and acts; says what came of it."""


class ExperimentKeeper:
    """Belongs to one event loop."""

    def __init__(
        self,
        experiments: Experiments,
        store: ExperimentStore,
        running: RunningExperiments,
        lease: Lease,
        *,
        watch: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        """`watch` is how often guardrails are looked at, and after how long at most a bandit that could not tell is asked again."""
        self._experiments = experiments
        self._store = store
        self._running = running
        self._lease = lease
        self._watch = watch
        self._clock = clock
        self._holds = False
        self._claim_time: datetime | None = None
        self._next: dict[tuple[str, str], datetime] = {}
        """By experiment and action: not before then."""

    async def run(self, tick_seconds: float) -> None:
        """Looks after them until cancelled."""
        try:
            while True:
                await asyncio.sleep(tick_seconds)
                try:
                    await self.attend()
                except RankloopError as error:
                    log.warning("experiments could not be looked after; tried again", reason=error.reason)
        finally:
            with suppress(RankloopError):
                await self._lease.release()

    async def attend(self) -> None:
        """Does what is due, if it is ours to do.

        Raises:
            StorageError: nobody knows whose it is.
        """
        mine = [one for one in self._running.experiments if one.HasField("bandit") or one.stop_on_breach]
        known = {one.experiment_id for one in mine}
        self._next = {key: moment for key, moment in self._next.items() if key[0] in known}
        for one in mine:
            for name, counter, due, act, rest in (
                ("breach", LOOKS, one.stop_on_breach, self._stop_if_breached, self._watch),
                ("bandit", UPDATES, self._weights_due(one), self._reweight, self._patience(one)),
            ):
                if not await self._ours():
                    return
                now, key = self._clock(), (one.experiment_id, name)
                if due and now >= self._next.get(key, now):
                    outcome = await _tried(one.experiment_id, act(one))
                    counter.labels(one.experiment_id, outcome).inc()
                    self._next[key] = self._clock() + rest

    async def _ours(self) -> bool:
        now = self._clock()
        if self._claim_time is None or now >= self._claim_time + RENEWAL:
            self._holds, self._claim_time = await self._lease.claim(), now
        return self._holds

    def _weights_due(self, experiment: pb.Experiment) -> bool:
        if not experiment.HasField("bandit"):
            return False
        since = to_datetime(experiment.weight_periods[-1].start_time)
        return self._clock() >= since + rule_of(experiment.bandit).update_interval

    def _patience(self, experiment: pb.Experiment) -> timedelta:
        return min(self._watch, rule_of(experiment.bandit).update_interval)

    async def _reweight(self, known: pb.Experiment) -> str:
        """Moves the weights to where what was seen so far takes them."""
        experiment, _ = await self._store.get(known.experiment_id)
        if experiment.state != pb.EXPERIMENT_STATE_RUNNING or not self._weights_due(experiment):
            return "overtaken"
        periods = await self._experiments.periods(experiment, self._now())
        decision = await asyncio.to_thread(decide, design_of(experiment), rule_of(experiment.bandit), periods)
        weights, now = decision.weights, self._now()
        if weights is None:
            log.info("a bandit's weights stay", experiment=experiment.experiment_id, outcome=decision.outcome, why=decision.why)
            return decision.outcome
        await self._store.change(
            experiment.experiment_id,
            experiment.etag,
            "reweight",
            now,
            lambda old, _: (lifecycle.reweighted(old, weights, now), decision.why),
        )
        log.info("a bandit's weights moved", experiment=experiment.experiment_id, why=decision.why)
        await self._running.refresh()
        return decision.outcome

    async def _stop_if_breached(self, known: pb.Experiment) -> str:
        """Stops it where a guardrail is worse than its margin for sure. Always valid: however often it is looked at."""
        experiment, _ = await self._store.get(known.experiment_id)
        if experiment.state != pb.EXPERIMENT_STATE_RUNNING or not experiment.stop_on_breach:
            return "overtaken"
        found = await self._experiments.results(pb.GetExperimentResultsRequest(experiment_id=experiment.experiment_id))
        why = breach_told(found, experiment.level or LEVEL)
        if not why:
            return "sound"
        now = self._now()
        await self._store.change(
            experiment.experiment_id,
            experiment.etag,
            "stop_on_breach",
            now,
            lambda old, _: (lifecycle.stopped_by_itself(old, why, now), why),
        )
        log.warning("an experiment stopped by itself", experiment=experiment.experiment_id, why=why)
        await self._running.refresh()
        return "stopped"

    def _now(self) -> datetime:
        return at_millisecond(self._clock())


def breach_told(found: pb.GetExperimentResultsResponse, level: float) -> str:
    """The guardrails that are breached, in words; empty: none is."""
    told = []
    for metric in found.metrics:
        for one in metric.comparisons:
            if one.breached:
                relative = one.HasField("relative_sequential")
                test = one.relative_sequential if relative else one.absolute_sequential
                value, low, high = (f"{amount:+.1%}" if relative else f"{amount:+.4g}" for amount in (test.value, test.low, test.high))
                told.append(
                    f"{metric.name} of {one.variant_id} is {value} against {one.control_variant_id} ({1 - level:.0%} interval {low} to "
                    f"{high}, always valid)"
                )
    return f"Stopped by itself, a guardrail is breached: {'; '.join(told)}." if told else ""


async def _tried(experiment_id: str, action: Awaitable[str]) -> str:
    """What came of it. Whatever is wrong with one experiment, the others and the server go on."""
    try:
        return await action
    except Aborted:
        log.info("an experiment was changed by somebody else while it was read out", experiment=experiment_id)
        return "overtaken"
    except RankloopError as error:
        log.warning("an experiment could not be looked after; tried again", experiment=experiment_id, reason=error.reason)
    except Exception as error:
        log.error("an experiment could not be looked after", experiment=experiment_id, exc_info=error)
    return "failed"
