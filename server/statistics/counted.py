"""Counters of a period: tallies for its full hours, the ledger itself for what is left at its edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from collector.attribution import Attribution
from collector.batch import Batch, fold
from collector.labels import Combination
from collector.tally import Key, TallyId
from runtime.mongo import Document, Mongo
from server.statistics.figures import Counters
from server.statistics.period import DAY, HOUR, Period

MAX_DAYS_BY_ID = 400
"""Longer periods are cut to the days there are."""
SLATE_COLUMNS = {"features": 0, "context": 0, "response": 0}
EDGE_BATCH = 2000


class Counted:
    """Sums of counters over periods, exact."""

    def __init__(self, mongo: Mongo, rule: Combination) -> None:
        self._mongo = mongo
        self._rule = rule

    async def of_key(self, scope: str, key: Key, period: Period) -> Counters:
        """The counters of one key."""
        total: Counters = defaultdict(int)
        for found in (await self._by_day_of_key(scope, key, period)).values():
            _add(total, found)
        for edge in period.edges():
            for tally, counters in (await self._edge(edge)).items():
                if tally.scope == scope and tally.key == key:
                    _add(total, counters)
        return total

    async def by_day(self, scope: str, key: Key, period: Period) -> dict[datetime, Counters]:
        """The counters of one key, day by day."""
        days = await self._by_day_of_key(scope, key, period)
        for edge in period.edges():
            for tally, counters in (await self._edge(edge)).items():
                if tally.scope == scope and tally.key == key:
                    _add(days.setdefault(tally.day, defaultdict(int)), counters)
        return days

    async def by_key(self, scope: str, period: Period) -> dict[Key, Counters]:
        """The counters of every key of a scope."""
        totals: dict[Key, Counters] = defaultdict(lambda: defaultdict(int))
        hours_of = await self._days(period)
        if hours_of:
            query = {"_id": {"$gte": {"scope": scope, "start": min(hours_of)}, "$lt": {"scope": scope, "start": max(hours_of) + HOUR}}}
            async for batch in self._mongo.collection("tallies").batches(query):
                for tally in batch:
                    key = tally["_id"]["key"]
                    _add(totals[key if isinstance(key, str) else tuple(key)], _of_hours(tally, hours_of.get(tally["_id"]["start"])))
        for edge in period.edges():
            for tally_id, counters in (await self._edge(edge)).items():
                if tally_id.scope == scope:
                    _add(totals[tally_id.key], counters)
        return totals

    async def _by_day_of_key(self, scope: str, key: Key, period: Period) -> dict[datetime, Counters]:
        hours_of = await self._days(period)
        stored_key = key if isinstance(key, str) else list(key)
        ids = [{"scope": scope, "start": day, "key": stored_key} for day in hours_of]
        found = await self._mongo.collection("tallies").find({"_id": {"$in": ids}}, limit=len(ids)) if ids else []
        return {tally["_id"]["start"]: _of_hours(tally, hours_of[tally["_id"]["start"]]) for tally in found}

    async def _days(self, period: Period) -> dict[datetime, range]:
        """The period's full hours by day; of a very long one, only of days between the first and the last tally."""
        if period.end - period.start > MAX_DAYS_BY_ID * DAY:
            period = await self._cut(period)
        return dict(period.days())

    async def _cut(self, period: Period) -> Period:
        tallies = self._mongo.collection("tallies")
        # Both kinds of moment have a scope that sees each of them.
        scopes = ["all", "performance:"]
        firsts: list[Document] = []
        lasts: list[Document] = []
        for scope in scopes:
            query = {"_id": {"$gte": {"scope": scope}, "$lt": {"scope": scope + "\0"}}}
            for found, direction in ((firsts, 1), (lasts, -1)):
                found += await tallies.find(query, {"_id": 1}, sort=[("_id", direction)], limit=1)
        if not firsts:
            return Period(period.start, period.start)
        first = min(tally["_id"]["start"] for tally in firsts)
        last = max(tally["_id"]["start"] for tally in lasts) + DAY
        start, end = max(period.start, first), min(period.end, last)
        return Period(start, max(start, end))

    async def _edge(self, edge: Period) -> Mapping[TallyId, Counters]:
        """Tallies of less than an hour, from the ledger: what the fold would make of it."""
        within = {"$gte": edge.start, "$lt": edge.end}
        deltas: dict[TallyId, Counters] = defaultdict(lambda: defaultdict(int))
        async for batch in self._folded("interactions", {"occur_time": within}):
            # An interaction's impression counts when it was shown, so here it belongs to none.
            loose = [{name: value for name, value in entry.items() if name != "ranking_id"} for entry in batch]
            self._fold_into(deltas, interactions=loose)
        async for batch in self._folded("outcomes", {"occur_time": within}):
            loose = [{name: value for name, value in entry.items() if name != "ranking_id"} for entry in batch]
            self._fold_into(deltas, outcomes=loose)
        async for batch in self._folded("slates", {"show_time": within}):
            await self._fold_slates_into(deltas, batch)
        return deltas

    def _folded(self, kind: str, query: Mapping[str, Any]) -> Any:
        return self._mongo.collection(kind).batches(
            {**query, "pending": {"$exists": False}}, SLATE_COLUMNS if kind == "slates" else None, batch_size=EDGE_BATCH
        )

    async def _fold_slates_into(self, deltas: dict[TallyId, Counters], slates: list[Document]) -> None:
        ranking_ids = [slate["_id"] for slate in slates]
        attributions: dict[tuple[str, str], Attribution] = {}
        async for batch in self._mongo.collection("attributions").batches({"ranking_id": {"$in": ranking_ids}}):
            attributions |= {(one["_id"]["ranking_id"], one["_id"]["item_id"]): Attribution.from_document(one) for one in batch}
        outcomes: list[Document] = []
        async for batch in self._folded("outcomes", {"ranking_id": {"$in": ranking_ids}}):
            outcomes += batch
        self._fold_into(deltas, slates=slates, outcomes_before=outcomes, attributions=attributions)

    def _fold_into(
        self,
        deltas: dict[TallyId, Counters],
        *,
        interactions: Iterable[Document] = (),
        slates: Iterable[Document] = (),
        outcomes: Iterable[Document] = (),
        outcomes_before: Iterable[Document] = (),
        attributions: Mapping[tuple[str, str], Attribution] | None = None,
    ) -> None:
        batch = Batch(
            interactions=list(interactions),
            slates=list(slates),
            outcomes=list(outcomes),
            folded_slates={},
            folded_outcomes=list(outcomes_before),
            attributions=attributions or {},
        )
        for tally, counters in fold(batch, self._rule).tallies.items():
            for (_, counter), count in counters.items():
                deltas[tally][counter] += count


def _of_hours(tally: Document, hours: range | None) -> Counters:
    if hours is None:
        return {}
    if len(hours) == 24:
        return dict(tally.get("day", {}))
    total: Counters = defaultdict(int)
    for hour in hours:
        _add(total, tally.get("hours", {}).get(str(hour), {}))
    return total


def _add(total: Counters, more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
