"""From the ledger to sums over users: one user after the other, whatever number of them, in the memory of a batch."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rankloop.v1 import experiment_pb2 as pb
from runtime.mongo import Mongo
from runtime.timestamps import to_datetime
from server.experiments.histories import Histories
from server.experiments.history import History, end_of, period_of, values_of
from server.experiments.method import groups_of
from server.experiments.metrics import Asked, metrics_of
from server.experiments.observed import Group, Observed, Period
from server.inference.winsorising import Sketch, winsorised

USERS_PER_TURN = 25
MAX_LOOKS = 31
"""Points of the series, the latest."""
DAY = timedelta(days=1)

Scope = tuple[str, ...]
ALL: Scope = ("all",)


@dataclass(slots=True)
class Gathered:
    """What a readout is made of."""

    groups: list[Group]
    periods: list[Period]
    """By weights; one if they never changed."""
    segments: dict[tuple[str, str], list[Group]]
    looks: list[tuple[datetime, list[Group]]]
    caps: dict[str, float]
    """By metric."""
    mixed_user_count: int = 0
    anonymous_slate_count: int = 0
    tester_count: int = 0


@dataclass(slots=True)
class _Sums:
    """Of one scope and variant."""

    users: int = 0
    exposures: int = 0
    rows: dict[str, list[tuple[float, ...]]] = field(default_factory=lambda: defaultdict(list))
    """Not yet added up."""
    observed: dict[str, Observed] = field(default_factory=dict)


def looks_between(first: datetime, as_of: datetime) -> list[datetime]:
    """The ends of the days since the first slate, the latest of them, and the moment of the readout."""
    looks = []
    end = max(midnight(first) + DAY, midnight(as_of - MAX_LOOKS * DAY))
    while end < as_of:
        if end > first:
            looks.append(end)
        end += DAY
    return [*looks[-(MAX_LOOKS - 1) :], as_of]


def midnight(moment: datetime) -> datetime:
    """When the moment's day began."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


class Gathering:
    """One readout's way through the ledger."""

    def __init__(self, mongo: Mongo, experiment: pb.Experiment, *, as_of: datetime, segment_by: Sequence[str] = ()) -> None:
        self._slates = mongo.collection("slates")
        self._histories = Histories(mongo, experiment, with_context=bool(segment_by))
        self._experiment = experiment
        self._variants = groups_of(experiment)
        self._as_of = as_of
        self._segment_by = segment_by
        self._metrics = metrics_of(experiment)
        self._starts = [to_datetime(period.start_time) for period in experiment.weight_periods]
        self._sums: dict[tuple[Scope, str], _Sums] = defaultdict(_Sums)
        self._segments: set[tuple[str, str]] = set()
        self._caps: dict[str, float] = {}
        self._looks: list[datetime] = []
        self._mixed = self._testers = 0

    async def gather(self) -> Gathered:
        """Reads everything, twice where a cap has to be found first."""
        await self._find_caps()
        await self._find_looks()
        async for batch in self._histories.all(self._as_of):
            for place, history in enumerate(batch):
                self._take(history)
                if place % USERS_PER_TURN == 0:
                    await asyncio.sleep(0)  # rankings go on beside a readout
            self._add_up()
        return Gathered(
            self._groups(ALL),
            self._periods(),
            {segment: self._groups(("segment", *segment)) for segment in sorted(self._segments)},
            [(time, self._groups(("look", str(place)))) for place, time in enumerate(self._looks)],
            self._caps,
            self._mixed,
            self._histories.anonymous_slate_count,
            self._testers,
        )

    async def _find_caps(self) -> None:
        capped = [one for one in self._metrics if one.quantile < 1.0]
        if not capped:
            return
        sketches = {one.metric.name: Sketch() for one in capped}
        async for batch in self._histories.all(self._as_of):
            for one in capped:
                found = [values_of(one, history, self._until(history)) for history in batch if self._counts(history)]
                sketches[one.metric.name].add([row[0] for row in found if row is not None])
        for one in capped:
            cap = sketches[one.metric.name].quantile(one.quantile)
            if cap is not None:
                self._caps[one.metric.name] = cap

    async def _find_looks(self) -> None:
        query = {"experiments.id": self._experiment.experiment_id, "show_time": {"$lt": self._as_of}}
        found = await self._slates.aggregate([{"$match": query}, {"$group": {"_id": None, "first": {"$min": "$show_time"}}}])
        self._looks = looks_between(found[0]["first"], self._as_of) if found else []

    def _counts(self, history: History) -> bool:
        return (
            history.user_id not in self._experiment.overrides
            and history.variant_id in self._variants
            and not history.mixed(self._until(history))
        )

    def _until(self, history: History) -> datetime:
        return end_of(self._starts, history.exposure_time, self._as_of)

    def _take(self, history: History) -> None:
        if history.user_id in self._experiment.overrides:
            self._testers += 1
            return
        until = self._until(history)
        if history.mixed(until):
            self._mixed += 1
            return
        if history.variant_id not in self._variants:
            return
        place = period_of(self._starts, history.exposure_time)
        scopes: list[Scope] = [ALL, ("period", str(place))]
        scopes += [("segment", *one) for one in self._segments_of(history)]
        exposures = sum(visit.time < until for visit in history.visits)
        for one in self._metrics:
            row = self._row(one, history, until)
            for scope in scopes:
                if row is not None and (scope[0] != "segment" or one is self._metrics[0]):
                    self._sums[scope, history.variant_id].rows[one.metric.name].append(row)
        for scope in scopes:
            sums = self._sums[scope, history.variant_id]
            sums.users, sums.exposures = sums.users + 1, sums.exposures + exposures
        self._look(history, until)

    def _look(self, history: History, until: datetime) -> None:
        """The primary metric as it stood at each look; worked out anew only where something happened since the look before."""
        primary = self._metrics[0]
        happened, visits = sorted(history.times()), [visit.time for visit in history.visits]
        row: tuple[float, ...] | None = None
        seen = -1
        for place in range(bisect_right(self._looks, history.exposure_time), len(self._looks)):
            end = min(self._looks[place], until)
            count = bisect_left(happened, end)
            if count != seen:
                row, seen = self._row(primary, history, end), count
            sums = self._sums[("look", str(place)), history.variant_id]
            sums.users += 1
            sums.exposures += bisect_left(visits, end)
            if row is not None:
                sums.rows[primary.metric.name].append(row)

    def _row(self, one: Asked, history: History, until: datetime) -> tuple[float, ...] | None:
        row = values_of(one, history, until)
        cap = self._caps.get(one.metric.name)
        return row if row is None or cap is None else tuple(winsorised(row, cap).tolist())

    def _segments_of(self, history: History) -> list[tuple[str, str]]:
        known = dict(history.visits[0].context)
        found = [(key, known.get(key, "")) for key in self._segment_by]
        self._segments.update(found)
        return found

    def _add_up(self) -> None:
        for sums in self._sums.values():
            for name, rows in sums.rows.items():
                if rows:
                    more = Observed.of(rows)
                    sums.observed[name] = sums.observed[name] + more if name in sums.observed else more
                    rows.clear()

    def _groups(self, scope: Scope) -> list[Group]:
        groups = []
        for name in self._variants:
            sums = self._sums.get((scope, name)) or _Sums()
            groups.append(Group(variant_id=name, user_count=sums.users, exposure_count=sums.exposures, metrics=sums.observed))
        return groups

    def _periods(self) -> list[Period]:
        all_weights: list[Mapping[str, float]] = [dict(period.weights) for period in self._experiment.weight_periods]
        all_weights = all_weights or [{variant.variant_id: variant.weight for variant in self._experiment.variants}]
        return [Period(weights=weights, groups=self._groups(("period", str(place)))) for place, weights in enumerate(all_weights)]
