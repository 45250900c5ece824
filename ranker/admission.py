"""What a ranking worker takes in: rankings that can be answered while their callers wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter

from runtime.admission import MeanSeconds, verdict
from runtime.errors import Overloaded, Unavailable

RETRY_AFTER_SECONDS: Final = 0.1

SHED = Counter("rankloop_ranker_shed", "Rankings refused before any work, since they could not be answered in time.", ("reason",))
for _reason in ("full", "late"):
    SHED.labels(_reason)


class Admission:
    """Counts what is under way in a worker, which ranks one request after the other. Belongs to one event loop."""

    def __init__(self, busy: MeanSeconds, *, capacity: int) -> None:
        """`busy`: how long a ranking keeps the worker busy, as far as it is known."""
        self._busy = busy
        self._capacity = capacity
        self._under_way = 0
        self._open = False

    def open(self) -> None:
        """From now on rankings are taken in: items and model are in memory."""
        self._open = True

    @contextmanager
    def admitted(self, remaining_seconds: float | None) -> Iterator[None]:
        """Room for one ranking for the length of the block.

        Raises:
            Unavailable: the worker is not ready yet.
            Overloaded: there is none, or those before it leave it no time.
        """
        if not self._open:
            raise Unavailable("this ranking worker is starting; ask another")
        told = verdict(
            waiting=self._under_way,
            capacity=self._capacity,
            at_once=1,
            mean_seconds=self._busy.seconds,
            remaining_seconds=float("inf") if remaining_seconds is None else remaining_seconds,
        )
        if told:
            SHED.labels(told).inc()
            raise Overloaded("this ranking worker has too much to do; ask another", retry_after_seconds=RETRY_AFTER_SECONDS)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
