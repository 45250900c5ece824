"""StatsService's questions, each answered with the time up to which the answer is complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from collector.entries import interaction_message
from collector.fold import LAG_COUNT
from collector.labels import Combination
from collector.receipts import KINDS
from collector.retention import cut_of
from collector.tally import scope_of
from rankloop.v1 import stats_pb2 as pb
from runtime.errors import InvalidInput
from runtime.mongo import Document, Mongo
from runtime.timestamps import EPOCH, at_millisecond, to_timestamp
from server.health.examination import Glance
from server.health.messages import finding_message
from server.paging import last_of, page_size, token_after
from server.statistics.analyses import Analyses
from server.statistics.counted import Counted
from server.statistics.figures import ratio, type_counts
from server.statistics.frame import Frame, check_id, check_ids
from server.statistics.intervals import wilson
from server.statistics.items import item_stats
from server.statistics.performance import add_clustered, grouping_of, performance_row, performance_rows
from server.statistics.period import period_of
from server.statistics.remembered import Remembered
from server.statistics.repeated import clicks_by_user
from server.statistics.times import Times
from server.statistics.types import type_metrics, type_summaries
from server.statistics.users import read_history, user_stats

MAX_TYPES = 64


class Statistics:
    """Reads tallies and, for single users and the edges of periods, the ledger."""

    def __init__(self, mongo: Mongo, rule: Combination, clock: Callable[[], datetime], glance: Glance | None = None) -> None:
        self._mongo = mongo
        self._glance = glance
        self._counted = Counted(mongo, rule)
        self._remembered = Remembered(mongo)
        self.analyses = Analyses(mongo, self._counted, self._remembered, clock)
        self._clock = clock
        self._frame = Frame(mongo, clock)
        self._times = Times(mongo)

    async def item(self, request: pb.GetItemStatsRequest) -> pb.GetItemStatsResponse:
        """Figures of one item."""
        check_id("item_id", request.item_id, required=True)
        period, as_of = await self._frame.asked(request)
        counters = await self._counted.of_key("item", request.item_id, period)
        return await self._frame.framed(pb.GetItemStatsResponse(stats=item_stats(request.item_id, counters)), period, as_of)

    async def user(self, request: pb.GetUserStatsRequest) -> pb.GetUserStatsResponse:
        """Figures of one user."""
        check_id("user_id", request.user_id, required=True)
        period, as_of = await self._frame.asked(request)
        history = await read_history(self._mongo, request.user_id, period)
        stats = user_stats(request.user_id, history, period)
        if (engagement := await self.analyses.engagement_of(request.user_id, period.end)) is not None:
            stats.engagement.CopyFrom(engagement)
            stats.engagement_score = engagement.score
        return await self._frame.framed(pb.GetUserStatsResponse(stats=stats), period, as_of)

    async def close(self) -> None:
        """Breaks off what is being counted for nobody any more."""
        await self._remembered.close()

    async def user_interactions(self, request: pb.ListUserInteractionsRequest) -> pb.ListUserInteractionsResponse:
        """A page of a user's history."""
        check_id("user_id", request.user_id, required=True)
        check_id("item_id", request.item_id, required=False)
        check_id("ranking_id", request.ranking_id, required=False)
        if len(request.types) > MAX_TYPES:
            raise InvalidInput.of("types", "TOO_MANY", f"has {len(request.types)} entries; at most {MAX_TYPES}")
        limit = page_size(request.page_size)
        now = at_millisecond(self._clock())
        period = period_of(request, now, open_ended=True)
        question = _question(request)
        query: dict[str, Any] = {"user_id": request.user_id, "occur_time": {"$gte": period.start, "$lt": period.end}}
        if request.types:
            query["type"] = {"$in": list(request.types)}
        if request.item_id:
            query["item_id"] = request.item_id
        if request.ranking_id:
            query["ranking_id"] = request.ranking_id
        last = last_of(request.page_token, question, int, str)
        if last:
            moment = EPOCH + timedelta(milliseconds=last[0])
            query = {"$and": [query, {"$or": [{"occur_time": {"$lt": moment}}, {"occur_time": moment, "_id": {"$lt": last[1]}}]}]}
        found = await self._mongo.collection("interactions").find(query, sort=[("occur_time", -1), ("_id", -1)], limit=limit + 1)
        more = ""
        if len(found) > limit:
            ended = found[limit - 1]
            more = token_after(question, [(ended["occur_time"] - EPOCH) // timedelta(milliseconds=1), ended["_id"]])
        entries = [_labelled(document) for document in found[:limit]]
        answer = pb.ListUserInteractionsResponse(interactions=entries, next_page_token=more, as_of_time=to_timestamp(now))
        if (cut := await cut_of(self._mongo)) is not None:
            answer.ledger_start_time.CopyFrom(to_timestamp(cut))
        return answer

    async def performance(self, request: pb.GetPerformanceRequest) -> pb.GetPerformanceResponse:
        """Figures of slates, grouped."""
        grouping = grouping_of(request.group_by)
        period, as_of = await self._frame.asked(request)
        rows = await performance_rows(self._counted, grouping, period)
        if request.clustered_intervals:
            add_clustered(rows, grouping, await clicks_by_user(self._mongo, grouping, period))
        return await self._frame.framed(pb.GetPerformanceResponse(rows=rows), period, as_of)

    async def types(self, request: pb.GetTypeMetricsRequest) -> pb.GetTypeMetricsResponse:
        """What became of recommendations, by item type."""
        check_ids("item_types", request.item_types, most=MAX_TYPES)
        period, as_of = await self._frame.asked(request)
        rows = await type_metrics(self._counted, self._times, period, set(request.item_types))
        return await self._frame.framed(pb.GetTypeMetricsResponse(types=rows), period, as_of)

    async def overview(self, request: pb.GetOverviewRequest) -> pb.GetOverviewResponse:
        """The first page."""
        period, as_of = await self._frame.asked(request)

        async def count() -> pb.GetOverviewResponse:
            interactions = await self._counted.by_day("all", "", period)
            shown = await self._counted.by_day(scope_of(()), (), period)
            totals = [_summed(days.values()) for days in (interactions, shown)]
            return pb.GetOverviewResponse(
                interaction_count=totals[0].get("interactions", 0),
                counts=type_counts(totals[0]),
                performance=performance_row({}, totals[1]),
                types=await type_summaries(self._counted, period),
                days=[_day(day, interactions.get(day, {}), shown.get(day, {})) for day in sorted(interactions.keys() | shown.keys())],
            )

        answer = pb.GetOverviewResponse(
            item_count=await self._mongo.collection("items").estimated_count(),
            user_count=await self._mongo.collection("users").estimated_count(),
            pending_count=sum(
                [await self._mongo.collection(kind).count({"pending": {"$exists": True}}, limit=LAG_COUNT) for kind in KINDS]
            ),
            quarantined_count=await self._mongo.collection("quarantine").estimated_count(),
        )
        # Figures are as they were counted while nothing was folded since; what else is here is always of now.
        answer.MergeFrom(await self._remembered.get(("overview", period), count, stale_seconds=0.0))
        champion = await self._mongo.collection("models").find_one({"status": "champion"}, {"create_time": 1})
        if champion:
            answer.champion_version = champion["_id"]
            answer.champion_publish_time.CopyFrom(to_timestamp(champion["create_time"]))
        if self._glance is not None and (examined := await self._glance.look()) is not None:
            answer.findings.extend(finding_message(one) for one in examined.findings)
            answer.findings_time.CopyFrom(to_timestamp(examined.moment))
        return await self._frame.framed(answer, period, as_of)


def _question(request: pb.ListUserInteractionsRequest) -> list[Any]:
    times = [getattr(request, name).ToNanoseconds() if request.HasField(name) else None for name in ("start_time", "end_time")]
    return ["interactions", request.user_id, *times, sorted(request.types), request.item_id, request.ranking_id]


def _labelled(document: Document) -> pb.LabelledInteraction:
    return pb.LabelledInteraction(
        interaction=interaction_message(document), label=document["label"], receive_time=to_timestamp(document["receive_time"])
    )


def _day(day: datetime, interactions: dict[str, int], shown: dict[str, int]) -> pb.DayOverview:
    impressions, clicked = shown.get("impressions", 0), shown.get("clicked", 0)
    return pb.DayOverview(
        day_time=to_timestamp(day),
        interaction_count=interactions.get("interactions", 0),
        slate_count=shown.get("slates", 0),
        impression_count=impressions,
        clicked_impression_count=clicked,
        ctr=ratio(clicked, impressions),
        ctr_interval=wilson(clicked, impressions),
    )


def _summed(days: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    listed: Sequence[dict[str, int]] = list(days)
    for counters in listed:
        for name, count in counters.items():
            total[name] = total.get(name, 0) + count
    return total
