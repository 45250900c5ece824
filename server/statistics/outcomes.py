"""Valued results, what they were worth, and what slates earned of them."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rankloop.v1 import stats_pb2 as pb
from runtime.timestamps import to_duration, to_timestamp
from server.statistics.clustered import clustered_mean, clustered_wilson
from server.statistics.figures import ratio
from server.statistics.intervals import wilson

REACHED = frozenset({"reached", "completed", "achieved"})
MIN_STORY_USERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """The slate that earned an outcome."""

    ranking_id: str
    algorithm: str
    show_time: datetime
    tier: str | None
    """Of the outcome's item in it; None: the item is not in it."""


@dataclass(slots=True, kw_only=True)
class Result:
    """An outcome, as far as figures are concerned."""

    event_id: str
    user_id: str
    type: str
    before: float | None
    value: float | None
    item_id: str
    ranking_id: str
    occur_time: datetime
    attributes: Mapping[str, str]
    item_cost: float | None = None
    """The number `cost` of its item in the catalogue."""
    earned: Earned | None = None

    @property
    def improvement(self) -> float | None:
        """(after − before) ÷ before; None where it is not defined."""
        if self.before is None or self.value is None or self.before <= 0:
            return None
        return (self.value - self.before) / self.before

    @property
    def gain(self) -> float | None:
        """The value, less the value before where there is one."""
        return None if self.value is None else self.value - (self.before or 0.0)

    @property
    def cost(self) -> float | None:
        """What it cost: as it says itself, else its item; None: nobody says."""
        stated = number_of(self.attributes.get("cost", ""))
        return stated if stated is not None else self.item_cost

    @property
    def goal_reached(self) -> bool:
        """Of a goal: whether it was reached."""
        target = number_of(self.attributes.get("target", ""))
        if target is not None:
            return self.value is not None and self.value >= target
        result = self.attributes.get("result")
        return result is None or result in REACHED


def number_of(text: str) -> float | None:
    """The finite number that a text says; None: it says none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """Which success stories are told."""

    count: int
    min_users: int
    pseudonym: Callable[[str], str]
    """A user's other name."""


def type_rows(results: Sequence[Result], telling: Telling) -> list[pb.OutcomeTypeMetrics]:
    """One row per type, most outcomes first."""
    by_type: dict[str, list[Result]] = defaultdict(list)
    for one in results:
        by_type[one.type].append(one)
    rows = [type_row(name, of_one, telling) for name, of_one in by_type.items()]
    return sorted(rows, key=lambda row: (-row.outcome_count, row.type))


def type_row(name: str, results: Sequence[Result], telling: Telling) -> pb.OutcomeTypeMetrics:
    """The figures of one type."""
    values = [(one.user_id, one.value) for one in results if one.value is not None]
    compared = [(one.before, one.value) for one in results if one.before is not None and one.value is not None]
    improvements = [(one.user_id, improvement) for one in results if (improvement := one.improvement) is not None]
    improved = sum(improvement > 0 for _, improvement in improvements)
    earned = [(one.earned, one.value or 0.0) for one in results if one.earned is not None]
    costed = [(one.gain, one.cost) for one in results if one.gain is not None and one.cost is not None]
    cost_sum = math.fsum(cost for _, cost in costed)
    by_algorithm: dict[str, list[float]] = defaultdict(list)
    for slate, value in earned:
        by_algorithm[slate.algorithm].append(value)
    return pb.OutcomeTypeMetrics(
        type=name,
        outcome_count=len(results),
        user_count=len({one.user_id for one in results}),
        valued_count=len(values),
        value_sum=math.fsum(value for _, value in values),
        avg_value=_mean([value for _, value in values]),
        avg_value_interval=clustered_mean(_of_users(values)),
        compared_count=len(compared),
        avg_before=_mean([before for before, _ in compared]),
        avg_after=_mean([after for _, after in compared]),
        improvement_count=len(improvements),
        avg_improvement=_mean([improvement for _, improvement in improvements]),
        avg_improvement_interval=clustered_mean(_of_users(improvements)),
        median_improvement=statistics.median(one for _, one in improvements) if improvements else None,
        improved_rate=ratio(improved, len(improvements)),
        improved_rate_interval=wilson(improved, len(improvements)),
        attributed_count=len(earned),
        attributed_value=math.fsum(value for _, value in earned),
        attributed_value_by_algorithm={algorithm: math.fsum(some) for algorithm, some in by_algorithm.items()},
        costed_count=len(costed),
        cost_sum=cost_sum,
        return_on_investment=ratio(math.fsum(gain for gain, _ in costed) - cost_sum, cost_sum),
        stories=stories(results, telling),
    )


def stories(results: Sequence[Result], telling: Telling) -> list[pb.SuccessStory]:
    """The largest improvement of each of those who improved most; nothing where few users could be told apart."""
    best: dict[str, Result] = {}
    for one in sorted(results, key=lambda one: (one.occur_time, one.event_id)):
        if (improvement := one.improvement) is not None and improvement > (
            (best[one.user_id].improvement or 0.0) if one.user_id in best else -math.inf
        ):
            best[one.user_id] = one
    if len(best) < max(MIN_STORY_USERS, telling.min_users):
        return []
    improved = [one for one in best.values() if (one.improvement or 0.0) > 0]
    improved.sort(key=lambda one: (-(one.improvement or 0.0), one.occur_time, one.event_id))
    return [_story(one, telling.pseudonym) for one in improved[: telling.count]]


def _story(one: Result, pseudonym: Callable[[str], str]) -> pb.SuccessStory:
    story = pb.SuccessStory(
        pseudonym=pseudonym(one.user_id),
        before_value=one.before or 0.0,
        value=one.value or 0.0,
        improvement=one.improvement or 0.0,
        occur_time=to_timestamp(one.occur_time),
        item_id=one.item_id,
    )
    if one.earned is not None:
        story.time_since_shown.CopyFrom(to_duration(max(0.0, (one.occur_time - one.earned.show_time).total_seconds())))
    return story


def goal_metrics(goals: Sequence[Result]) -> pb.GoalMetrics:
    """Figures of goals."""
    by_user: dict[str, tuple[int, int]] = {}
    for one in goals:
        reached, count = by_user.get(one.user_id, (0, 0))
        by_user[one.user_id] = reached + one.goal_reached, count + 1
    reached = sum(one for one, _ in by_user.values())
    return pb.GoalMetrics(
        goal_count=len(goals),
        reached_count=reached,
        completion_rate=ratio(reached, len(goals)),
        completion_rate_interval=clustered_wilson(by_user.values()),
        user_count=len(by_user),
    )


def _of_users(values: Sequence[tuple[str, float]]) -> list[tuple[float, int]]:
    sums: dict[str, tuple[float, int]] = {}
    for user_id, value in values:
        total, count = sums.get(user_id, (0.0, 0))
        sums[user_id] = total + value, count + 1
    return list(sums.values())


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
