"""What tests of statistics share: traffic stored in any order, periods that begin and end anywhere, and figures that compare."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from collector.commit import CommitLimits
from collector.fold import FoldWorker
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.settings import LabelSettings
from collector.tracking import Tracking
from rankloop.v1 import catalog_pb2
from rankloop.v1.tracking_pb2 import EndSessionRequest, Session
from runtime.lease import Lease
from runtime.mongo import Mongo
from server.catalog import Catalog
from tests.recount import Sent

FIRST, LAST = datetime(2024, 2, 28, 21, tzinfo=UTC), datetime(2024, 3, 1, 4, tzinfo=UTC)
NOW = datetime(2024, 3, 20, 12, 0, 0, 500_000, tzinfo=UTC)


def clock() -> datetime:
    return NOW


async def store(mongo: Mongo, sent: Sent, seed: int) -> None:
    """Sends everything in random order and portions, part of it twice, and folds now and then."""
    random_ = random.Random(seed)
    limits = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)
    tracking = Tracking(mongo, Ledger.open(mongo, limits), Quarantine(mongo), LabelSettings().policy(), clock)
    await Catalog(mongo, clock).upsert_items(
        [
            catalog_pb2.Item(item_id=item_id, item_type=item_type, numbers={"cost": sent.costs[item_id]} if item_id in sent.costs else {})
            for item_id, item_type in sent.catalogue.items()
        ]
    )
    lease = Lease(mongo, "fold", "test", 600, clock)
    assert await lease.claim()
    worker = FoldWorker(mongo, lease, Combination.MAX, batch_entries=40, poll_seconds=0.01)
    for session in sent.sessions:
        begun = Session()
        begun.CopyFrom(session)
        begun.ClearField("end_time")
        await tracking.start_session(begun)
        if session.HasField("end_time"):
            await tracking.end_session(EndSessionRequest(session_id=session.session_id, end_time=session.end_time))
    entries: list[Any] = [*sent.slates, *sent.interactions, *sent.outcomes]
    entries += random_.sample(entries, len(entries) // 4)
    random_.shuffle(entries)
    while entries:
        portion, entries = entries[:60], entries[60:]
        for name, send in (
            ("Slate", tracking.record_slates),
            ("Interaction", tracking.track),
            ("Outcome", tracking.record_outcomes),
        ):
            of_kind: Sequence[Any] = [one for one in portion if one.DESCRIPTOR.name == name]
            if of_kind:
                receipt = await send(of_kind)
                assert not receipt.rejected
        if random_.random() < 0.5:
            await worker.fold_once()
    while await worker.fold_once():
        pass
    await lease.release()


def periods(seed: int, count: int) -> list[tuple[datetime, datetime]]:
    """Periods whose ends are anywhere: within one hour, on full hours, over midnight, before and after everything."""
    random_ = random.Random(seed)
    span = (LAST - FIRST) // timedelta(milliseconds=1)
    found = [
        (FIRST - timedelta(days=2), LAST + timedelta(days=2)),
        (FIRST.replace(hour=22), FIRST.replace(hour=23)),
        (FIRST.replace(hour=22, minute=10), FIRST.replace(hour=22, minute=50, microsecond=1000)),
        (FIRST.replace(hour=22, minute=59, second=59, microsecond=999_000), FIRST.replace(hour=23, microsecond=1000)),
        (datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    ]
    while len(found) < count:
        moments = sorted(FIRST + timedelta(milliseconds=random_.randrange(span)) for _ in range(2))
        if random_.random() < 0.3:
            moments[random_.randrange(2)] = moments[0].replace(minute=0, second=0, microsecond=0)
            moments.sort()
        if moments[0] < moments[1]:
            found.append((moments[0], moments[1]))
    return found


def between(request: Any, start: datetime, end: datetime) -> Any:
    """The request over a period."""
    request.start_time.FromDatetime(start)
    request.end_time.FromDatetime(end)
    return request


def plain(message: Message) -> dict[str, Any]:
    """A message as values that compare; fields without presence are there with their zero."""
    found: dict[str, Any] = {}
    for descriptor in message.DESCRIPTOR.fields:
        value = getattr(message, descriptor.name)
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            found[descriptor.name] = {key: plain(one) if isinstance(one, Message) else one for key, one in value.items()}
        elif descriptor.is_repeated:
            found[descriptor.name] = [plain(one) if isinstance(one, Message) else one for one in value]
        elif isinstance(value, Duration):
            if message.HasField(descriptor.name):
                found[descriptor.name] = value.ToMicroseconds() / 1e6
        elif not descriptor.has_presence or message.HasField(descriptor.name):
            found[descriptor.name] = plain(value) if isinstance(value, Message) else value
    return found


def close(message: Message) -> Any:
    """The same, to compare with what floating point allows."""
    return _close(plain(message))


def _close(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _close(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_close(inner) for inner in value]
    return pytest.approx(value, rel=1e-9, abs=2e-6) if isinstance(value, float) else value


def same(found: Message, expected: Message) -> None:
    """Equal figures, up to what floating point allows, and spans to the microsecond."""
    assert plain(found) == _close(plain(expected))
