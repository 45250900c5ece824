"""Engagement once more, from what was sent, in plain Python."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from rankloop.v1 import stats_pb2 as stats
from rankloop.v1.tracking_pb2 import Interaction, Session
from tests.recount import Sent, mean, occurred, rate, wilson
from tests.recount_types import between

DAY, GAP = timedelta(days=1), timedelta(minutes=30)


def began(session: Session) -> datetime:
    """When."""
    return session.start_time.ToDatetime(tzinfo=UTC)


def active(sent: Sent, start: datetime, end: datetime) -> set[str]:
    """Users with an interaction."""
    return {one.user_id for one in sent.interactions if start <= occurred(one) < end}


def visits(sent: Sent, start: datetime, end: datetime) -> list[tuple[str, timedelta | None, int, int]]:
    """(user, length, pages, interactions) of sessions that began in the period."""
    stated = {one.session_id: one for one in sent.sessions}
    found: list[tuple[str, timedelta | None, int, int]] = []
    for one in stated.values():
        if start <= began(one) < end:
            own = [entry for entry in sent.interactions if entry.session_id == one.session_id and abs(occurred(entry) - began(one)) <= DAY]
            length = one.end_time.ToDatetime(tzinfo=UTC) - began(one) if one.HasField("end_time") else None
            found.append((one.user_id, length, len(one.pages), sum(occurred(entry) < end + DAY for entry in own)))
    loose = [one for one in sent.interactions if one.session_id and one.session_id not in stated and occurred(one) < end + DAY]
    for key in {(one.user_id, one.session_id) for one in loose}:
        moments = sorted(occurred(one) for one in loose if (one.user_id, one.session_id) == key)
        runs: list[list[datetime]] = []
        for moment in moments:
            if runs and moment - runs[-1][-1] <= GAP:
                runs[-1].append(moment)
            else:
                runs.append([moment])
        found += [(key[0], run[-1] - run[0], 0, len(run)) for run in runs if start <= run[0] < end]
    return found


def sessions(sent: Sent, start: datetime, end: datetime) -> stats.SessionMetrics:
    """Figures of sessions, without the interval of the bounce rate."""
    found = visits(sent, start, end)
    lengths = sorted(length for _, length, _, _ in found if length is not None)
    bounced = sum(pages == 1 or interactions == 1 for _, _, pages, interactions in found)
    metrics = stats.SessionMetrics(
        session_count=len(found),
        user_count=len({user for user, *_ in found}),
        timed_session_count=len(lengths),
        bounced_session_count=bounced,
        bounce_rate=rate(bounced, len(found)),
        avg_page_count=mean(pages for _, _, pages, _ in found if pages),
        avg_interaction_count=mean(interactions for *_, interactions in found),
        stated_session_count=sum(start <= began(one) < end for one in sent.sessions),
        device_counts=Counter(one.device for one in sent.sessions if one.device and start <= began(one) < end),
    )
    if lengths:
        metrics.avg_length.FromTimedelta(sum(lengths, timedelta(0)) / len(lengths))
        metrics.median_length.FromTimedelta(between(lengths, 0.5))
        metrics.p90_length.FromTimedelta(between(lengths, 0.9))
    return metrics


def usage(pairs: Iterable[tuple[str, str]], users: set[str]) -> list[stats.Usage]:
    """Of (name, user) of every use."""
    listed = list(pairs)
    rows = []
    for name in {name for name, _ in listed}:
        count = len({user for other, user in listed if other == name} & users)
        uses = sum(other == name for other, _ in listed)
        rows.append(stats.Usage(name=name, use_count=uses, user_count=count, adoption=count / len(users) if users else 0.0))
        if users:
            rows[-1].adoption_interval.CopyFrom(wilson(count, len(users)) or stats.Interval())
    return sorted(rows, key=lambda row: (-row.user_count, -row.use_count, row.name))


def counts(moments: Iterable[tuple[datetime, str]]) -> list[stats.ActiveUserCount]:
    """Users by the start of something."""
    by_start: dict[datetime, set[str]] = {}
    for start, user in moments:
        by_start.setdefault(start, set()).add(user)
    found = []
    for start, users in sorted(by_start.items()):
        found.append(stats.ActiveUserCount(active_user_count=len(users)))
        found[-1].start_time.FromDatetime(start)
    return found


def cohorts(sent: Sent, start: datetime, end: datetime, span: timedelta) -> list[stats.Cohort]:
    """By the span of the first interaction ever."""
    firsts: dict[str, datetime] = {}
    for one in sent.interactions:
        firsts[one.user_id] = min(occurred(one), firsts.get(one.user_id, occurred(one)))
    found = []
    places = range((end - start) // span)
    for place in places:
        since, until = start + place * span, start + (place + 1) * span
        users = {user for user, first in firsts.items() if since <= first < until}
        if users:
            cohort = stats.Cohort(user_count=len(users))
            cohort.start_time.FromDatetime(since)
            for later in places[place:]:
                back = len(users & active(sent, start + later * span, start + (later + 1) * span))
                cohort.retention.add(
                    offset=later - place, active_user_count=back, rate=back / len(users), rate_interval=wilson(back, len(users))
                )
            found.append(cohort)
    return found


def engagement(sent: Sent, start: datetime, end: datetime, span: timedelta) -> stats.GetEngagementResponse:
    """Everything but the score's distribution and the bounce rate's interval."""
    inside = [one for one in sent.interactions if start <= occurred(one) < end]
    users = active(sent, start, end)

    def midnight(one: Interaction) -> datetime:
        return occurred(one).replace(hour=0, minute=0, second=0, microsecond=0)

    daily, monthly = (len(active(sent, max(start, end - days * DAY), end)) for days in (1, 30))
    pages = [(one.context["page"], one.user_id) for one in inside if "page" in one.context]
    pages += [(page, one.user_id) for one in sent.sessions if start <= began(one) < end for page in one.pages]
    return stats.GetEngagementResponse(
        active_user_count=len(users),
        new_user_count=len(users - {one.user_id for one in sent.interactions if occurred(one) < start}),
        interaction_count=len(inside),
        daily_active_user_count=daily,
        weekly_active_user_count=len(active(sent, max(start, end - 7 * DAY), end)),
        monthly_active_user_count=monthly,
        stickiness=rate(daily, monthly),
        stickiness_interval=wilson(daily, monthly),
        days=counts((midnight(one), one.user_id) for one in inside),
        weeks=counts((midnight(one) - midnight(one).weekday() * DAY, one.user_id) for one in inside),
        months=counts((midnight(one).replace(day=1), one.user_id) for one in inside),
        sessions=sessions(sent, start, end),
        pages=usage(pages, users),
        features=usage([(one.context["feature"], one.user_id) for one in inside if "feature" in one.context], users),
        interaction_types=usage([(one.type, one.user_id) for one in inside], users),
        cohorts=cohorts(sent, start, end, span),
    )


def scores(sent: Sent, end: datetime) -> dict[str, list[float]]:
    """By user active in the 28 days before: the score and its four parts."""
    window = [one for one in sent.interactions if end - timedelta(days=28) <= occurred(one) < end]
    values: dict[str, list[float]] = {}
    for user in {one.user_id for one in window}:
        own = [one for one in window if one.user_id == user]
        days = len({occurred(one).date() for one in own})
        latest = max(occurred(one) for one in own)
        values[user] = [latest.timestamp(), days, len(own) / days, len({one.type for one in own})]
    found = {}
    for user, own_values in values.items():
        parts = [percentile(value, [other[place] for other in values.values()]) for place, value in enumerate(own_values)]
        found[user] = [statistics.fmean(parts), *parts]
    return found


def percentile(value: float, among: Sequence[float]) -> float:
    """The share below and half the share at it, times 100."""
    return 100 * sum((other < value) + (other == value) / 2 for other in among) / len(among)
