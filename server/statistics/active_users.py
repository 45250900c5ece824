"""The most active users."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from rankloop.v1 import stats_pb2 as pb
from runtime.errors import InvalidInput
from runtime.timestamps import EPOCH, to_timestamp
from server.statistics.interaction_days import InteractionDays
from server.statistics.period import Period
from server.statistics.user_totals import Names, UserTotals

MOST_USERS = 100_000
"""Users that can be paged through."""


@dataclass(frozen=True, slots=True)
class ActiveUser:
    """What a user did in a period."""

    user_id: str
    interactions: int
    days: int
    labels: float
    """Their sum."""
    latest: int
    """Milliseconds since 1970."""


ORDERS = {pb.USER_ORDER_INTERACTIONS: "interactions", pb.USER_ORDER_ACTIVE_DAYS: "days"}


def user_order(wanted: int) -> str:
    """What to order by.

    Raises:
        InvalidInput: there is no such order.
    """
    if wanted == pb.USER_ORDER_UNSPECIFIED:
        return "interactions"
    if wanted not in ORDERS:
        known = ", ".join(pb.UserOrder.Name(pb.UserOrder.ValueType(one)) for one in ORDERS)
        raise InvalidInput.of("order_by", "INVALID", f"is not an order of users; known ones: {known}")
    return ORDERS[pb.UserOrder.ValueType(wanted)]


async def ranked_users(days: InteractionDays, order: str, period: Period) -> list[ActiveUser]:
    """The most active first, at most MOST_USERS."""
    totals = UserTotals(period, Names())
    async for day, columns in days.over(period):
        await asyncio.to_thread(totals.feed, day, columns)
    return await asyncio.to_thread(_ranked, totals, order)


def _ranked(totals: UserTotals, order: str) -> list[ActiveUser]:
    by = totals.counts if order == "interactions" else totals.days
    places = np.flatnonzero(totals.counts)
    if len(places) > MOST_USERS:
        # Everybody as active as the last one that has room: among those the id decides.
        least = np.partition(by[places], -MOST_USERS)[-MOST_USERS]
        places = places[by[places] >= least]
    names = totals.users.listed()
    ranked = sorted(places.tolist(), key=lambda place: (-by[place], names[place]))[:MOST_USERS]
    return [
        ActiveUser(names[place], int(totals.counts[place]), int(totals.days[place]), float(totals.labels[place]), int(totals.latest[place]))
        for place in ranked
    ]


def page_of(ranked: Sequence[ActiveUser], order: str, last: tuple[int, str] | None, limit: int) -> tuple[list[ActiveUser], bool]:
    """What follows `last`, at most `limit`, and whether there is more."""
    following = ranked if last is None else [one for one in ranked if (-getattr(one, order), one.user_id) > (-last[0], last[1])]
    return list(following[:limit]), len(following) > limit


def active_user(found: ActiveUser) -> pb.ActiveUser:
    """Its figures."""
    return pb.ActiveUser(
        user_id=found.user_id,
        interaction_count=found.interactions,
        active_day_count=found.days,
        avg_engagement=found.labels / found.interactions,
        last_interaction_time=to_timestamp(EPOCH + timedelta(milliseconds=found.latest)),
    )
