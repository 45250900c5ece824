"""Ranking, as a caller sees it: a slate in time, whatever happens to models and workers."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from prometheus_client import Counter

from collector.entries import experiment_note
from ranker.answer import rule_effects
from ranker.arrangement import Manner, NoLikeness, arrange
from ranker.parameters import NO_PARAMETERS, resolve
from ranker.prior import prior_order
from ranker.rules.offered import OfferedCandidates
from ranker.rules.ruling import Effect
from ranker.validation import check
from rankloop.assignment import Assignment, Because
from rankloop.v1.ranking_pb2 import RankedItem, RankRequest, RankResponse
from rankloop.worker.v1 import worker_pb2
from rankloop.worker.v1.worker_pb2 import RankingParameters
from runtime.errors import NotFound, RankloopError
from runtime.logs import get_logger
from runtime.mongo import Document, Mongo
from runtime.timestamps import at_millisecond, to_timestamp
from server.asked import Asked
from server.drafting import Outcome, Ranked, drafted, outcome_of
from server.experiments.interleaving import Team
from server.experiments.running import Interleaving, RunningExperiments, Treatment, counted
from server.news import UserNews
from server.rankers import NoRanker, RankerPool
from server.slates import SlateRecorder, slate_of
from server.surfaces import Surfaces

log = get_logger("server")

SHARE_OF_TIME = 2 / 3
"""Of the caller's time, what a worker may use up before the answer is given without it."""
LOOKUP_SECONDS = 0.25
PRIOR_SCORE = "prior_score"

ANSWERS = Counter("rankloop_rank_answers", "Slates returned, by why no model ranked them (empty: one did).", ["fallback_reason"])
INTERLEAVED = Counter(
    "rankloop_interleaved_slates",
    "Slates of interleaving experiments: drafted from both rankings; control or treatment, where the other was not to be had; neither.",
    ["experiment_id", "outcome"],
)


class Ranking:
    """Ranks, records, and remembers what it answered to a request id. Belongs to one event loop."""

    def __init__(
        self,
        mongo: Mongo,
        pool: RankerPool,
        recorder: SlateRecorder,
        *,
        surfaces: Surfaces,
        news: UserNews,
        experiments: RunningExperiments,
        timeout_seconds: float,
        explain_timeout_seconds: float,
        repeat_capacity: int,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
    ) -> None:
        self._slates = mongo.collection("slates")
        self._pool = pool
        self._recorder = recorder
        self._surfaces = surfaces
        self._news = news
        self._experiments = experiments
        self._timeout_seconds = timeout_seconds
        self._explain_timeout_seconds = explain_timeout_seconds
        self._repeat_capacity = repeat_capacity
        self._new_id = new_id
        self._clock = clock
        self._answered: OrderedDict[str, RankResponse] = OrderedDict()
        self._under_way: dict[str, asyncio.Future[RankResponse]] = {}

    async def rank(self, request: RankRequest, *, remaining_seconds: float | None) -> RankResponse:
        """The slate for a request; the same one for the same user and request id.

        Raises:
            InvalidInput: the request is wrong.
            NotFound: the model it names is not there.
        """
        limit = self._explain_timeout_seconds if request.explain else self._timeout_seconds
        if remaining_seconds is not None:
            limit = min(limit, remaining_seconds * SHARE_OF_TIME)
        if not request.request_id:
            return await self._rank_anew(request, self._new_id(), limit)
        ranking_id = repeated_id(request.user_id, request.request_id)
        if ranking_id in self._under_way:
            return await asyncio.shield(self._under_way[ranking_id])
        known = self._answered.get(ranking_id) or await self._recorded(ranking_id)
        if known is not None:
            return known
        if ranking_id in self._under_way:  # it began while the ledger was read
            return await asyncio.shield(self._under_way[ranking_id])
        under_way: asyncio.Future[RankResponse] = asyncio.get_running_loop().create_future()
        self._under_way[ranking_id] = under_way
        try:
            response = await self._rank_anew(request, ranking_id, limit)
        except BaseException as error:
            failure = error if isinstance(error, RankloopError) else NoRanker("the first call with this request id broke off; try again")
            under_way.set_exception(failure)
            under_way.exception()  # whoever waits hears of it; nobody need wait
            raise
        else:
            under_way.set_result(response)
            self._remember(ranking_id, response)
            return response
        finally:
            del self._under_way[ranking_id]

    async def _rank_anew(self, request: RankRequest, ranking_id: str, limit_seconds: float) -> RankResponse:
        now = at_millisecond(self._clock())
        started = time.perf_counter()
        treatment = self._experiments.treatment(request.surface, request.user_id)
        pair, shown = treatment.interleaving, list(treatment.assignments)
        if pair is None:
            ranked = await self._ranked(request, ranking_id, treatment, now, limit_seconds)
            named = shown[0] if shown else None
        else:
            ranked, variant_id = await self._interleaved(request, ranking_id, pair, now, limit_seconds)
            named = Assignment(pair.experiment_id, variant_id, Because.INTERLEAVED)
            shown = [named if one.experiment_id == pair.experiment_id else one for one in shown]
        response = ranked.response
        ANSWERS.labels(response.fallback_reason).inc()
        note: Document = {}
        if named is not None:
            response.experiment_id, response.variant_id = named.experiment_id, named.variant_id
            if named.propensity is not None:
                response.variant_propensity = named.propensity
            counted(treatment.assignments)
            note = {
                "experiments": [experiment_note(one.experiment_id, one.variant_id, one.propensity) for one in shown],
                "rank_seconds": time.perf_counter() - started,
            }
        if response.items:  # where rules left nothing, nobody was shown anything
            # The answer leaves first: what is written down is made when this call has nothing more to do.
            self._recorder.record_soon(lambda: slate_of(request, response, ranked.served, now) | note)
        return response

    async def _interleaved(
        self, request: RankRequest, ranking_id: str, pair: Interleaving, now: datetime, limit_seconds: float
    ) -> tuple[Ranked, str]:
        """The slate of both rankings, or of the one that was to be had, and the variant whose it is; empty: nobody's alone."""
        found = await asyncio.gather(
            *(self._ranked(request, ranking_id, side, now, limit_seconds) for side in (pair.control, pair.treatment)),
            return_exceptions=True,
        )
        control, treatment = (_or_raise(one) for one in found)
        outcome = outcome_of(control, treatment)
        INTERLEAVED.labels(pair.experiment_id, outcome.value).inc()
        if outcome is Outcome.DRAFTED:
            names = {Team.CONTROL: pair.control_id, Team.TREATMENT: pair.treatment_id}
            return drafted(request, control, treatment, names), ""
        if outcome is Outcome.TREATMENT:
            return treatment, pair.treatment_id
        return control, pair.control_id if outcome is Outcome.CONTROL else ""

    async def _ranked(self, request: RankRequest, ranking_id: str, treatment: Treatment, now: datetime, limit_seconds: float) -> Ranked:
        """One ranking, with the parameters of a treatment; by prior where no worker brings it."""
        parameters = treatment.over(self._surfaces.parameters(request.surface))
        try:
            if treatment.algorithm == PRIOR_SCORE:
                return Ranked(by_prior(request, ranking_id, "", parameters), None, parameters)
            decided = worker_pb2.RankRequest(ranking_id=ranking_id, request_time=to_timestamp(now), parameters=parameters)
            if (heard := self._news.of(request.user_id)) is not None:
                decided.user_news_time.CopyFrom(to_timestamp(heard))
            answer = await self._ask(request, decided, treatment.model_version, limit_seconds)
            return Ranked(answer.response, answer.served, parameters)
        except NoRanker as error:
            return Ranked(by_prior(request, ranking_id, error.reason, parameters), None, parameters)

    async def _ask(
        self, request: RankRequest, decided: worker_pb2.RankRequest, model_version: str, limit_seconds: float
    ) -> worker_pb2.RankResponse:
        """A worker's slate, by the variant's model where the caller pins none; a variant whose model cannot serve is no caller's fault."""
        if not model_version or request.model_version:
            return await self._pool.rank(Asked(request, decided), timeout_seconds=limit_seconds)
        # On the wire the two parts of the request become one: this adds a field to the caller's.
        decided.request.model_version = model_version
        try:
            return await self._pool.rank(Asked(request, decided), timeout_seconds=limit_seconds)
        except NotFound as error:
            log.warning("a variant's model cannot serve", model_version=model_version, reason=error.message)
            raise NoRanker(f"the variant's model {model_version} cannot serve", reason="NO_MODEL") from error

    async def _recorded(self, ranking_id: str) -> RankResponse | None:
        """What the ledger says was answered; None also when it cannot be asked: a ranking does not fail for that."""
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await self._slates.find_one({"_id": ranking_id}, {"response": 1})
        except (RankloopError, TimeoutError):
            log.warning("a repeated request id could not be looked up", ranking_id=ranking_id)
            return None
        return RankResponse.FromString(found["response"]) if found and "response" in found else None

    def _remember(self, ranking_id: str, response: RankResponse) -> None:
        self._answered[ranking_id] = response
        while len(self._answered) > self._repeat_capacity:
            self._answered.popitem(last=False)


def _or_raise(found: Ranked | BaseException) -> Ranked:
    """A ranking; what is wrong with the request is wrong for both, and told once."""
    if isinstance(found, BaseException):
        raise found
    return found


def repeated_id(user_id: str, request_id: str) -> str:
    """The ranking id of a request id: the same on every server."""
    return hashlib.blake2b(f"{len(user_id)}:{user_id}{request_id}".encode(), digest_size=16).hexdigest()


def by_prior(request: RankRequest, ranking_id: str, reason: str, parameters: RankingParameters = NO_PARAMETERS) -> RankResponse:
    """The slate without a worker: by `prior_score`, within the rules, and without chance.

    What only the catalogue knows of candidates (types, tags) is not known here: rules go by what the request says.

    Raises:
        InvalidInput: the request is wrong.
    """
    check(request)
    candidates: Sequence[Any] = request.candidates
    order = prior_order(candidates)
    ids = [candidate.item_id for candidate in request.candidates]
    rules = resolve(request, parameters).rules
    places: Sequence[int] = range(min(request.top_k or len(ids), len(ids)))
    effects: Sequence[Effect] = ()
    if rules:
        offered = OfferedCandidates(ids, [one.item_type for one in candidates], [one.tags for one in candidates])
        relevance = np.array(order.relevances)
        indexes = np.array(order.indexes, dtype=np.int64)
        arranged = arrange(indexes, relevance, NoLikeness(), rules=rules, offered=offered, manner=Manner(count=request.top_k))
        places, effects = arranged.places.tolist(), arranged.effects
    return RankResponse(
        ranking_id=ranking_id,
        items=[
            RankedItem(
                item_id=ids[order.indexes[place]],
                position=position,
                relevance=order.relevances[place],
                score=order.scores[place],
                propensity=1.0,
            )
            for position, place in enumerate(places, start=1)
        ],
        algorithm=order.algorithm,
        fallback_reason=reason,
        rule_effects=rule_effects(effects, ids),
    )
