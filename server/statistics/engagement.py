"""Engagement in a period, from what was added up of it."""

from __future__ import annotations

from rankloop.v1 import stats_pb2 as pb
from server.statistics.activity import Activity, Flags, Uses, active_counts, cohorts, usages
from server.statistics.figures import ratio
from server.statistics.intervals import wilson
from server.statistics.period import DAY
from server.statistics.population import Population
from server.statistics.sessions import Sessions


def engagement(activity: Activity, sessions: Sessions, newcomers: Flags, population: Population) -> pb.GetEngagementResponse:
    """Who is active, in what sessions, what they use, and who comes back."""
    totals, period, active = activity.totals, activity.totals.period, activity.active
    # Never before the start, and so never before the calendar begins.
    daily, weekly, monthly = (totals.active_since(period.end - min(days * DAY, period.end - period.start)) for days in (1, 7, 30))
    days, weeks, months = active_counts(activity.days)
    pages = dict(activity.used["page"])
    for page, uses in sessions.page_uses().items():
        known = pages.get(page, Uses())
        pages[page] = Uses(known.count + uses.count, known.users + uses.users)
    return pb.GetEngagementResponse(
        active_user_count=int(active.sum()),
        new_user_count=int(newcomers.sum()),
        interaction_count=int(totals.counts.sum()),
        daily_active_user_count=daily,
        weekly_active_user_count=weekly,
        monthly_active_user_count=monthly,
        stickiness=ratio(daily, monthly),
        stickiness_interval=wilson(daily, monthly),
        days=days,
        weeks=weeks,
        months=months,
        sessions=sessions.metrics(),
        pages=usages(pages, active),
        features=usages(activity.used["feature"], active),
        interaction_types=usages(activity.types, active),
        cohorts=cohorts(activity, newcomers, period, activity.span),
        scores=population.distribution(),
    )
