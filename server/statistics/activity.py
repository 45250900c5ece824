"""Who was active when, who came back, and what they used."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rankloop.v1 import stats_pb2 as pb
from runtime.mongo import Document, Mongo
from runtime.timestamps import to_timestamp
from server.statistics.figures import ratio
from server.statistics.intervals import wilson
from server.statistics.period import DAY, Period

MOST_USAGES = 200
MOST_COHORTS = 60
USERS_AT_ONCE = 1000
USED = ("page", "feature")
"""Keys of an interaction's context that say what was used."""


@dataclass(slots=True)
class Activity:
    """What users did in a period, as far as it is about them and not about items."""

    days: dict[datetime, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Users by day, UTC."""
    stretches: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By user, the places of the cohort spans with an interaction."""
    latest: dict[str, datetime] = field(default_factory=dict)
    types: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By interaction type: interactions by user."""
    newcomers: set[str] = field(default_factory=set)
    """Users of whom the ledger knows no interaction before the period."""
    used: dict[str, dict[str, Counter[str]]] = field(default_factory=lambda: {name: defaultdict(Counter) for name in USED})
    """By kind (page, feature) and name: uses by user."""

    def active_since(self, moment: datetime) -> int:
        """Users with an interaction in the period, at that moment or later."""
        return sum(latest >= moment for latest in self.latest.values())


async def read_activity(mongo: Mongo, period: Period, span: timedelta) -> Activity:
    """The database sums up by user, day and cohort span."""
    activity = Activity()
    within = {"occur_time": {"$gte": period.start, "$lt": period.end}, "pending": {"$exists": False}}
    milliseconds = span // timedelta(milliseconds=1)
    place = {"$floor": {"$divide": [{"$subtract": ["$occur_time", period.start]}, milliseconds]}}
    identity = {"u": "$user_id", "d": {"$dateTrunc": {"date": "$occur_time", "unit": "day"}}, "s": place, "t": "$type"}
    interactions = mongo.collection("interactions")
    pipeline: list[Document] = [
        {"$match": within},
        {"$group": {"_id": identity, "n": {"$sum": 1}, "last": {"$max": "$occur_time"}}},
    ]
    async for batch in interactions.aggregate_batches(pipeline):
        for one in batch:
            user_id, name = one["_id"]["u"], one["_id"]["t"]
            activity.days[one["_id"]["d"]].add(user_id)
            activity.stretches[user_id].add(int(one["_id"]["s"]))
            activity.latest[user_id] = max(one["last"], activity.latest.get(user_id, one["last"]))
            activity.types[name][user_id] += one["n"]
    pair = {"k": {"$arrayElemAt": ["$context", 0]}, "v": {"$arrayElemAt": ["$context", 1]}, "u": "$user_id"}
    pipeline = [
        {"$match": {**within, "context": {"$exists": True}}},
        {"$unwind": "$context"},
        {"$project": pair},
        {"$match": {"k": {"$in": list(USED)}}},
        {"$group": {"_id": {"k": "$k", "v": "$v", "u": "$u"}, "n": {"$sum": 1}}},
    ]
    async for batch in interactions.aggregate_batches(pipeline):
        for one in batch:
            activity.used[one["_id"]["k"]][one["_id"]["v"]][one["_id"]["u"]] += one["n"]
    activity.newcomers = set(activity.latest)
    users = sorted(activity.latest)
    for start in range(0, len(users), USERS_AT_ONCE):
        query = {"user_id": {"$in": users[start : start + USERS_AT_ONCE]}, "occur_time": {"$lt": period.start}}
        async for batch in interactions.aggregate_batches([{"$match": query}, {"$group": {"_id": "$user_id"}}]):
            activity.newcomers.difference_update(one["_id"] for one in batch)
    return activity


def active_counts(days: Mapping[datetime, set[str]]) -> tuple[list[pb.ActiveUserCount], list[pb.ActiveUserCount], list[pb.ActiveUserCount]]:
    """Users by day, by week from Monday on, by calendar month."""
    weeks: dict[datetime, set[str]] = defaultdict(set)
    months: dict[datetime, set[str]] = defaultdict(set)
    for day, users in days.items():
        weeks[day - day.weekday() * DAY] |= users
        months[day.replace(day=1)] |= users

    def listed(stretches: Mapping[datetime, set[str]]) -> list[pb.ActiveUserCount]:
        return [pb.ActiveUserCount(start_time=to_timestamp(start), active_user_count=len(stretches[start])) for start in sorted(stretches)]

    return listed(days), listed(weeks), listed(months)


def usages(used: Mapping[str, Mapping[str, int]], active: Iterable[str]) -> list[pb.Usage]:
    """How much each thing is used, most users first; `used` is uses by user, by thing."""
    users = set(active)
    rows = []
    for name, by_user in used.items():
        of_active = len(by_user.keys() & users)
        usage = pb.Usage(name=name, use_count=sum(by_user.values()), user_count=of_active, adoption=of_active / max(1, len(users)))
        if (interval := wilson(of_active, len(users))) is not None:
            usage.adoption_interval.CopyFrom(interval)
        rows.append(usage)
    return sorted(rows, key=lambda row: (-row.user_count, -row.use_count, row.name))[:MOST_USAGES]


def cohorts(activity: Activity, period: Period, span: timedelta) -> list[pb.Cohort]:
    """Newcomers by the span of their first interaction, and who of them was active in which span since."""
    full = (period.end - period.start) // span
    by_first: dict[int, list[set[int]]] = defaultdict(list)
    for user_id in activity.newcomers:
        places = activity.stretches[user_id]
        by_first[min(places)].append(places)
    return [_cohort(period.start + first * span, by_first[first], first, full) for first in sorted(by_first) if first < full][:MOST_COHORTS]


def _cohort(start: datetime, users: Sequence[set[int]], first: int, full: int) -> pb.Cohort:
    cohort = pb.Cohort(start_time=to_timestamp(start), user_count=len(users))
    for place in range(first, min(full, first + MOST_COHORTS)):
        active = sum(place in places for places in users)
        cohort.retention.append(
            pb.Retention(
                offset=place - first, active_user_count=active, rate=ratio(active, len(users)), rate_interval=wilson(active, len(users))
            )
        )
    return cohort
