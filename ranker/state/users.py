"""Users' histories, read when one is asked for and kept for a few seconds."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


@dataclass(slots=True)
class _Kept:
    history: History
    read_at: float


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
        limit: int = LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fresh_seconds` is how long a history is served without reading again, `timeout_seconds` the longest wait for a read."""
        self._interactions = interactions
        self._items = items
        self._capacity = capacity
        self._fresh_seconds = fresh_seconds
        self._timeout_seconds = timeout_seconds
        self._limit = limit
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self.hit_count = 0
        """Histories served without a read."""
        self.miss_count = 0
        """Histories read."""
        self.failure_count = 0
        """Reads that failed or took too long; an older history, or an empty one, was served instead."""

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, user_id: str) -> History:
        """The user's history. Never fails: when it cannot be read, the last one known is served, or that of a stranger."""
        if not user_id:
            return NO_HISTORY
        kept, now = self._kept.get(user_id), self._clock()
        if kept is not None and now - kept.read_at <= self._fresh_seconds:
            self._kept.move_to_end(user_id)
            self.hit_count += 1
            return kept.history
        self.miss_count += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                documents = await self._interactions.find(
                    {"user_id": user_id}, PROJECTION, sort=[("user_id", 1), ("occur_time", -1), ("_id", -1)], limit=self._limit
                )
        except (StorageError, TimeoutError):
            self.failure_count += 1
            return NO_HISTORY if kept is None else kept.history
        history = history_of(documents, self._items)
        self._kept[user_id] = _Kept(history, now)
        self._kept.move_to_end(user_id)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return history

    def forget(self, user_id: str) -> None:
        """Reads the user anew at the next request."""
        self._kept.pop(user_id, None)
