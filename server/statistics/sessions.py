"""Sessions of a period: stated ones, and those that interactions tell of."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from rankloop.v1 import stats_pb2 as pb
from runtime.mongo import Document, Mongo
from runtime.timestamps import to_duration
from server.statistics.activity import Uses
from server.statistics.clustered import clustered_wilson
from server.statistics.day_columns import NO_SESSION, DayColumns
from server.statistics.figures import ratio
from server.statistics.period import DAY, Period
from server.statistics.runs import Runs
from server.statistics.times import quantiles
from server.statistics.user_totals import MILLISECOND, Integers, Names, milliseconds_of

MOST_DEVICES = 100
IDS_AT_ONCE = 1000


@dataclass(slots=True)
class Visit:
    """A stated session."""

    user_id: str
    start: datetime
    end: datetime | None
    pages: tuple[str, ...] = ()
    device: str = ""
    interactions: int = 0
    """Of its id, within 24 hours of its start."""


class Sessions:
    """Sessions that began in a period: stated ones, and runs of interactions."""

    def __init__(self, period: Period, users: Names, stated: Mapping[str, Visit]) -> None:
        """`stated` are those that began in the period, by id."""
        self.users = users
        self.stated = stated
        self.runs = Runs(period, users)

    async def feed(self, mongo: Mongo, day: datetime, columns: DayColumns) -> None:
        """Takes a day in; days come in order."""
        elsewhere = await _stated_among(mongo, [name for name in columns.sessions if name not in self.stated])
        await asyncio.to_thread(self._take, day, columns, elsewhere)

    def finish(self) -> None:
        """No day comes any more."""
        self.runs.finish()

    def _take(self, day: datetime, columns: DayColumns, elsewhere: Collection[str]) -> None:
        self._count(day, columns)
        self.runs.feed(day, columns, [name not in self.stated and name not in elsewhere for name in columns.sessions])

    def _count(self, day: datetime, columns: DayColumns) -> None:
        """The interactions of stated sessions."""
        known = [self.stated.get(name) for name in columns.sessions]
        if not any(known):
            return
        # Nobody states a session at the end of time; a day without one compares to nothing.
        starts = np.array([milliseconds_of(visit.start) if visit else 0 for visit in known], dtype=np.int64)
        rows = columns.rows[columns.rows["session"] != NO_SESSION]
        near = np.abs(milliseconds_of(day) + rows["time"].astype(np.int64) - starts[rows["session"]]) <= DAY // MILLISECOND
        counts = np.bincount(rows["session"][near], minlength=len(known))
        for visit, count in zip(known, counts.tolist(), strict=True):
            if visit is not None:
                visit.interactions += count

    def page_uses(self) -> dict[str, Uses]:
        """By page, the users whose stated sessions saw it, and how often."""
        by_page: dict[str, list[str]] = {}
        for visit in self.stated.values():
            for page in visit.pages:
                by_page.setdefault(page, []).append(visit.user_id)
        used: dict[str, Uses] = {}
        for page, user_ids in by_page.items():
            used[page] = Uses()
            used[page].add(self.users.places(user_ids))
        return used

    def metrics(self) -> pb.SessionMetrics:
        """The figures, each by its definition."""
        stated, runs = list(self.stated.values()), self.runs
        ended = [visit for visit in stated if visit.end is not None]
        lengths = np.concatenate([_lengths(ended), runs.lengths])
        users = np.concatenate([self.users.places([visit.user_id for visit in stated]), runs.users])
        bounced = np.concatenate([[_bounced(visit) for visit in stated], runs.counts == 1]).astype(np.int64)
        pages = [len(visit.pages) for visit in stated if visit.pages]
        devices = Counter(visit.device for visit in stated if visit.device)
        sessions_of, bounced_of = np.bincount(users), np.bincount(users, weights=bounced).astype(np.int64)
        count, interactions = len(users), sum(visit.interactions for visit in stated) + int(runs.counts.sum())
        metrics = pb.SessionMetrics(
            session_count=count,
            user_count=int((sessions_of > 0).sum()),
            timed_session_count=len(lengths),
            bounced_session_count=int(bounced.sum()),
            bounce_rate=ratio(int(bounced.sum()), count),
            bounce_rate_interval=clustered_wilson(np.stack([bounced_of, sessions_of], axis=1)),
            avg_page_count=ratio(sum(pages), len(pages)),
            avg_interaction_count=ratio(interactions, count),
            stated_session_count=len(stated),
            device_counts=dict(sorted(devices.items(), key=lambda one: (-one[1], one[0]))[:MOST_DEVICES]),
        )
        if found := quantiles(lengths, (0.5, 0.9)):
            metrics.avg_length.CopyFrom(to_duration(float(lengths.sum()) / len(lengths) / 1000))
            metrics.median_length.CopyFrom(to_duration(found[0] / 1000))
            metrics.p90_length.CopyFrom(to_duration(found[1] / 1000))
        return metrics


async def read_stated(mongo: Mongo, period: Period) -> dict[str, Visit]:
    """Stated sessions that began in the period, by id."""
    stated: dict[str, Visit] = {}
    async for batch in mongo.collection("sessions").batches({"start_time": {"$gte": period.start, "$lt": period.end}}):
        stated |= {session["_id"]: _stated(session) for session in batch}
    return stated


def around(period: Period) -> Period:
    """A day before the period and a day behind it, as far as there is time."""
    first, last = datetime.min.replace(tzinfo=period.start.tzinfo), datetime.max.replace(tzinfo=period.end.tzinfo)
    start = period.start - DAY if period.start - first > DAY else first
    return Period(start, period.end + DAY if last - period.end > DAY else last)


def _stated(session: Document) -> Visit:
    pages, device = tuple(session.get("pages", ())), session.get("device", "")
    return Visit(session["user_id"], session["start_time"], session.get("end_time"), pages, device)


def _lengths(ended: Sequence[Visit]) -> Integers:
    return np.array([(visit.end - visit.start) // timedelta(milliseconds=1) for visit in ended if visit.end is not None], dtype=np.int64)


def _bounced(visit: Visit) -> bool:
    """Exactly one page, or exactly one interaction."""
    return len(visit.pages) == 1 or visit.interactions == 1


async def _stated_among(mongo: Mongo, session_ids: Sequence[str]) -> Collection[str]:
    """Those of the ids that anybody stated, whenever."""
    found: set[str] = set()
    sessions = mongo.collection("sessions")
    if not session_ids or not await sessions.estimated_count():
        return found
    for place in range(0, len(session_ids), IDS_AT_ONCE):
        some = session_ids[place : place + IDS_AT_ONCE]
        found.update(one["_id"] for one in await sessions.find({"_id": {"$in": some}}, {"_id": 1}, limit=len(some)))
    return found
