"""A ranking worker: what it knows, and how it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from ranker import metrics
from ranker.answer import encode
from ranker.exploration.exploration import seed_of
from ranker.features.decoding import decode, seconds_of
from ranker.features.scanning import CandidateReaders, Scanned
from ranker.features.schema import FeatureSchema
from ranker.models.loader import ModelLoader
from ranker.parameters import resolve
from ranker.ranking import Scorer, Slate, Wish, rank
from ranker.settings import RankerSettings
from ranker.state.items import ItemState
from ranker.state.users import NO_NEWS, UserHistories
from ranker.validation import check
from rankloop.v1 import ranking_pb2
from rankloop.worker.v1 import worker_pb2
from runtime.admission import MeanSeconds


class Worker:
    """Ranks requests with the item state, the users' histories and the models of this process."""

    def __init__(
        self,
        settings: RankerSettings,
        schema: FeatureSchema,
        items: ItemState,
        users: UserHistories,
        models: ModelLoader,
        *,
        readers: CandidateReaders | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Without `readers` requests are read in Python. `clock` only measures."""
        self._readers = readers
        self._settings = settings
        self._schema = schema
        self._items = items
        self._users = users
        self._models = models
        self._clock = clock
        self._explaining = asyncio.Lock()
        self.busy = MeanSeconds()
        """How long a ranking keeps this process from doing anything else."""

    async def rank(self, asked: worker_pb2.RankRequest) -> worker_pb2.RankResponse:
        """The slate, with the feature values it was ranked by.

        Items that the catalogue calls unavailable or deleted, and items the user dismissed, are ranked like any other: who offers a
        candidate has decided that it may be shown.

        Raises:
            InvalidInput: with every field at fault.
            NotFound: the request names a model that cannot serve.
            StorageError: that model is not in memory, and the registry cannot be read.
        """
        request = asked.request
        marks = [self._clock()]
        embedding_size = self._items.catalogue.embedding_size
        scanned = self._read(request, embedding_size)
        check(request, embedding_size=embedding_size, plain=scanned is not None)
        marks.append(self._clock())
        scorer = await self._models.pinned(request.model_version) if request.model_version else self._models.champion
        columns = decode(request, self._schema if scorer is None else scorer.schema, seconds_of(asked.request_time), scanned)
        marks.append(self._clock())
        news_seconds = seconds_of(asked.user_news_time) if asked.HasField("user_news_time") else NO_NEWS
        history = await self._users.get(request.user_id, news_seconds=news_seconds)
        marks.append(self._clock())
        # Both awaits lie before the item state is read: no poll comes between its parts.
        slate = rank(
            columns,
            schema=self._schema,
            items=self._items,
            history=history,
            scorer=scorer,
            wish=self._wish(asked),
            clock=self._clock,
        )
        if request.explain and scorer is not None:
            slate = await self._explained(slate, scorer)
        marks.append(self._clock())
        answer = encode(slate, candidate_ids=columns.item_ids, ranking_id=asked.ranking_id, schema_hash=self._schema.hash)
        marks.append(self._clock())
        self._observe(slate, marks, candidates=len(columns.item_ids), unknown_names=columns.unknown_names)
        return answer

    def _read(self, request: ranking_pb2.RankRequest, embedding_size: int | None) -> Scanned | None:
        """The candidates off the wire; None: they are to be looked at in Python."""
        if self._readers is None or request.model_version:  # which features that model sees is not known yet
            return None
        champion = self._models.champion
        schema = self._schema if champion is None else champion.schema
        return self._readers.of(schema).read(request, embedding_size=embedding_size)

    def status(self) -> worker_pb2.GetStatusResponse:
        """What this worker serves with."""
        champion = self._models.champion
        return worker_pb2.GetStatusResponse(
            model_version=champion.version if champion else "",
            resident_versions=self._models.resident_versions,
            item_count=self._items.item_count,
            refusal=self._models.refusal,
        )

    async def _explained(self, slate: Slate, scorer: Scorer) -> Slate:
        """The slate with what the scores of its first items are made of.

        That takes some ten milliseconds per item, so it is done on a thread, one slate at a time, and other requests go on.
        """
        began, count = self._clock(), self._settings.explained_items
        async with self._explaining:
            contributions = await asyncio.to_thread(
                scorer.explain, slate.beside[slate.indexes[:count]], beside=slate.beside, limit=self._settings.explained_features
            )
        slate.stage_seconds["explain"] = self._clock() - began
        return replace(slate, contributions=contributions)

    def _wish(self, asked: worker_pb2.RankRequest) -> Wish:
        request, settings = asked.request, self._settings
        parameters = resolve(request, asked.parameters, balance=settings.mmr_lambda, diversifier=settings.diversifier)
        return Wish(
            count=request.top_k,
            balance=parameters.balance,
            diversifier=parameters.diversifier,
            exploration=parameters.exploration,
            seed=seed_of(asked.ranking_id) if parameters.exploration else 0,
            rules=parameters.rules,
        )

    def _observe(self, slate: Slate, marks: list[float], *, candidates: int, unknown_names: int) -> None:
        spans = dict(zip(("validate", "decode", "user", "rank", "encode"), map(float.__sub__, marks[1:], marks), strict=True))
        del spans["rank"]
        stages = spans | slate.stage_seconds
        for stage, seconds in stages.items():
            _STAGES[stage].observe(seconds)
        self.busy.observe(sum(stages.values()) - stages["user"] - stages.get("explain", 0.0))
        metrics.SLATES.labels(slate.algorithm).inc()
        metrics.CANDIDATES.inc(candidates)
        if unknown_names:
            metrics.UNKNOWN_NAMES.inc(unknown_names)


# Looked up once: `labels` takes a lock and a tuple on each call.
_STAGES = {stage: metrics.STAGE_SECONDS.labels(stage) for stage in metrics.STAGES}
