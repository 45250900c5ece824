"""Sessions of a period: stated ones, and those that interactions tell of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from rankloop.v1 import stats_pb2 as pb
from runtime.mongo import Document, Mongo
from runtime.timestamps import to_duration
from server.statistics.clustered import clustered_wilson
from server.statistics.figures import ratio
from server.statistics.period import DAY, Period
from server.statistics.times import quantiles
from server.statistics.users import SESSION_GAP

MOST_DEVICES = 100
IDS_AT_ONCE = 1000
COLUMNS = {"_id": 0, "user_id": 1, "session_id": 1, "occur_time": 1}


@dataclass(slots=True)
class Visit:
    """A session."""

    user_id: str
    start: datetime
    end: datetime | None
    interactions: int = 0
    pages: tuple[str, ...] = ()
    device: str = ""
    stated: bool = False

    @property
    def bounced(self) -> bool:
        """Exactly one page, or exactly one interaction."""
        return len(self.pages) == 1 or self.interactions == 1


@dataclass(slots=True)
class Runs:
    """Interactions of one user with one session id, without a gap of more than 30 minutes; fed in order of time."""

    period: Period
    closed: list[tuple[str, Visit]] = field(default_factory=list)
    """(session_id, visit) of those that began in the period."""
    _open: dict[tuple[str, str], Visit] = field(default_factory=dict)

    def feed(self, user_id: str, session_id: str, moment: datetime) -> None:
        """Takes an interaction in."""
        visit = self._open.get((user_id, session_id))
        if visit is not None and visit.end is not None and moment - visit.end <= SESSION_GAP:
            visit.end = moment
            visit.interactions += 1
            return
        if visit is not None:
            self._close(session_id, visit)
        self._open[user_id, session_id] = Visit(user_id, moment, moment, interactions=1)

    def finish(self) -> list[tuple[str, Visit]]:
        """All of them."""
        for (_, session_id), visit in self._open.items():
            self._close(session_id, visit)
        self._open.clear()
        return self.closed

    def _close(self, session_id: str, visit: Visit) -> None:
        if self.period.start <= visit.start < self.period.end:
            self.closed.append((session_id, visit))


async def read_visits(mongo: Mongo, period: Period) -> list[Visit]:
    """Sessions that began in the period."""
    stated: dict[str, Visit] = {}
    async for batch in mongo.collection("sessions").batches({"start_time": {"$gte": period.start, "$lt": period.end}}):
        stated |= {session["_id"]: _stated(session) for session in batch}
    runs = Runs(period)
    query = {"occur_time": _around(period), "session_id": {"$exists": True}, "pending": {"$exists": False}}
    async for batch in mongo.collection("interactions").batches(query, COLUMNS, sort=[("occur_time", 1)], batch_size=5000):
        for entry in batch:
            session_id, moment = entry["session_id"], entry["occur_time"]
            if (visit := stated.get(session_id)) is None:
                runs.feed(entry["user_id"], session_id, moment)
            elif abs(moment - visit.start) <= DAY:
                visit.interactions += 1
    inferred = runs.finish()
    elsewhere = await _stated_among(mongo, sorted({session_id for session_id, _ in inferred}))
    return [*stated.values(), *(visit for session_id, visit in inferred if session_id not in elsewhere)]


def session_metrics(visits: list[Visit]) -> pb.SessionMetrics:
    """The figures, each by its definition."""
    lengths = np.array(
        [(visit.end - visit.start) // timedelta(milliseconds=1) for visit in visits if visit.end is not None], dtype=np.int64
    )
    by_user: dict[str, tuple[int, int]] = {}
    for visit in visits:
        bounced, count = by_user.get(visit.user_id, (0, 0))
        by_user[visit.user_id] = bounced + visit.bounced, count + 1
    bounced = sum(one for one, _ in by_user.values())
    pages = [len(visit.pages) for visit in visits if visit.pages]
    devices = Counter(visit.device for visit in visits if visit.device)
    metrics = pb.SessionMetrics(
        session_count=len(visits),
        user_count=len(by_user),
        timed_session_count=len(lengths),
        bounced_session_count=bounced,
        bounce_rate=ratio(bounced, len(visits)),
        bounce_rate_interval=clustered_wilson(by_user.values()),
        avg_page_count=ratio(sum(pages), len(pages)),
        avg_interaction_count=ratio(sum(visit.interactions for visit in visits), len(visits)),
        stated_session_count=sum(visit.stated for visit in visits),
        device_counts=dict(sorted(devices.items(), key=lambda one: (-one[1], one[0]))[:MOST_DEVICES]),
    )
    if found := quantiles(lengths, (0.5, 0.9)):
        metrics.avg_length.CopyFrom(to_duration(float(lengths.sum()) / len(lengths) / 1000))
        metrics.median_length.CopyFrom(to_duration(found[0] / 1000))
        metrics.p90_length.CopyFrom(to_duration(found[1] / 1000))
    return metrics


def page_uses(visits: Iterable[Visit]) -> dict[str, Counter[str]]:
    """By page, how often each user's stated sessions saw it."""
    used: dict[str, Counter[str]] = {}
    for visit in visits:
        for page in visit.pages:
            used.setdefault(page, Counter())[visit.user_id] += 1
    return used


def _stated(session: Document) -> Visit:
    return Visit(
        session["user_id"],
        session["start_time"],
        session.get("end_time"),
        pages=tuple(session.get("pages", ())),
        device=session.get("device", ""),
        stated=True,
    )


def _around(period: Period) -> Document:
    """A day before the period and a day behind it, as far as there is time."""
    first, last = datetime.min.replace(tzinfo=period.start.tzinfo), datetime.max.replace(tzinfo=period.end.tzinfo)
    start = period.start - DAY if period.start - first > DAY else first
    return {"$gte": start, "$lt": period.end + DAY if last - period.end > DAY else last}


async def _stated_among(mongo: Mongo, session_ids: list[str]) -> set[str]:
    """Those of the ids that anybody stated, whenever."""
    found: set[str] = set()
    sessions = mongo.collection("sessions")
    if not await sessions.estimated_count():
        return found
    for place in range(0, len(session_ids), IDS_AT_ONCE):
        some = session_ids[place : place + IDS_AT_ONCE]
        found.update(one["_id"] for one in await sessions.find({"_id": {"$in": some}}, {"_id": 1}, limit=len(some)))
    return found
