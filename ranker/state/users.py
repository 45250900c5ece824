"""Users' histories, read when one is asked for and kept for a few seconds."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ranker.features.history import LIMIT, NO_HISTORY, History
from ranker.state.history import history_of
from ranker.state.items import ItemState
from runtime.errors import StorageError

PROJECTION = {"item_id": 1, "type": 1, "label": 1, "acts": 1, "occur_time": 1, "item_type": 1}


class Interactions(Protocol):
    """The ledger's interactions, as far as this reads them."""

    async def find(
        self,
        query: Mapping[str, Any],
        projection: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int,
    ) -> list[dict[str, Any]]:
        """The documents that match, at most `limit`."""


NO_NEWS: Final = float("-inf")


@dataclass(slots=True)
class _Kept:
    history: History
    read_at: float
    news_seconds: float
    """The news that the read was meant to see."""


@dataclass(slots=True)
class _Reading:
    task: asyncio.Task[History | None]
    news_seconds: float


class UserHistories:
    """A bounded cache of users' histories in front of one indexed read. The least recently asked for goes first."""

    def __init__(
        self,
        interactions: Interactions,
        items: ItemState,
        *,
        capacity: int,
        fresh_seconds: float,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fresh_seconds` is how long a history is served without reading again, `timeout_seconds` the longest wait for a read."""
        self._interactions = interactions
        self._items = items
        self._capacity = capacity
        self._fresh_seconds = fresh_seconds
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._readings: dict[str, _Reading] = {}
        self.hit_count = 0
        """Histories served without a read."""
        self.miss_count = 0
        """Histories read."""
        self.shared_count = 0
        """Histories served by a read that was under way."""
        self.failure_count = 0
        """Reads that failed or took too long; an older history, or an empty one, was served instead."""

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, user_id: str, *, news_seconds: float = NO_NEWS) -> History:
        """The user's history. Never fails: when it cannot be read, the last one known is served, or that of a stranger.

        Requests for one user share a read. `news_seconds` is when the user last did something, in Unix seconds, as far as the caller
        knows: what was read before that news was known is read again, however fresh.
        """
        if not user_id:
            return NO_HISTORY
        kept = self._kept.get(user_id)
        if kept is not None and kept.news_seconds >= news_seconds and self._clock() - kept.read_at <= self._fresh_seconds:
            self._kept.move_to_end(user_id)
            self.hit_count += 1
            return kept.history
        reading = self._readings.get(user_id)
        if reading is None or reading.news_seconds < news_seconds:
            # A task of its own: whoever asked first may go away while others wait. It ends by its own timeout.
            reading = _Reading(asyncio.create_task(self._read(user_id, news_seconds)), news_seconds)
            self._readings[user_id] = reading
            self.miss_count += 1
        else:
            self.shared_count += 1
        history = await asyncio.shield(reading.task)
        if history is not None:
            return history
        return NO_HISTORY if kept is None else kept.history

    async def _read(self, user_id: str, news_seconds: float) -> History | None:
        """Reads and keeps; None: it could not be read."""
        began = self._clock()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                documents = await self._interactions.find(
                    {"user_id": user_id}, PROJECTION, sort=[("user_id", 1), ("occur_time", -1), ("_id", -1)], limit=LIMIT
                )
        except (StorageError, TimeoutError):
            self.failure_count += 1
            return None
        finally:
            reading = self._readings.get(user_id)
            if reading is not None and reading.task is asyncio.current_task():
                del self._readings[user_id]
        history = history_of(documents, self._items)
        kept = self._kept.get(user_id)
        if kept is not None and kept.news_seconds > news_seconds:
            return kept.history  # a later read was quicker
        self._kept[user_id] = _Kept(history, began, news_seconds)
        self._kept.move_to_end(user_id)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return history

    def forget(self, user_id: str) -> None:
        """Reads the user anew at the next request."""
        self._kept.pop(user_id, None)
