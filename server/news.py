"""Which users just did something, as far as this server knows: it took it in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta


class UserNews:
    """When each user's newest interactions were accepted here; bounded, the longest ago goes first. Belongs to one event loop.

    A server tells the ranking worker with each request, so that a history read before is read again: no matter which of the workers it
    asks, and without a message to any other. What another server took in is seen when the worker's own patience ends.
    """

    def __init__(self, *, capacity: int, clock: Callable[[], datetime]) -> None:
        self._capacity = capacity
        self._clock = clock
        self._newest = datetime.min.replace(tzinfo=UTC)
        self._heard: OrderedDict[str, datetime] = OrderedDict()

    def hear(self, user_ids: Iterable[str]) -> None:
        """Notes users whose interactions are in the ledger now."""
        # Always later than what was told before, even where a clock stands still or is put back.
        now = max(self._clock(), self._newest + timedelta(microseconds=1))
        self._newest = now
        for user_id in user_ids:
            self._heard[user_id] = now
            self._heard.move_to_end(user_id)
        while len(self._heard) > self._capacity:
            self._heard.popitem(last=False)

    def of(self, user_id: str) -> datetime | None:
        """When; None: not lately."""
        return self._heard.get(user_id)
