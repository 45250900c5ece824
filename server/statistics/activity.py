"""Who was active when, who came back, and what they used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from rankloop.v1 import stats_pb2 as pb
from runtime.mongo import Mongo
from runtime.timestamps import to_timestamp
from server.statistics.day_columns import USED, DayColumns
from server.statistics.figures import ratio
from server.statistics.intervals import wilson
from server.statistics.period import DAY, Period
from server.statistics.user_totals import Integers, Names, UserTotals, distinct, milliseconds_of

MOST_USAGES = 200
MOST_COHORTS = 60
USERS_AT_ONCE = 1000
MILLISECOND = timedelta(milliseconds=1)
Flags = NDArray[np.bool_]
"""(n_users,)."""


@dataclass(slots=True)
class Uses:
    """Of one thing."""

    count: int = 0
    users: list[Integers] = field(default_factory=list)
    """Their places; one may stand in several."""

    def add(self, users: Integers) -> None:
        """Each use's user."""
        self.count += len(users)
        self.users.append(np.unique(users))


class Activity:
    """What users did in a period, as far as it is about them and not about items."""

    def __init__(self, period: Period, span: timedelta, users: Names) -> None:
        self.totals = UserTotals(period, users)
        self.days: dict[datetime, Integers] = {}
        """Users by day, UTC."""
        self.stretches: dict[int, list[Integers]] = defaultdict(list)
        """By place of the cohort span, users with an interaction."""
        self.types: dict[str, Uses] = defaultdict(Uses)
        self.used: dict[str, dict[str, Uses]] = {kind: defaultdict(Uses) for kind in USED}
        """By kind (page, feature) and name."""
        self.span = span
        """Of the cohorts."""

    def feed(self, day: datetime, columns: DayColumns) -> None:
        """Takes a day in."""
        columns, places = self.totals.feed(day, columns)
        rows, used = columns.rows, columns.used
        if not len(rows):
            return
        users = places[rows["user"]]
        self.days[day] = np.unique(users)
        since = milliseconds_of(day) - milliseconds_of(self.totals.period.start) + rows["time"].astype(np.int64)
        stretch = since // (self.span // MILLISECOND)
        for place in np.unique(stretch).tolist():
            self.stretches[place].append(np.unique(users[stretch == place]))
        for type_place in np.unique(rows["type"]).tolist():
            self.types[columns.types[type_place]].add(users[rows["type"] == type_place])
        for use_place in np.unique(used["use"]).tolist():
            kind, name = columns.uses[use_place]
            self.used[kind][name].add(places[used["user"][used["use"] == use_place]])

    @property
    def active(self) -> Flags:
        """Who had an interaction."""
        flags: Flags = self.totals.counts > 0
        return flags


async def newcomers_of(mongo: Mongo, activity: Activity) -> Flags:
    """Active users of whom the ledger knows no interaction before the period."""
    interactions, start = mongo.collection("interactions"), activity.totals.period.start
    newcomers = activity.active.copy()
    if not await interactions.find({"occur_time": {"$lt": start}}, {"_id": 1}, limit=1, hint="time"):
        return newcomers
    names = activity.totals.users.listed()
    place_of = {names[place]: place for place in np.flatnonzero(newcomers).tolist()}
    users = sorted(place_of)
    for first in range(0, len(users), USERS_AT_ONCE):
        query = {"user_id": {"$in": users[first : first + USERS_AT_ONCE]}, "occur_time": {"$lt": start}}
        async for batch in interactions.aggregate_batches([{"$match": query}, {"$group": {"_id": "$user_id"}}]):
            newcomers[[place_of[one["_id"]] for one in batch]] = False
    return newcomers


def active_counts(
    days: Mapping[datetime, Integers],
) -> tuple[list[pb.ActiveUserCount], list[pb.ActiveUserCount], list[pb.ActiveUserCount]]:
    """Users by day, by week from Monday on, by calendar month."""
    weeks: dict[datetime, list[Integers]] = defaultdict(list)
    months: dict[datetime, list[Integers]] = defaultdict(list)
    for day, users in days.items():
        weeks[day - day.weekday() * DAY].append(users)
        months[day.replace(day=1)].append(users)

    def listed(stretches: Mapping[datetime, Sequence[Integers]]) -> list[pb.ActiveUserCount]:
        return [
            pb.ActiveUserCount(start_time=to_timestamp(start), active_user_count=len(distinct(stretches[start])))
            for start in sorted(stretches)
        ]

    return listed({day: [users] for day, users in days.items()}), listed(weeks), listed(months)


def usages(used: Mapping[str, Uses], active: Flags) -> list[pb.Usage]:
    """How much each thing is used, most users first."""
    users, rows = int(active.sum()), []
    for name, uses in used.items():
        by = distinct(uses.users)
        of_active = int(active[by[by < len(active)]].sum())
        usage = pb.Usage(name=name, use_count=uses.count, user_count=of_active, adoption=of_active / max(1, users))
        if (interval := wilson(of_active, users)) is not None:
            usage.adoption_interval.CopyFrom(interval)
        rows.append(usage)
    return sorted(rows, key=lambda row: (-row.user_count, -row.use_count, row.name))[:MOST_USAGES]


def cohorts(activity: Activity, newcomers: Flags, period: Period, span: timedelta) -> list[pb.Cohort]:
    """Newcomers by the span of their first interaction, and who of them was active in which span since."""
    full = (period.end - period.start) // span
    came = {place: distinct(users) for place, users in activity.stretches.items()}
    first = np.full(len(newcomers), -1, np.int64)
    for place in sorted(came, reverse=True):
        first[came[place]] = place
    first[~newcomers] = -1
    starts = [place for place in sorted(came) if place < full and (first == place).any()]
    return [_cohort(period.start + place * span, first == place, came, place, full) for place in starts][:MOST_COHORTS]


def _cohort(start: datetime, members: Flags, came: Mapping[int, Integers], first: int, full: int) -> pb.Cohort:
    count = int(members.sum())
    cohort = pb.Cohort(start_time=to_timestamp(start), user_count=count)
    for place in range(first, min(full, first + MOST_COHORTS)):
        active = int(members[came[place]].sum()) if place in came else 0
        cohort.retention.append(
            pb.Retention(offset=place - first, active_user_count=active, rate=ratio(active, count), rate_interval=wilson(active, count))
        )
    return cohort
