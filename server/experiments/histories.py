"""Where users' histories come from: the ledger, read by user, some hundreds at a time, in the memory of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from itertools import groupby
from typing import Any

from collector.entries import mapping
from rankloop.v1 import experiment_pb2 as pb
from runtime.mongo import Document, Mongo
from server.experiments.history import PAST, Act, Answer, History, Visit
from server.experiments.method import ALL_USERS, interleaves
from server.experiments.metrics import metrics_of

USERS_AT_ONCE = 500
SLATES_AT_ONCE = 10_000
"""Of users who saw many: a batch ends with whoever goes beyond."""

SLATE_COLUMNS = dict.fromkeys(
    (
        *("user_id", "experiments", "show_time", "items.position", "ml_ranking_applied", "fallback_reason", "diversity_score"),
        *("rank_seconds", "context"),
    ),
    1,
)


class Histories:
    """Of an experiment's users: of all, one after the other in the order of their ids, or of some."""

    def __init__(self, mongo: Mongo, experiment: pb.Experiment, *, with_context: bool = False) -> None:
        """`with_context`: visits carry the contexts of their slates."""
        self._slates = mongo.collection("slates")
        self._interactions = mongo.collection("interactions")
        self._outcomes = mongo.collection("outcomes")
        self._attributions = mongo.collection("attributions")
        self._experiment_id = experiment.experiment_id
        self._with_context = with_context
        self._kinds = {one.definition.kind for one in metrics_of(experiment)}
        self._teams: dict[str, int] = {}
        """Of an experiment that interleaves: 1 for its treatment, −1 for its control."""
        self._slate_columns = SLATE_COLUMNS
        if interleaves(experiment):
            control = experiment.control_variant_id
            self._teams = {one.variant_id: -1 if one.variant_id == control else 1 for one in experiment.variants}
            self._slate_columns = SLATE_COLUMNS | {"items.item_id": 1, "items.variant_id": 1}
        self.anonymous_slate_count = 0
        """Slates without a user, met by the last walk through all."""

    async def all(self, end: datetime | None, *, after: str | None = None) -> AsyncGenerator[list[History], None]:
        """Everybody's whose id comes `after` (None: everybody's), as told by what happened before `end` (None: by everything)."""
        self.anonymous_slate_count = 0
        async with aclosing(self._batches({} if after is None else {"user_id": {"$gt": after}}, end)) as batches:
            async for histories in batches:
                yield histories

    async def of(self, user_ids: Sequence[str], end: datetime | None) -> AsyncGenerator[list[History], None]:
        """Those of some users; whoever was shown nothing has none."""
        for first in range(0, len(user_ids), USERS_AT_ONCE):
            some = [one for one in user_ids[first : first + USERS_AT_ONCE] if one]
            async with aclosing(self._batches({"user_id": {"$in": some}}, end)) as batches:
                async for histories in batches:
                    yield histories

    async def _batches(self, users: Mapping[str, Any], end: datetime | None) -> AsyncGenerator[list[History], None]:
        query = {"experiments.id": self._experiment_id, **users}
        waiting, slate_count = list[History](), 0
        async for slates in self._slates_by_user(query, end):
            waiting.append(self._history(slates))
            slate_count += len(slates)
            if len(waiting) >= USERS_AT_ONCE or slate_count >= SLATES_AT_ONCE:
                yield await self._filled(waiting, end)
                waiting, slate_count = [], 0
        if waiting:
            yield await self._filled(waiting, end)

    async def _slates_by_user(self, query: Mapping[str, Any], end: datetime | None) -> AsyncIterator[list[Document]]:
        """The slates of one user after the other, each user's by time."""
        rest: list[Document] = []
        async for batch in self._slates.batches(query, self._slate_columns, sort=[("user_id", 1), ("show_time", 1)], hint="experiment"):
            rest += [slate for slate in batch if end is None or slate["show_time"] < end]
            groups = [list(slates) for _, slates in groupby(rest, key=lambda slate: slate["user_id"])]
            for slates in groups[:-1]:
                if slates[0]["user_id"]:
                    yield slates
                else:
                    self.anonymous_slate_count += len(slates)
            rest = groups[-1] if groups else []
            if rest and not rest[0]["user_id"]:
                self.anonymous_slate_count += len(rest)
                rest = []
        if rest:
            yield rest

    def _history(self, slates: list[Document]) -> History:
        return History(slates[0]["user_id"], [self._visit(slate) for slate in slates])

    def _visit(self, slate: Document) -> Visit:
        return Visit(
            slate["show_time"],
            slate["_id"],
            ALL_USERS if self._teams else next(one["variant"] for one in slate["experiments"] if one["id"] == self._experiment_id),
            len(slate["items"]),
            slate.get("ml_ranking_applied", True),
            slate.get("fallback_reason", ""),
            slate.get("diversity_score"),
            slate.get("rank_seconds"),
            tuple(mapping(slate.get("context", ())).items()) if self._with_context else (),
            self._picks(slate["items"]) if self._teams else {},
        )

    def _picks(self, items: list[Document]) -> dict[str, int]:
        return {item["item_id"]: self._teams[item["variant_id"]] for item in items if item.get("variant_id") in self._teams}

    async def _filled(self, histories: list[History], end: datetime | None) -> list[History]:
        by_user = {history.user_id: history for history in histories}
        by_ranking = {visit.ranking_id: history for history in histories for visit in history.visits}
        moments = {"$gte": min(history.exposure_time for history in histories) - PAST} | ({"$lt": end} if end else {})
        mine = {"user_id": {"$in": list(by_user)}, "occur_time": moments}

        async def interactions() -> None:
            if self._teams:  # clicks upon slates are all that counts
                return
            wanted = dict.fromkeys(("user_id", "occur_time", "type", "label", "value"), 1)
            async for batch in self._interactions.batches(mine, wanted):
                for one in batch:
                    stars = one.get("value") if one["type"] == "rate" else None
                    by_user[one["user_id"]].interactions.append(Act(one["occur_time"], one["type"], one["label"], stars))

        async def outcomes() -> None:
            if pb.METRIC_KIND_OUTCOME_VALUE in self._kinds:
                wanted = dict.fromkeys(("user_id", "occur_time", "type", "value"), 1)
                async for batch in self._outcomes.batches(mine, wanted):
                    for one in batch:
                        by_user[one["user_id"]].outcomes.append(Act(one["occur_time"], one["type"], one.get("value") or 0.0))

        async def answers() -> None:
            if self._kinds & {pb.METRIC_KIND_CTR, pb.METRIC_KIND_TIME_TO_ACTION, pb.METRIC_KIND_PREFERENCE}:
                wanted = dict.fromkeys(("ranking_id", "first_click_time", "first_act_time"), 1)
                async for batch in self._attributions.batches({"ranking_id": {"$in": list(by_ranking)}}, wanted):
                    for one in batch:
                        times = one.get("first_click_time"), one.get("first_act_time")
                        answer = Answer(one["ranking_id"], *times, one["_id"]["item_id"])
                        by_ranking[one["ranking_id"]].answers.append(answer)

        await asyncio.gather(interactions(), outcomes(), answers())
        return histories
