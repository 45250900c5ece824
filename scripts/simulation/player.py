"""Plays a world against a running server, as a caller's backend would: over the public API, and with nothing of what is hidden."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from rankloop.v1 import catalog_pb2, catalog_pb2_grpc, ranking_pb2, ranking_pb2_grpc, tracking_pb2, tracking_pb2_grpc
from scripts.connection import Connection
from scripts.simulation.behaviour import Act, Habits, react
from scripts.simulation.failure import Failed
from scripts.simulation.priors import Priors
from scripts.simulation.seeds import generator
from scripts.simulation.truth import Truth, ndcg
from scripts.simulation.visits import Visit, arrivals, diversity, offer
from scripts.simulation.world import DEVICES, TIERS, TYPES, Integers, World

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a world is played."""

    candidate_count: int = 50
    """Items offered per request."""
    top_k: int = 10
    """Items served per request."""
    concurrency: int = 16
    """Visits under way at once."""
    batch_size: int = 200
    """Interactions per call, 1 to 1,000."""
    speed: float = 100.0
    """How much faster people live than the clock runs: a read of 30 s is over 0.3 s after the slate was shown. A user comes again
    within seconds here; at speed 1 what a user did would lie in the future of that user's next visit. Times that interactions carry
    as a value (the seconds of a view) are the people's own."""


@dataclass(slots=True, kw_only=True)
class Play:
    """What came of a phase."""

    visits: list[Visit] = field(default_factory=list)
    """In the order in which they ended."""
    accepted_count: int = 0
    duplicate_count: int = 0
    """Interactions that the server had already: an answer got lost and they were sent again."""
    rejected_count: int = 0
    first_rejection: str = ""
    seconds: float = 0.0

    @property
    def served(self) -> Counter[str]:
        """Slates by what ranked them: a model's version, or the reason of the fallback."""
        return Counter(visit.model_version or visit.fallback_reason or "fallback" for visit in self.visits)


class Player:
    """A caller's backend with its users. One player may play several phases."""

    def __init__(
        self,
        connection: Connection,
        world: World,
        truth: Truth,
        priors: Priors,
        *,
        run_id: str,
        pace: Pace | None = None,
        habits: Habits | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            run_id: part of every id that is sent; no other run against the same server may have it.
            now: seconds since the epoch.
        """
        self._connection, self.world, self.truth, self.priors = connection, world, truth, priors
        self._run_id, self._pace, self._habits, self._now = run_id, pace or Pace(), habits or Habits(), now
        self._catalog = catalog_pb2_grpc.CatalogServiceStub(connection.channel)
        self._ranking = ranking_pb2_grpc.RankingServiceStub(connection.channel)

    async def publish(self) -> None:
        """Sends the catalogue and the users. Failed when the server refuses any of them, CallFailed when it refuses the call."""
        items, users = self.items(), self.users()
        rejected: list[tracking_pb2.Rejection] = []
        for start in range(0, len(items), 500):
            request = catalog_pb2.UpsertItemsRequest(items=items[start : start + 500])
            rejected += (await self._connection.call(self._catalog.UpsertItems, request)).rejected
        for start in range(0, len(users), 500):
            people = catalog_pb2.UpsertUsersRequest(users=users[start : start + 500])
            rejected += (await self._connection.call(self._catalog.UpsertUsers, people)).rejected
        if rejected:
            first = rejected[0]
            raise Failed(f"the server refused {len(rejected)} items or users, the first for {first.field}: {first.description}")

    def items(self) -> list[catalog_pb2.Item]:
        """The catalogue as the caller knows it."""
        catalogue, now = self.world.catalogue, self._now()
        return [
            catalog_pb2.Item(
                item_id=catalogue.ids[index],
                item_type=TYPES[catalogue.types[index]],
                tags=catalogue.tag_names(index),
                attributes={"tier": TIERS[catalogue.tiers[index]]},
                numbers={"cost": float(catalogue.prices[index]), "roi_potential": float(catalogue.appraisals[index])},
                create_time=_timestamp(now - DAY_SECONDS * float(catalogue.ages_days[index])),
            )
            for index in range(len(catalogue))
        ]

    def users(self) -> list[catalog_pb2.User]:
        """The users as the caller knows them."""
        people = self.world.people
        return [
            catalog_pb2.User(
                user_id=people.ids[index],
                attributes={"device": DEVICES[people.devices[index]]},
                numbers={"budget": float(people.stated_budgets[index])},
            )
            for index in range(len(people))
        ]

    async def play(
        self, phase: str, slate_count: int, on_visit: Callable[[], None] = lambda: None, *, users: Sequence[int] | None = None
    ) -> Play:
        """Plays `slate_count` visits; a user's visits come one after another, those of different users side by side.

        Args:
            phase: names the draws: who comes when, what is offered, how people feel that day.
            on_visit: called after every visit.
            users: who comes, in their order, one visit each; None: as `arrivals` draws them.

        Raises:
            CallFailed: the server refused a call, or stayed away.
            Failed: a slate was not what was asked for.
        """
        play, outbox, began = Play(), Outbox(self._connection, self._pace.batch_size), time.monotonic()
        coming = enumerate(arrivals(self.world, slate_count, phase).tolist() if users is None else users[:slate_count])
        busy = [asyncio.Lock() for _ in self.world.people.ids]

        async def work() -> None:
            for number, user in coming:
                async with busy[user]:
                    visit, interactions = await self._visit(phase, number, user)
                play.visits.append(visit)
                await outbox.put(interactions)
                on_visit()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._pace.concurrency):
                    group.create_task(work())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        await outbox.empty()
        play.accepted_count, play.duplicate_count = outbox.accepted_count, outbox.duplicate_count
        play.rejected_count, play.first_rejection = outbox.rejected_count, outbox.first_rejection
        play.seconds = time.monotonic() - began
        return play

    def request(self, user: int, candidates: Integers, request_id: str = "") -> ranking_pb2.RankRequest:
        """What the caller asks for: its candidates with its guess and the numbers it has."""
        catalogue, people = self.world.catalogue, self.world.people
        return ranking_pb2.RankRequest(
            user_id=people.ids[user],
            session_id=request_id,
            surface="home",
            context={"device": DEVICES[people.devices[user]]},
            candidates=[
                ranking_pb2.Candidate(
                    item_id=catalogue.ids[index],
                    item_type=TYPES[catalogue.types[index]],
                    prior_score=self.priors.scores[user, index],
                    features={"cost": catalogue.prices[index], "roi_potential": catalogue.appraisals[index]},
                )
                for index in candidates.tolist()
            ],
            top_k=self._pace.top_k,
            request_id=request_id,
        )

    async def _visit(self, phase: str, number: int, user: int) -> tuple[Visit, list[tracking_pb2.Interaction]]:
        """One visit: the caller asks, the user looks and acts."""
        visit_id = f"{self._run_id}-{phase}-{number}"
        draws = generator(self.world.seed, "visit", phase, number)
        candidates = offer(len(self.world.catalogue), self._pace.candidate_count, draws)
        response = await self._connection.call(self._ranking.Rank, self.request(user, candidates, visit_id))
        shown_at = self._now()
        places = {self.world.catalogue.ids[index]: index for index in candidates.tolist()}
        try:
            served = np.array([places.pop(item.item_id) for item in response.items], dtype=np.int64)
        except KeyError as missing:
            raise Failed(f"slate {response.ranking_id} holds {missing}, which was not offered or stands in it twice") from None
        wanted = min(self._pace.top_k or len(candidates), len(candidates))
        if len(served) != wanted:
            raise Failed(f"slate {response.ranking_id} has {len(served)} items where {wanted} were asked for")
        appeals, utilities = self.truth.appeals[user], self.truth.utilities[user]
        acts = react(self.world.people.attention_exponents[user], appeals[served], utilities[served], draws, self._habits)
        visit = Visit(
            user=user,
            ndcg=ndcg(utilities[served], utilities[candidates]),
            diversity=diversity(self.world, served),
            impression_count=len(served),
            clicked_impression_count=len({act.position for act in acts if act.type == "click"}),
            click_count=sum(act.type == "click" for act in acts),
            implement_count=sum(act.type == "implement" for act in acts),
            interaction_count=len(acts),
            model_version=response.model_version if response.ml_ranking_applied else "",
            fallback_reason=response.fallback_reason,
        )
        return visit, [
            self._interaction(act, user, served, response.ranking_id, visit_id, place, shown_at) for place, act in enumerate(acts)
        ]

    def _interaction(
        self, act: Act, user: int, served: Integers, ranking_id: str, visit_id: str, place: int, shown_at: float
    ) -> tracking_pb2.Interaction:
        """An act as the caller reports it."""
        catalogue = self.world.catalogue
        index = int(served[act.position - 1])
        interaction = tracking_pb2.Interaction(
            event_id=f"{visit_id}-{place}",
            user_id=self.world.people.ids[user],
            item_id=catalogue.ids[index],
            type=act.type,
            occur_time=_timestamp(shown_at + act.delay_seconds / self._pace.speed),
            ranking_id=ranking_id,
            position=act.position,
            session_id=visit_id,
            item_type=TYPES[catalogue.types[index]],
            surface="home",
            dropoff_point=act.dropoff_point,
            context={"device": DEVICES[self.world.people.devices[user]]},
        )
        if act.seconds is not None:
            interaction.value = act.seconds
        return interaction


class Outbox:
    """Interactions on their way: whoever fills a batch sends it, so no more batches are under way than there are visits."""

    def __init__(self, connection: Connection, batch_size: int) -> None:
        self._connection, self._batch_size = connection, batch_size
        self._tracking = tracking_pb2_grpc.TrackingServiceStub(connection.channel)
        self._waiting: list[tracking_pb2.Interaction] = []
        self.accepted_count = self.duplicate_count = self.rejected_count = 0
        self.first_rejection = ""

    async def put(self, interactions: list[tracking_pb2.Interaction]) -> None:
        """Takes interactions, and sends what makes a full batch."""
        self._waiting += interactions
        while len(self._waiting) >= self._batch_size:
            await self._send_one()

    async def empty(self) -> None:
        """Sends what is left."""
        while self._waiting:
            await self._send_one()

    async def _send_one(self) -> None:
        batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
        request = tracking_pb2.TrackInteractionsRequest(interactions=batch)
        response = await self._connection.call(self._tracking.TrackInteractions, request)
        self.accepted_count += response.accepted_count
        self.duplicate_count += response.duplicate_count
        self.rejected_count += len(response.rejected)
        if response.rejected and not self.first_rejection:
            first = response.rejected[0]
            self.first_rejection = f"{first.field}: {first.description}"


def _timestamp(seconds: float) -> Timestamp:
    """A moment, to the millisecond."""
    stamp = Timestamp()
    stamp.FromMilliseconds(round(seconds * 1000))
    return stamp
