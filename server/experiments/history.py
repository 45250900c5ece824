"""What one user did in one experiment, and each metric of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from rankloop.v1 import experiment_pb2 as pb
from server.experiments.metrics import Asked

PAST = timedelta(days=14)
"""Before the exposure, what CUPED looks at."""
RETURN = timedelta(days=1)
"""After the exposure, from when on somebody has come back."""
FAILURES = ("RANKER_UNAVAILABLE", "RANKER_TIMEOUT", "RANKER_OVERLOADED", "RANKER_FAILED")


@dataclass(frozen=True, slots=True)
class Visit:
    """A slate of the experiment."""

    time: datetime
    ranking_id: str
    variant_id: str
    impressions: int
    model_ranked: bool
    fallback_reason: str
    diversity: float | None
    seconds: float | None
    context: Sequence[tuple[str, str]] = ()
    picks: Mapping[str, int] = field(default_factory=dict)
    """Of an interleaved slate: 1 for items that the treatment picked, −1 for those of the control."""


@dataclass(frozen=True, slots=True)
class Act:
    """An interaction or an outcome."""

    time: datetime
    type: str
    amount: float
    """Of an interaction its label, of an outcome its value."""
    stars: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an impression."""

    ranking_id: str
    click_time: datetime | None
    act_time: datetime | None
    item_id: str = ""


@dataclass(slots=True)
class History:
    """A user in an experiment. What happened before the first slate is kept for CUPED only."""

    user_id: str
    visits: list[Visit]
    """By time."""
    interactions: list[Act] = field(default_factory=list)
    outcomes: list[Act] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def exposure_time(self) -> datetime:
        """Of the first slate."""
        return self.visits[0].time

    @property
    def variant_id(self) -> str:
        """Of the first slate."""
        return self.visits[0].variant_id

    def mixed(self, until: datetime) -> bool:
        """Whether slates of more than one variant were shown before `until`."""
        return any(visit.variant_id != self.variant_id for visit in self.visits if visit.time < until)

    def times(self) -> Iterator[datetime]:
        """When something happened, in no order."""
        for visit in self.visits:
            yield visit.time
        for act in (*self.interactions, *self.outcomes):
            yield act.time
        for answer in self.answers:
            yield from (time for time in (answer.click_time, answer.act_time) if time is not None)

    def before(self, end: datetime) -> History | None:
        """As it is told by what happened before `end`; None: nothing had been shown yet."""
        visits = [visit for visit in self.visits if visit.time < end]
        if not visits:
            return None
        shown = {visit.ranking_id for visit in visits}
        return replace(
            self,
            visits=visits,
            interactions=[act for act in self.interactions if act.time < end],
            outcomes=[act for act in self.outcomes if act.time < end],
            answers=[answer for answer in self.answers if answer.ranking_id in shown],
        )


def end_of(starts: Sequence[datetime], exposure_time: datetime, as_of: datetime) -> datetime:
    """What a user does from here on does not count: the weights changed, and with them perhaps the variant.

    `starts` are when each of the experiment's weights began to hold; users are followed up to the next ones, or up to `as_of`.
    """
    return min([as_of, *(start for start in starts[1:] if start > exposure_time)])


def period_of(starts: Sequence[datetime], exposure_time: datetime) -> int:
    """Under which weights a user came, counted from 0."""
    return sum(start <= exposure_time for start in starts[1:])


def width_of(asked: Asked) -> int:
    """How many columns `values_of` has, where the metric is measured."""
    if asked.definition.kind == pb.METRIC_KIND_PREFERENCE:
        return 4
    return asked.metric.kind.width * (2 if asked.definition.cuped else 1)


def values_of(asked: Asked, history: History, until: datetime) -> tuple[float, ...] | None:
    """The columns of a metric: the user's own, and with CUPED the one from before; None: not measured for this user.

    What happened from the first slate on and before `until` counts.
    """
    definition, start = asked.definition, history.exposure_time
    own = _own(definition, history, start, until)
    if own is None or not definition.cuped:
        return own
    before = _own(definition, history, start - PAST, start)
    return (*own, *(before or (0.0,)))


def _own(definition: pb.ExperimentMetric, history: History, start: datetime, end: datetime) -> tuple[float, ...] | None:
    kind = definition.kind
    if kind in _OF_VISITS:
        return _of_visits(kind, history, [visit for visit in history.visits if start <= visit.time < end], end)
    if kind == pb.METRIC_KIND_PREFERENCE:
        return _preference(history, start, end)
    if kind == pb.METRIC_KIND_OUTCOME_VALUE:
        wanted = [act.amount for act in history.outcomes if start <= act.time < end and definition.type in ("", act.type)]
        return (float(sum(wanted)),)
    if kind == pb.METRIC_KIND_TIME_TO_ACTION:
        shown = {visit.ranking_id: visit.time for visit in history.visits}
        taken = [
            (answer.act_time - shown[answer.ranking_id]).total_seconds()
            for answer in history.answers
            if answer.act_time is not None and answer.act_time < end
        ]
        return (sum(taken) / len(taken),) if taken else None
    acts = [act for act in history.interactions if start <= act.time < end]
    if kind == pb.METRIC_KIND_CONVERSION:
        return (float(any(act.type == definition.type for act in acts)),)
    if kind == pb.METRIC_KIND_LABEL:
        return (float(sum(act.amount for act in acts)),)
    if kind == pb.METRIC_KIND_ENGAGEMENT:
        return (float(len(acts)),)
    if kind == pb.METRIC_KIND_RATING:
        stars = [act.stars for act in acts if act.stars is not None]
        return (sum(stars) / len(stars),) if stars else None
    back = start + RETURN
    return (float(any(time >= back for time in (*(act.time for act in acts), *(v.time for v in history.visits if v.time < end)))),)


def _preference(history: History, start: datetime, end: datetime) -> tuple[float, ...] | None:
    """The user's credit, whether it is the treatment's (1 or 0), whether the control's, and the interleaved slates; None: without any."""
    picks = {visit.ranking_id: visit.picks for visit in history.visits if visit.picks and start <= visit.time < end}
    if not picks:
        return None
    credit = sum(
        picks[answer.ranking_id].get(answer.item_id, 0)
        for answer in history.answers
        if answer.ranking_id in picks and answer.click_time is not None and answer.click_time < end
    )
    return (float(credit), float(credit > 0), float(credit < 0), float(len(picks)))


_OF_VISITS = {
    pb.METRIC_KIND_CTR,
    pb.METRIC_KIND_DIVERSITY,
    pb.METRIC_KIND_LATENCY,
    pb.METRIC_KIND_ERROR_RATE,
    pb.METRIC_KIND_FALLBACK_RATIO,
}


def _of_visits(kind: int, history: History, visits: Sequence[Visit], end: datetime) -> tuple[float, ...] | None:
    if kind == pb.METRIC_KIND_CTR:
        shown = {visit.ranking_id for visit in visits}
        clicked = sum(
            1 for answer in history.answers if answer.ranking_id in shown and answer.click_time is not None and answer.click_time < end
        )
        return (float(clicked), float(sum(visit.impressions for visit in visits)))
    if kind == pb.METRIC_KIND_ERROR_RATE:
        return (float(sum(visit.fallback_reason in FAILURES for visit in visits)), float(len(visits)))
    if kind == pb.METRIC_KIND_FALLBACK_RATIO:
        return (float(sum(not visit.model_ranked for visit in visits)), float(len(visits)))
    amounts = [visit.diversity if kind == pb.METRIC_KIND_DIVERSITY else visit.seconds for visit in visits]
    known = [one for one in amounts if one is not None]
    return (sum(known) / len(known),) if known else None
