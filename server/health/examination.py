"""Everything that is examined, at once for whoever asks, or kept for a while for those who look often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from runtime.ending import end
from runtime.errors import RankloopError
from runtime.logs import get_logger
from runtime.mongo import Mongo
from server.health.entries import clock_skew, duplicates, slate_faults, unknown_items
from server.health.features import FeatureHealth
from server.health.finding import Finding, Scope, Severity

log = get_logger("health")

GLANCE = timedelta(days=1)
GLANCE_ENTRIES = 10_000
GLANCE_SLATES = 200


class Examination:
    """Examines the data of a scope."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._features = FeatureHealth(mongo)

    async def findings(self, scope: Scope) -> list[Finding]:
        """What is wrong or worth knowing, warnings first."""
        found = [
            await unknown_items(self._mongo, scope),
            *await slate_faults(self._mongo, scope),
            await clock_skew(self._mongo, scope),
            await duplicates(self._mongo, scope),
            *await self._features.findings(scope),
        ]
        return sorted((one for one in found if one is not None), key=lambda one: (one.severity is Severity.NOTE, one.name))


@dataclass(frozen=True, slots=True)
class Examined:
    """Findings, and when they were made."""

    findings: tuple[Finding, ...]
    moment: datetime


class Glance:
    """The last day's findings, at most a minute old; whoever asks waits for a first examination only a moment."""

    def __init__(self, mongo: Mongo, clock: Callable[[], datetime], *, keep_seconds: float = 60.0, wait_seconds: float = 1.0) -> None:
        self._examination = Examination(mongo)
        self._clock = clock
        self._keep = timedelta(seconds=keep_seconds)
        self._wait_seconds = wait_seconds
        self._latest: Examined | None = None
        self._running: asyncio.Task[None] | None = None

    async def look(self) -> Examined | None:
        """The latest findings; None while the first are being made, or where they could not be made."""
        if self._latest is None or self._clock() - self._latest.moment >= self._keep:
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._examine())
            if self._latest is None:
                await asyncio.wait([self._running], timeout=self._wait_seconds)
        return self._latest

    async def close(self) -> None:
        """Ends what runs."""
        if self._running is not None:
            await end(self._running)

    async def _examine(self) -> None:
        now = self._clock()
        scope = Scope(start=now - GLANCE, end=now + GLANCE, most_entries=GLANCE_ENTRIES, most_slates=GLANCE_SLATES)
        try:
            self._latest = Examined(tuple(await self._examination.findings(scope)), now)
        except RankloopError as failure:
            log.warning("the data could not be examined", reason=str(failure))
