"""Sending records through the public API, in batches, some of them at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from rankloop.v1 import catalog_pb2, catalog_pb2_grpc, tracking_pb2, tracking_pb2_grpc
from rankloop.v1.record_pb2 import Record
from scripts.connection import CallFailed, Connection
from scripts.importing.lines import Line

MAX_BATCH_BYTES = 4 * 2**20
MAX_PAGES = 1000
"""Of a session, in one call."""
REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
)
"""What a server answers to one record that is wrong, where a call holds only one."""

Entry = tuple[Line, Any]
"""A line and the message in it that is to be sent."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record and the call that takes many of it."""

    id_field: str
    method: Any
    request: Callable[[list[Any]], Any]
    in_order: bool = False
    """Whether a later record replaces an earlier one of the same id, so that batches must not overtake each other."""


@dataclass(slots=True)
class Sent:
    """What became of the records of some lines."""

    counts: Counter[str] = field(default_factory=Counter)
    """By `<kind>.<accepted|duplicate|rejected>`."""

    rejected: list[tuple[Line, str]] = field(default_factory=list)
    """Lines with a record that the server refused, and why, in the order of the file."""


class Sender:
    """Sends records over a connection."""

    def __init__(self, connection: Connection, *, batch_size: int, concurrency: int) -> None:
        """`batch_size` records a call at most, `concurrency` calls at once at most."""
        self._connection = connection
        self._batch_size = batch_size
        self._slots = asyncio.Semaphore(concurrency)
        catalog = catalog_pb2_grpc.CatalogServiceStub(connection.channel)
        self._tracking = tracking = tracking_pb2_grpc.TrackingServiceStub(connection.channel)
        self._kinds = {
            "item": Kind("item_id", catalog.UpsertItems, lambda of: catalog_pb2.UpsertItemsRequest(items=of), in_order=True),
            "user": Kind("user_id", catalog.UpsertUsers, lambda of: catalog_pb2.UpsertUsersRequest(users=of), in_order=True),
            "slate": Kind("ranking_id", tracking.RecordSlates, lambda of: tracking_pb2.RecordSlatesRequest(slates=of)),
            "interaction": Kind("event_id", tracking.TrackInteractions, lambda of: tracking_pb2.TrackInteractionsRequest(interactions=of)),
            "outcome": Kind("event_id", tracking.RecordOutcomes, lambda of: tracking_pb2.RecordOutcomesRequest(outcomes=of)),
        }

    async def send(self, lines: Sequence[Line]) -> Sent:
        """Sends all records of the lines and says what became of them.

        Raises:
            CallFailed: the server stayed away, or refused more than a record. Nothing is known of these lines then; send them again.
        """
        by_kind: dict[str, list[Entry]] = {}
        for line in lines:
            for record in line.records:
                name = kind_of(record)
                by_kind.setdefault(name, []).append((line, getattr(record, name)))
        sent = Sent()
        try:
            async with asyncio.TaskGroup() as group:
                for name, entries in by_kind.items():
                    if name == "session":
                        for line, session in entries:
                            group.create_task(self._send_session(line, session, sent))
                    elif self._kinds[name].in_order:
                        group.create_task(self._send_in_order(name, entries, sent))
                    else:
                        for batch in self._batches(name, entries):
                            group.create_task(self._send_batch(name, batch, sent))
        except ExceptionGroup as failures:
            failed = failures.subgroup(CallFailed)
            raise (failed.exceptions[0] if failed is not None else failures) from None
        sent.rejected.sort(key=lambda rejection: rejection[0].number)
        return sent

    def _batches(self, name: str, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        """The entries in batches of bounded count and size; an id at most once in each."""
        batch: list[Entry] = []
        ids: set[str] = set()
        size = 0
        for entry in entries:
            entry_id, entry_size = getattr(entry[1], self._kinds[name].id_field), entry[1].ByteSize()
            if batch and (len(batch) == self._batch_size or size + entry_size > MAX_BATCH_BYTES or entry_id in ids):
                yield batch
                batch, ids, size = [], set(), 0
            batch.append(entry)
            ids.add(entry_id)
            size += entry_size
        if batch:
            yield batch

    async def _send_in_order(self, name: str, entries: Sequence[Entry], sent: Sent) -> None:
        for batch in self._batches(name, entries):
            await self._send_batch(name, batch, sent)

    async def _send_batch(self, name: str, batch: list[Entry], sent: Sent) -> None:
        kind = self._kinds[name]
        try:
            async with self._slots:
                answer: Any = await self._connection.call(kind.method, kind.request([message for _, message in batch]))
        except CallFailed as failed:
            if not failed.is_too_large:
                raise
            if len(batch) == 1:
                self._reject(name, batch[0][0], "the record is larger than the server takes", sent)
                return
            middle = len(batch) // 2
            await self._send_batch(name, batch[:middle], sent)
            await self._send_batch(name, batch[middle:], sent)
            return
        sent.counts[f"{name}.accepted"] += answer.accepted_count
        sent.counts[f"{name}.duplicate"] += getattr(answer, "duplicate_count", 0)
        for rejection in answer.rejected:
            # The path leads through the request, which nobody who reads this has seen: its end is what the line has.
            field_name = rejection.field.partition("].")[2]
            self._reject(
                name,
                batch[rejection.index][0],
                f"{name}.{field_name}: {rejection.description}" if field_name else rejection.description,
                sent,
            )

    async def _send_session(self, line: Line, session: tracking_pb2.Session, sent: Sent) -> None:
        """Starts a session and, if its end is known, ends it. Both can be repeated."""
        beginning = tracking_pb2.Session()
        beginning.CopyFrom(session)
        beginning.ClearField("end_time")
        del beginning.pages[MAX_PAGES:]  # a session that has ended may have as many again from its end
        try:
            async with self._slots:
                await self._connection.call(self._tracking.StartSession, tracking_pb2.StartSessionRequest(session=beginning))
                if session.HasField("end_time"):
                    end = tracking_pb2.EndSessionRequest(session_id=session.session_id, end_time=session.end_time)
                    end.pages.extend(session.pages[MAX_PAGES:])
                    await self._connection.call(self._tracking.EndSession, end)
        except CallFailed as failed:
            if failed.code not in REFUSALS:
                raise
            self._reject("session", line, failed.description, sent)
            return
        sent.counts["session.accepted"] += 1

    @staticmethod
    def _reject(name: str, line: Line, reason: str, sent: Sent) -> None:
        sent.counts[f"{name}.rejected"] += 1
        sent.rejected.append((line, reason))


def kind_of(record: Record) -> str:
    """Which of its kinds a record holds."""
    name = record.WhichOneof("kind")
    assert name is not None, "readers let no empty record through"
    return str(name)
