"""Answers kept for a moment, so that several who ask the same cost as much as one.

An answer is the same as a new one while nothing was folded since; one that took long is given again for a while even so. It always says
as of when it is. The key of an answer holds everything that it depends on, who may see it included.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from collector.fold import oldest_pending
from collector.retention import cut_of
from runtime.ending import end
from runtime.mongo import Mongo

Made = TypeVar("Made")

LONGEST_SECONDS = 60.0
"""No answer is given again later than that."""
COSTLY_SECONDS = 1.0
"""One that took longer is given again though something was folded since, for TIMES_ITS_COST of the time it took."""
TIMES_ITS_COST = 20.0
MOST_ANSWERS = 128


async def revision_of(mongo: Mongo) -> Hashable:
    """What changes with everything derived, with what of the ledger is folded, and when retention takes something away."""
    lease = await mongo.collection("leases").find_one({"_id": "fold"}, {"revision": 1})
    return int(lease["revision"]) if lease else 0, await oldest_pending(mongo), await cut_of(mongo)


@dataclass(slots=True)
class _Answer:
    revision: Hashable
    making: asyncio.Task[Any]
    begun: float
    ended: float = 0.0


@dataclass(slots=True)
class Remembered:
    """Belongs to one event loop; bounded by the number of answers."""

    mongo: Mongo
    clock: Callable[[], float] = time.monotonic
    _answers: OrderedDict[Hashable, _Answer] = field(default_factory=OrderedDict)

    async def get(
        self,
        key: Hashable,
        make: Callable[[], Awaitable[Made]],
        *,
        longest_seconds: float = LONGEST_SECONDS,
        stale_seconds: float = LONGEST_SECONDS,
        costly_seconds: float = COSTLY_SECONDS,
    ) -> Made:
        """The answer to `key`. It goes on being made when its caller leaves, for whoever asks again.

        At most `longest_seconds` old while nothing was folded since (longer if it was costly); at most `stale_seconds` old otherwise, and
        then only if it took `costly_seconds` and is not older than TIMES_ITS_COST of the time it took.
        """
        revision = await revision_of(self.mongo)
        kept = self._answers.get(key)
        if kept is None or not self._good(kept, revision, longest_seconds, stale_seconds, costly_seconds):
            kept = _Answer(revision, asyncio.ensure_future(make()), self.clock())
            kept.making.add_done_callback(lambda _: self._done(key, kept))
            self._answers[key] = kept
            while len(self._answers) > MOST_ANSWERS:
                self._answers.popitem(last=False)
        self._answers.move_to_end(key)
        made: Made = await asyncio.shield(kept.making)
        return made

    def seconds_in_making(self, key: Hashable) -> float:
        """For how long the answer has been in the making; 0: it is not."""
        kept = self._answers.get(key)
        return 0.0 if kept is None or kept.ended else self.clock() - kept.begun

    async def close(self) -> None:
        """Breaks off what is being made."""
        await end(*(one.making for one in self._answers.values()))

    def _good(self, kept: _Answer, revision: Hashable, longest_seconds: float, stale_seconds: float, costly_seconds: float) -> bool:
        now = self.clock()
        if not kept.ended:
            return kept.revision == revision or (stale_seconds > 0 and now - kept.begun > costly_seconds)
        age, cost = now - kept.ended, kept.ended - kept.begun
        costly = cost > costly_seconds and age < min(stale_seconds, TIMES_ITS_COST * cost)
        return costly or (kept.revision == revision and age < longest_seconds)

    def _done(self, key: Hashable, answer: _Answer) -> None:
        answer.ended = self.clock()
        failed = answer.making.cancelled() or answer.making.exception() is not None
        if failed and self._answers.get(key) is answer:
            del self._answers[key]
