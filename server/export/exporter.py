"""ExportRecords: what is asked for, checked, streamed in pieces, and where each piece ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any, Final

from rankloop.v1 import export_pb2 as pb
from rankloop.v1.record_pb2 import Record
from runtime.errors import InvalidInput, Overloaded
from runtime.mongo import Mongo
from runtime.timestamps import EPOCH
from server.export.kinds import BadPlace, Place, Source, sources
from server.paging import no_token, opened, token_after
from server.statistics.period import Period, period_of

PIECE_BYTES: Final = 2**20
PIECE_RECORDS: Final = 1000
COUNTED_BEFOREHAND: Final = 1_000_000
"""Records counted before the first is sent; beyond it the count is not told."""
STREAM_SECONDS: Final = 600.0
"""After it a stream ends, and the caller asks for the rest: no stream lives for ever."""
STREAMS_AT_ONCE: Final = 4
RETRY_AFTER_SECONDS: Final = 5.0
AHEAD: Final = timedelta(days=1)


class Exporter:
    """Streams what is kept. Belongs to one event loop."""

    def __init__(self, mongo: Mongo, clock: Callable[[], datetime], seconds: Callable[[], float]) -> None:
        """`seconds` is a monotonic clock."""
        self._sources = sources(mongo)
        self._clock = clock
        self._seconds = seconds
        self._streams = 0

    async def export(self, request: pb.ExportRecordsRequest) -> AsyncIterator[pb.ExportRecordsResponse]:
        """The records of a kind and period, in pieces.

        Raises:
            InvalidInput: with the field at fault.
            Overloaded: as many exports are under way as may be.
            StorageError: the database does not answer; what was sent is right, and its token goes on behind it.
        """
        source, period, question = self._asked(request)
        after = opened(request.resume_token, question, field="resume_token") if request.resume_token else None
        if self._streams >= STREAMS_AT_ONCE:
            raise Overloaded(
                f"{self._streams} exports are under way here; try again when one has ended", retry_after_seconds=RETRY_AFTER_SECONDS
            )
        self._streams += 1
        try:
            total = None if after is not None else await source.count(period, COUNTED_BEFOREHAND)
            async for piece in self._pieces(source, period, question, after):
                if total is not None and total < COUNTED_BEFOREHAND:
                    piece.total_count = total
                total = None
                yield piece
        except BadPlace:
            raise no_token("resume_token") from None
        finally:
            self._streams -= 1

    def _asked(self, request: pb.ExportRecordsRequest) -> tuple[Source, Period, list[Any]]:
        known = {number: name.removeprefix("RECORD_KIND_").lower() for name, number in pb.RecordKind.items() if number}
        name = known.get(request.kind)
        if name is None:
            reason, said = ("OUT_OF_RANGE", f"is {request.kind}") if request.kind else ("MISSING", "is required")
            raise InvalidInput.of("kind", reason, f"{said}; one of {', '.join(f'RECORD_KIND_{one.upper()}' for one in known.values())}")
        now = self._clock()
        period = period_of(request, now, open_ended=True)
        if request.HasField("start_time") and period.start > now + AHEAD:
            raise InvalidInput.of("start_time", "IN_THE_FUTURE", "is more than a day ahead of the server's clock")
        start = _milliseconds(period.start) if request.HasField("start_time") else None
        end = _milliseconds(period.end) if request.HasField("end_time") else None
        return self._sources[name], period, ["export", name, start, end]

    async def _pieces(
        self, source: Source, period: Period, question: list[Any], after: Place | None
    ) -> AsyncIterator[pb.ExportRecordsResponse]:
        """What there is, in pieces of bounded size. The last one has no token; the last of a stream that lived long enough has one."""
        ends = self._seconds() + STREAM_SECONDS
        records: list[Record] = []
        size = 0
        place = after
        async for placed in source.parts(period, after):
            for here, found in placed:
                # A piece is sent when the next records are there, so that whoever has sent the last one knows that it was.
                if records and (size >= PIECE_BYTES or len(records) >= PIECE_RECORDS):
                    yield pb.ExportRecordsResponse(records=records, resume_token=token_after(question, place or []))
                    if self._seconds() > ends:
                        return
                    records, size = [], 0
                records += found
                size += sum(record.ByteSize() for record in found)
                place = here
        yield pb.ExportRecordsResponse(records=records)


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)
