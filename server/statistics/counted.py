"""Counters of a period: tallies for its full hours, the ledger itself for what is left at its edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
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
"""Of longer periods, only the days with tallies are asked for."""
SLATE_COLUMNS = {"features": 0, "context": 0, "response": 0}
EDGE_BATCH = 2000
IDS_AT_ONCE = 3000
DAY_HOURS = 24


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
        async for _, key, counters in self._of_scope(scope, period):
            _add(totals[key], counters)
        return totals

    async def by_key_and_day(self, scope: str, period: Period) -> dict[datetime, dict[Key, Counters]]:
        """The counters of every key of a scope, day by day."""
        days: dict[datetime, dict[Key, Counters]] = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
        async for day, key, counters in self._of_scope(scope, period):
            _add(days[day][key], counters)
        return days

    async def revisions(self, scope: str, period: Period) -> dict[datetime, int]:
        """The newest revision among a scope's tallies of each day that the period touches."""
        days = Period(period.start.replace(hour=0, minute=0, second=0, microsecond=0), period.end)
        query = {"_id": {"$gte": {"scope": scope, "start": days.start}, "$lt": {"scope": scope, "start": days.end}}}
        pipeline: list[Document] = [{"$match": query}, {"$group": {"_id": "$_id.start", "revision": {"$max": "$revision"}}}]
        found: dict[datetime, int] = {}
        async for batch in self._mongo.collection("tallies").aggregate_batches(pipeline):
            found |= {one["_id"]: int(one["revision"]) for one in batch}
        return found

    async def of_keys(self, scope: str, keys: Sequence[str], period: Period) -> dict[str, Counters]:
        """The counters of some keys of a scope that has plain keys."""
        totals: dict[str, Counters] = {key: defaultdict(int) for key in keys}
        for hours, days in _alike(await self._days(period)):
            ids = [{"scope": scope, "start": day, "key": key} for key in keys for day in days]
            for place in range(0, len(ids), IDS_AT_ONCE):
                some = ids[place : place + IDS_AT_ONCE]
                for tally in await self._mongo.collection("tallies").find({"_id": {"$in": some}}, _columns(hours), limit=len(some)):
                    _add(totals[tally["_id"]["key"]], _of_hours(tally, hours))
        for edge in period.edges():
            for tally_id, counters in (await self._edge(edge)).items():
                if tally_id.scope == scope and isinstance(tally_id.key, str) and tally_id.key in totals:
                    _add(totals[tally_id.key], counters)
        return totals

    async def sums(self, scope: str, counters: Sequence[str], period: Period) -> dict[str, Counters]:
        """Some counters of every key of a scope that has plain keys, summed up by the database: for scopes of many keys."""
        totals: dict[str, Counters] = defaultdict(lambda: defaultdict(int))
        for hours, days in _alike(await self._days(period)):
            places = {
                name: [f"$hours.{hour}.{name}" for hour in hours] if len(hours) < DAY_HOURS else [f"$day.{name}"] for name in counters
            }
            group: Document = {"_id": "$_id.key"}
            group |= {name: {"$sum": {"$add": [{"$ifNull": [path, 0]} for path in paths]}} for name, paths in places.items()}
            pipeline = [{"$match": {"_id": _between(scope, days)}}, {"$group": group}]
            async for batch in self._mongo.collection("tallies").aggregate_batches(pipeline):
                for one in batch:
                    _add(totals[one.pop("_id")], one)
        for edge in period.edges():
            for tally_id, found in (await self._edge(edge)).items():
                if tally_id.scope == scope and isinstance(tally_id.key, str):
                    _add(totals[tally_id.key], {name: found[name] for name in counters if name in found})
        return totals

    async def _of_scope(self, scope: str, period: Period) -> AsyncIterator[tuple[datetime, Key, Counters]]:
        for hours, days in _alike(await self._days(period)):
            async for batch in self._mongo.collection("tallies").batches({"_id": _between(scope, days)}, _columns(hours)):
                for tally in batch:
                    key = tally["_id"]["key"]
                    yield tally["_id"]["start"], key if isinstance(key, str) else tuple(key), _of_hours(tally, hours)
        for edge in period.edges():
            for tally_id, counters in (await self._edge(edge)).items():
                if tally_id.scope == scope:
                    yield tally_id.day, tally_id.key, counters

    async def _by_day_of_key(self, scope: str, key: Key, period: Period) -> dict[datetime, Counters]:
        stored_key = key if isinstance(key, str) else list(key)
        counted: dict[datetime, Counters] = {}
        for hours, days in _alike(await self._days(period)):
            ids = [{"scope": scope, "start": day, "key": stored_key} for day in days]
            for place in range(0, len(ids), IDS_AT_ONCE):
                some = ids[place : place + IDS_AT_ONCE]
                for tally in await self._mongo.collection("tallies").find({"_id": {"$in": some}}, _columns(hours), limit=len(some)):
                    counted[tally["_id"]["start"]] = _of_hours(tally, hours)
        return counted

    async def _days(self, period: Period) -> dict[datetime, range]:
        """The period's full hours by day; of a very long one, only of days that have tallies."""
        if period.end - period.start <= MAX_DAYS_BY_ID * DAY:
            return dict(period.days())
        return {day: hours for day in await self._counted_days(period) if (hours := period.hours_of(day))}

    async def _counted_days(self, period: Period) -> set[datetime]:
        first = period.start.replace(hour=0, minute=0, second=0, microsecond=0)
        days: set[datetime] = set()
        # Both kinds of moment have a scope that sees each of them, with one tally a day.
        for scope in ("all", "performance:"):
            query = {"_id": {"$gte": {"scope": scope, "start": first}, "$lt": {"scope": scope, "start": period.end}}}
            async for batch in self._mongo.collection("tallies").batches(query, {"_id": 1}):
                days.update(tally["_id"]["start"] for tally in batch)
        return days

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


def _alike(hours_of: Mapping[datetime, range]) -> list[tuple[range, list[datetime]]]:
    """Days by the hours asked of them: whole days, and at most two that are not."""
    groups: dict[tuple[int, int], list[datetime]] = defaultdict(list)
    for day, hours in hours_of.items():
        groups[hours.start, hours.stop].append(day)
    return [(range(start, stop), sorted(days)) for (start, stop), days in groups.items()]


def _between(scope: str, days: Sequence[datetime]) -> Document:
    """The ids of a scope's tallies, of `_alike` days: what lies between two whole days of a period is whole, too, or has no tallies."""
    return {"$gte": {"scope": scope, "start": days[0]}, "$lt": {"scope": scope, "start": days[-1] + HOUR}}


def _columns(hours: range) -> Document:
    """Of a tally, what is asked of it: its counters of the day, or those of some hours."""
    return {"day": 1} if len(hours) == DAY_HOURS else {f"hours.{hour}": 1 for hour in hours}


def _of_hours(tally: Document, hours: range) -> Counters:
    if len(hours) == DAY_HOURS:
        return dict(tally.get("day", {}))
    total: Counters = defaultdict(int)
    for hour in hours:
        _add(total, tally.get("hours", {}).get(str(hour), {}))
    return total


def _add(total: Counters, more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
