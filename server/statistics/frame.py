"""What every answer of statistics says of itself: the period, and what the figures are complete from and up to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from collector.fold import oldest_pending
from collector.retention import cut_of
from collector.validation import MAX_ID_BYTES
from runtime.errors import InvalidInput
from runtime.mongo import Mongo
from runtime.timestamps import at_millisecond, to_timestamp
from server.statistics.period import Period, period_of

Answer = TypeVar("Answer", bound=Any)


@dataclass(frozen=True, slots=True)
class Frame:
    """Between requests with a period and answers that speak of one."""

    mongo: Mongo
    clock: Callable[[], datetime]

    async def asked(self, request: Any) -> tuple[Period, datetime]:
        """The period asked for, and the time up to which the ledger is folded. Read before the figures, so that it promises too little.

        Raises:
            InvalidInput: it is no period.
        """
        now = at_millisecond(self.clock())
        period = period_of(request, now)
        return period, min(await oldest_pending(self.mongo) or now, now)

    async def framed(self, answer: Answer, period: Period, as_of: datetime) -> Answer:
        """The answer with the period it is for, and with what it is complete from and up to."""
        answer.start_time.CopyFrom(to_timestamp(period.start))
        answer.end_time.CopyFrom(to_timestamp(period.end))
        answer.as_of_time.CopyFrom(to_timestamp(as_of))
        if (cut := await cut_of(self.mongo)) is not None:
            answer.ledger_start_time.CopyFrom(to_timestamp(cut))
        return answer


def check_id(field: str, value: str, *, required: bool) -> None:
    """Raises InvalidInput for an id that is missing or too long."""
    if required and not value:
        raise InvalidInput.of(field, "MISSING", "is required")
    if len(value.encode()) > MAX_ID_BYTES:
        raise InvalidInput.of(field, "TOO_LONG", f"has {len(value.encode())} bytes; at most {MAX_ID_BYTES}")


def check_ids(field: str, values: Any, *, most: int) -> None:
    """Raises InvalidInput for a list of names that is too long, or has one that is."""
    if len(values) > most:
        raise InvalidInput.of(field, "TOO_MANY", f"has {len(values)} entries; at most {most}")
    for index, value in enumerate(values):
        check_id(f"{field}[{index}]", value, required=True)
