"""Outcomes, the funnel of applications and the quality of slates once more, from what was sent, in plain Python."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from rankloop.v1 import stats_pb2 as stats
from rankloop.v1.tracking_pb2 import Outcome, Slate
from tests.recount import Sent, diversity, mean, occurred, rate, shown, wilson

RESULTS = ["applied", "interview", "offer", "accepted"]


def slate_of(sent: Sent, one: Outcome, window: timedelta, *, stated_only: bool) -> Slate | None:
    """The slate that earned it: the one it names, else the latest that showed its user its item."""
    if one.ranking_id:
        return next((s for s in sent.slates if s.ranking_id == one.ranking_id and occurred(one) - shown(s) <= window), None)
    if stated_only or not one.item_id:
        return None
    seen = [s for s in sent.slates if s.user_id == one.user_id and any(item.item_id == one.item_id for item in s.items)]
    seen = [s for s in seen if shown(s) <= occurred(one) <= shown(s) + window]
    return max(seen, key=lambda s: (shown(s), s.ranking_id), default=None)


def improvement(one: Outcome) -> float | None:
    """(after − before) ÷ before."""
    if not (one.HasField("before_value") and one.HasField("value")) or one.before_value <= 0:
        return None
    return (one.value - one.before_value) / one.before_value


def of_type(sent: Sent, name: str, start: datetime, end: datetime, window: timedelta, *, stated_only: bool) -> stats.OutcomeTypeMetrics:
    """Figures of one type, without intervals of means and without stories."""
    own = [one for one in sent.outcomes if one.type == name and start <= occurred(one) < end]
    values = [one.value for one in own if one.HasField("value")]
    compared = [one for one in own if one.HasField("value") and one.HasField("before_value")]
    improvements = [found for one in own if (found := improvement(one)) is not None]
    improved = sum(one > 0 for one in improvements)
    earned = [(slate, one.value) for one in own if (slate := slate_of(sent, one, window, stated_only=stated_only)) is not None]
    costed = [(one.value - one.before_value, cost) for one in own if one.HasField("value") and (cost := cost_of(sent, one)) is not None]
    cost_sum = sum(cost for _, cost in costed)
    by_algorithm: Counter[str] = Counter()
    for slate, value in earned:
        by_algorithm[slate.algorithm] += value  # type: ignore[assignment]
    return stats.OutcomeTypeMetrics(
        type=name,
        outcome_count=len(own),
        user_count=len({one.user_id for one in own}),
        valued_count=len(values),
        value_sum=sum(values),
        avg_value=mean(values),
        compared_count=len(compared),
        avg_before=mean(one.before_value for one in compared),
        avg_after=mean(one.value for one in compared),
        improvement_count=len(improvements),
        avg_improvement=mean(improvements),
        median_improvement=statistics.median(improvements) if improvements else None,
        improved_rate=rate(improved, len(improvements)),
        improved_rate_interval=wilson(improved, len(improvements)),
        attributed_count=len(earned),
        attributed_value=sum(value for _, value in earned),
        attributed_value_by_algorithm=by_algorithm,
        costed_count=len(costed),
        cost_sum=cost_sum,
        return_on_investment=(sum(gain for gain, _ in costed) - cost_sum) / cost_sum if cost_sum else None,
    )


def cost_of(sent: Sent, one: Outcome) -> float | None:
    """As it says itself, else the catalogue's."""
    return float(one.attributes["cost"]) if "cost" in one.attributes else sent.costs.get(one.item_id)


def funnel(sent: Sent, start: datetime, end: datetime, window: timedelta, *, stated_only: bool) -> dict[str | None, list[int]]:
    """By tier, and all together under None: impressions shown, viewed, applied for, and by how far the application came."""
    furthest: dict[tuple[str, str], int] = {}
    for one in sent.outcomes:
        slate = slate_of(sent, one, window, stated_only=stated_only) if one.type == "application" else None
        if slate is not None:
            result = one.attributes.get("result", "applied")
            key = slate.ranking_id, one.item_id
            furthest[key] = max(furthest.get(key, 0), RESULTS.index(result) if result in RESULTS else 0)
    rows: dict[str | None, list[int]] = {}
    for impression in sent.impressions(start, end):
        key = impression.slate.ranking_id, impression.item.item_id
        stage = furthest.get(key, -1)
        stages = [True, impression.has("view"), impression.has("apply") or stage >= 0, stage >= 1, stage >= 2, stage >= 3]
        for tier in (impression.item.attributes.get("tier", ""), None):
            row = rows.setdefault(tier, [0] * 6)
            for place, reached in enumerate(stages):
                row[place] += reached
    return rows


def goals(sent: Sent, start: datetime, end: datetime) -> tuple[int, int]:
    """Goals, and those reached."""
    own = [one for one in sent.outcomes if one.type == "goal" and start <= occurred(one) < end]

    def reached(one: Outcome) -> bool:
        if "target" in one.attributes:
            return one.HasField("value") and one.value >= float(one.attributes["target"])
        return "result" not in one.attributes or one.attributes["result"] in ("reached", "completed", "achieved")

    return len(own), sum(map(reached, own))


def quality(
    sent: Sent, start: datetime, end: datetime, within: tuple[datetime, datetime], algorithm: str | None, day: datetime | None
) -> stats.SlateQuality | None:
    """Of the slates of [start, end); `within` is the period asked for. None: nothing was shown."""
    slates = [one for one in sent.slates if start <= shown(one) < end and algorithm in (None, one.algorithm)]
    exposure = Counter(item.item_id for slate in slates for item in slate.items)
    if not exposure:
        return None
    touched = Counter(one.item_id for one in sent.interactions if within[0] <= occurred(one) < within[1])
    everything = set(sent.catalogue) | set(exposure)
    whole = touched.total() + len(everything)
    since = day or start
    warm = {one.item_id for one in sent.interactions if since - timedelta(days=30) <= occurred(one) < since}
    cold = sum(count for item_id, count in exposure.items() if item_id not in warm)
    values = [exposure[item_id] for item_id in everything]
    varied = [diversity(slate) for slate in slates if len(slate.items) > 1]
    row = stats.SlateQuality(
        algorithm=algorithm or "",
        total=algorithm is None,
        slate_count=len(slates),
        impression_count=exposure.total(),
        varied_slate_count=len(varied),
        diversity=mean(varied),
        shown_catalogue_item_count=len(set(sent.catalogue) & set(exposure)),
        catalogue_item_count=len(sent.catalogue),
        coverage=rate(len(set(sent.catalogue) & set(exposure)), len(sent.catalogue)),
        novelty=sum(-math.log2((touched[item_id] + 1) / whole) for item_id in exposure.elements()) / exposure.total(),
        gini=gini(values),
        cold_impression_count=cold,
        cold_item_share=cold / exposure.total(),
        cold_item_share_interval=wilson(cold, exposure.total()),
    )
    if day is not None:
        row.day_time.FromDatetime(day)
    return row


def gini(values: Sequence[int]) -> float:
    """Half the mean difference between any two, relative to the mean."""
    differences = sum(abs(one - other) for one in values for other in values)
    return differences / (2 * len(values) * sum(values))
