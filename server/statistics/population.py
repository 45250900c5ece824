"""How engaged users are beside each other: the engagement score and its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from rankloop.v1 import stats_pb2 as pb
from runtime.mongo import Mongo
from runtime.timestamps import to_timestamp
from server.statistics.interaction_days import InteractionDays
from server.statistics.period import Period
from server.statistics.user_totals import Names, UserTotals, milliseconds_of

SPAN = timedelta(days=28)
PARTS = ("recency", "frequency", "depth", "breadth")
DECILES = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Population:
    """The users active in 28 days."""

    parts: Floats
    """(4, n_users) float64, each row sorted: milliseconds of the latest interaction, active days, interactions per active day, number of
    different interaction types."""
    scores: Floats
    """(n_users,) float64, sorted, 0 to 100."""
    as_of: datetime

    def score(self, values: Sequence[float]) -> pb.EngagementScore:
        """The score of somebody with these four values."""
        ranks = [float(_ranks(row, np.array([value]))[0]) for row, value in zip(self.parts, values, strict=True)]
        return pb.EngagementScore(
            score=sum(ranks) / len(ranks),
            **dict(zip(PARTS, ranks, strict=True)),
            user_count=self.parts.shape[1],
            as_of_time=to_timestamp(self.as_of),
        )

    def distribution(self) -> pb.EngagementScores:
        """How the scores are distributed."""
        count = len(self.scores)
        places = np.minimum((self.scores / (100 / DECILES)).astype(np.int64), DECILES - 1)
        found = pb.EngagementScores(user_count=count, decile_counts=np.bincount(places, minlength=DECILES).tolist())
        if count:
            found.mean, found.median = float(self.scores.mean()), float(np.median(self.scores))
        return found


def _ranks(sorted_values: Floats, values: Floats) -> Floats:
    """(n,) float64: the share of `sorted_values` below each value and half the share at it, times 100."""
    below = np.searchsorted(sorted_values, values, side="left")
    up_to = np.searchsorted(sorted_values, values, side="right")
    return 50.0 * (below + up_to) / max(1, len(sorted_values))


def values_of(moments: Iterable[datetime], types: Iterable[str]) -> tuple[float, float, float, float] | None:
    """The four values of a user with these interactions; None without any."""
    listed = list(moments)
    if not listed:
        return None
    days = len({moment.date() for moment in listed})
    return float(milliseconds_of(max(listed))), float(days), len(listed) / days, float(len(set(types)))


def population_of(users: Sequence[Sequence[float]] | Floats, as_of: datetime) -> Population:
    """Of the four values of each user."""
    raw = np.array(users, dtype=np.float64).reshape(-1, len(PARTS)).T
    parts = np.sort(raw, axis=1)
    ranks = np.array([_ranks(row, values) for row, values in zip(parts, raw, strict=True)])
    return Population(parts, np.sort(ranks.mean(axis=0)), as_of)


def population_in(totals: UserTotals, as_of: datetime) -> Population:
    """Of everybody active in a window."""
    active = totals.counts > 0
    counts, days = totals.counts[active], totals.days[active]
    values = np.stack([totals.latest[active], days, counts / np.maximum(1, days), totals.types()[active]], axis=1)
    return population_of(values, as_of)


def window_of(end: datetime) -> Period:
    """The 28 days before."""
    beginning = datetime.min.replace(tzinfo=end.tzinfo)
    return Period(end - SPAN if end - beginning > SPAN else beginning, end)


async def read_population(days: InteractionDays, end: datetime, as_of: datetime) -> Population:
    """Everybody active in the 28 days before `end`."""
    totals = UserTotals(window_of(end), Names())
    async for day, columns in days.over(totals.period):
        await asyncio.to_thread(totals.feed, day, columns)
    return await asyncio.to_thread(population_in, totals, as_of)


async def read_values(mongo: Mongo, user_id: str, end: datetime) -> tuple[float, float, float, float] | None:
    """One user's four values, from that user's own entries."""
    window = window_of(end)
    query = {"user_id": user_id, "occur_time": {"$gte": window.start, "$lt": window.end}}
    moments: list[datetime] = []
    types: set[str] = set()
    async for batch in mongo.collection("interactions").batches(query, {"occur_time": 1, "type": 1}):
        moments += [one["occur_time"] for one in batch]
        types.update(one["type"] for one in batch)
    return values_of(moments, types)
