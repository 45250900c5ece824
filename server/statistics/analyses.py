"""Questions that read more than tallies: engagement, outcomes, quality, the best items, the most active users.

Answers are kept for a moment, and say as of when they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from collector.tally import scope_of
from rankloop.v1 import stats_pb2 as pb
from runtime.errors import InvalidInput
from runtime.mongo import Mongo
from runtime.timestamps import at_millisecond, to_duration
from server.paging import last_of, page_size, token_after
from server.statistics import active_users, top_items
from server.statistics.activity import Activity, newcomers_of
from server.statistics.attributed import add_costs, add_slates, applications, read_results
from server.statistics.counted import Counted
from server.statistics.engagement import engagement
from server.statistics.frame import Frame, check_id, check_ids
from server.statistics.funnel import funnel_rows
from server.statistics.interaction_days import InteractionDays
from server.statistics.outcomes import MIN_STORY_USERS, Telling, goal_metrics, type_rows
from server.statistics.period import DAY, Period
from server.statistics.population import Population, population_in, read_population, read_values, window_of
from server.statistics.pseudonyms import pseudonyms
from server.statistics.quality import MOST_DAYS, quality_rows, read_exposure
from server.statistics.remembered import Remembered
from server.statistics.sessions import Sessions, around, read_stated
from server.statistics.user_totals import Names, UserTotals, bounds_of

MAX_TYPES = 64
MAX_STORIES = 100
DEFAULT_WINDOW, MAX_WINDOW = timedelta(days=30), timedelta(days=365)
DEFAULT_COHORT, MOST_COHORT_DAYS = timedelta(days=7), 31
POPULATION_SECONDS = 1.0
"""Longest that a user's figures wait for all users to be counted."""
POPULATION_STALE_SECONDS = 3600.0
UNREVISIONED_SECONDS = 2.0
"""How long an answer stays good that also depends on what the fold does not see: the catalogue, stated sessions."""


class Analyses:
    """Reads the ledger's periods by their indexes, and leaves summing up to the database where that is cheaper."""

    def __init__(self, mongo: Mongo, counted: Counted, remembered: Remembered, clock: Callable[[], datetime]) -> None:
        self._mongo = mongo
        self._counted = counted
        self._remembered = remembered
        self._clock = clock
        self._frame = Frame(mongo, clock)
        self._days = InteractionDays(mongo)

    async def top_items(self, request: pb.ListTopItemsRequest) -> pb.ListTopItemsResponse:
        """A page of the best items."""
        order, limit = top_items.item_order(request.order_by), page_size(request.page_size)
        check_id("item_type", request.item_type, required=False)
        period, as_of = await self._frame.asked(request)
        question = ["top items", order, request.item_type, *_times(request)]
        last = last_of(request.page_token, question, float, str)

        async def rank() -> Any:
            return await top_items.ranked_items(self._mongo, self._counted, order, request.item_type, period), period, as_of

        key = ("top items", order, request.item_type, period)
        ranked, period, as_of = await self._remembered.get(key, rank, longest_seconds=UNREVISIONED_SECONDS)
        page, more = top_items.page_of(ranked, (last[0], last[1]) if last else None, limit)
        answer = pb.ListTopItemsResponse(items=await top_items.top_items(self._counted, page, period))
        if more:
            answer.next_page_token = token_after(question, page[-1])
        return await self._frame.framed(answer, period, as_of)

    async def active_users(self, request: pb.ListActiveUsersRequest) -> pb.ListActiveUsersResponse:
        """A page of the most active users."""
        order, limit = active_users.user_order(request.order_by), page_size(request.page_size)
        period, as_of = await self._frame.asked(request)
        question = ["active users", order, *_times(request)]
        last = last_of(request.page_token, question, float, str)

        async def rank() -> Any:
            return await active_users.ranked_users(self._days, order, period), as_of

        ranked, as_of = await self._remembered.get(("active users", order, period), rank)
        page, more = active_users.page_of(ranked, order, (int(last[0]), last[1]) if last else None, limit)
        answer = pb.ListActiveUsersResponse(users=[active_users.active_user(one) for one in page])
        if more:
            answer.next_page_token = token_after(question, [getattr(page[-1], order), page[-1].user_id])
        return await self._frame.framed(answer, period, as_of)

    async def outcomes(self, request: pb.GetOutcomeMetricsRequest) -> pb.GetOutcomeMetricsResponse:
        """What outcomes were worth, and what slates earned of them."""
        check_ids("types", request.types, most=MAX_TYPES)
        rule, window = _rule_of(request), _window_of(request)
        if not 0 <= request.story_count <= MAX_STORIES:
            raise InvalidInput.of("story_count", "OUT_OF_RANGE", f"is {request.story_count}; expected 0 to {MAX_STORIES}")
        if request.story_min_users != 0 and request.story_min_users < MIN_STORY_USERS:
            raise InvalidInput.of(
                "story_min_users", "OUT_OF_RANGE", f"is {request.story_min_users}; at least {MIN_STORY_USERS}, or 0 for {MIN_STORY_USERS}"
            )
        period, as_of = await self._frame.asked(request)
        telling = Telling(count=request.story_count, min_users=request.story_min_users, pseudonym=await pseudonyms(self._mongo))

        async def measure() -> pb.GetOutcomeMetricsResponse:
            answer = await self._measured(period, frozenset(request.types), rule, window, telling)
            return await self._frame.framed(answer, period, as_of)

        key = ("outcomes", period, tuple(sorted(request.types)), rule, window, telling.count, telling.min_users)
        return await self._remembered.get(key, measure, longest_seconds=UNREVISIONED_SECONDS)

    async def engagement(self, request: pb.GetEngagementRequest) -> pb.GetEngagementResponse:
        """Who is active, in what sessions, what they use, and who comes back."""
        span = _cohort_span_of(request)
        period, as_of = await self._frame.asked(request)

        async def measure() -> pb.GetEngagementResponse:
            return await self._frame.framed(await self._engaged(period, span, as_of), period, as_of)

        return await self._remembered.get(("engagement", period, span), measure, longest_seconds=UNREVISIONED_SECONDS)

    async def engagement_of(self, user_id: str, end: datetime) -> pb.EngagementScore | None:
        """A user's score among all users active in the 28 days before `end`; None: not active then, or they are still being counted."""
        values = await read_values(self._mongo, user_id, end)
        if values is None:
            return None
        if self._remembered.seconds_in_making(("population", end)) > POPULATION_SECONDS:
            return None
        try:
            population = await asyncio.wait_for(self._population(end), POPULATION_SECONDS)
        except TimeoutError:
            return None
        return population.score(values)

    async def quality(self, request: pb.GetSlateQualityRequest) -> pb.GetSlateQualityResponse:
        """How varied slates are, and how much of the catalogue they show."""
        period, as_of = await self._frame.asked(request)
        by_algorithm, by_day = request.by_algorithm, request.by_day
        if by_day and period.end - period.start > MOST_DAYS * DAY:
            raise InvalidInput.of("by_day", "OUT_OF_RANGE", f"is set for a period of more than {MOST_DAYS} days; ask for a shorter one")

        async def measure() -> pb.GetSlateQualityResponse:
            exposure = await read_exposure(self._mongo, self._counted, period, by_algorithm=by_algorithm, by_day=by_day)
            return await self._frame.framed(pb.GetSlateQualityResponse(rows=quality_rows(exposure)), period, as_of)

        key = ("quality", period, by_algorithm, by_day)
        return await self._remembered.get(key, measure, longest_seconds=UNREVISIONED_SECONDS)

    async def _population(self, end: datetime) -> Population:
        async def count() -> Population:
            return await read_population(self._days, end, at_millisecond(self._clock()))

        return await self._remembered.get(("population", end), count, stale_seconds=POPULATION_STALE_SECONDS, costly_seconds=0.0)

    async def _engaged(self, period: Period, span: timedelta, as_of: datetime) -> pb.GetEngagementResponse:
        users = Names()
        activity = Activity(period, span, users)
        sessions = Sessions(period, users, await read_stated(self._mongo, period))
        lately = UserTotals(window_of(period.end), users)
        near = around(period)
        async for day, columns in self._days.over(Period(min(near.start, lately.period.start), near.end)):
            await asyncio.to_thread(activity.feed, day, columns)
            await asyncio.to_thread(lately.feed, day, columns)
            await sessions.feed(self._mongo, day, columns.within(*bounds_of(near, day)))
        sessions.finish()
        newcomers = await newcomers_of(self._mongo, activity)
        population = await asyncio.to_thread(population_in, lately, as_of)
        return await asyncio.to_thread(engagement, activity, sessions, newcomers, population)

    async def _measured(
        self, period: Period, types: frozenset[str], rule: int, window: timedelta, telling: Telling
    ) -> pb.GetOutcomeMetricsResponse:
        results = await read_results(self._mongo, period)
        goals = goal_metrics([one for one in results if one.type == "goal"])
        asked = [one for one in results if not types or one.type in types]
        await add_costs(self._mongo, asked)
        await add_slates(self._mongo, asked, rule, window)
        shown = {key[0]: counters for key, counters in (await self._counted.by_key(scope_of(("tier",)), period)).items()}
        furthest, applied = await applications(self._mongo, period, rule, window)
        return pb.GetOutcomeMetricsResponse(
            types=type_rows(asked, telling),
            funnel=funnel_rows(shown, furthest, applied),
            goals=goals,
            attribution_rule=pb.AttributionRule.ValueType(rule),
            attribution_window=to_duration(window.total_seconds()),
        )


def _cohort_span_of(request: pb.GetEngagementRequest) -> timedelta:
    if not request.HasField("cohort_span"):
        return DEFAULT_COHORT
    stated = request.cohort_span
    days, rest = divmod(stated.seconds, 86_400)
    if rest or stated.nanos or not 1 <= days <= MOST_COHORT_DAYS:
        raise InvalidInput.of("cohort_span", "OUT_OF_RANGE", f"is {stated.seconds} s; expected 1 to {MOST_COHORT_DAYS} whole days")
    return days * DAY


def _rule_of(request: pb.GetOutcomeMetricsRequest) -> int:
    if request.attribution_rule == pb.ATTRIBUTION_RULE_UNSPECIFIED:
        return pb.ATTRIBUTION_RULE_LAST_SHOWN
    if request.attribution_rule not in (pb.ATTRIBUTION_RULE_STATED, pb.ATTRIBUTION_RULE_LAST_SHOWN):
        known = "ATTRIBUTION_RULE_STATED, ATTRIBUTION_RULE_LAST_SHOWN"
        raise InvalidInput.of("attribution_rule", "INVALID", f"is not a rule; known ones: {known}")
    return request.attribution_rule


def _window_of(request: pb.GetOutcomeMetricsRequest) -> timedelta:
    if not request.HasField("attribution_window"):
        return DEFAULT_WINDOW
    stated = request.attribution_window
    window = timedelta(seconds=stated.seconds, microseconds=stated.nanos // 1000) if abs(stated.seconds) < 10**9 else MAX_WINDOW * 2
    if not timedelta(0) < window <= MAX_WINDOW:
        raise InvalidInput.of("attribution_window", "OUT_OF_RANGE", f"is {stated.seconds} s; expected above 0 and at most 365 days")
    return window


def _times(request: Any) -> list[int | None]:
    return [getattr(request, name).ToNanoseconds() if request.HasField(name) else None for name in ("start_time", "end_time")]
