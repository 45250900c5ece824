"""A ledger of millions of events and what is derived from it, written in bulk: what the fold would make, without its transactions.

Every chunk holds whole slates with all that became of them, so the fold's own function derives it without looking anything up.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from collector.batch import Batch, Folded, fold
from collector.derived import tally_write
from collector.labels import DEFAULT_RULES, Combination, label_of
from collector.tally import TallyId
from rankloop.assignment import Plan, plan_of
from rankloop.v1 import experiment_pb2 as pb
from runtime.mongo import InsertOne, Mongo
from server.experiments import lifecycle
from server.experiments.store import ExperimentStore

DAYS = 30
CACHE_GIGABYTES = 10.0
"""Of the database that keeps a history: about what MongoDB takes by itself on a machine of 24 GB (half of what is there)."""
SLATE_ITEMS = 5
PER_SLATE = 4
"""Interactions with one slate, on average."""
EVENTS_PER_USER = 500
"""Of a regular user. Every other slate is shown to one; the others each to somebody who is seen once."""
EVENTS_PER_ITEM = 100
TYPES, ALGORITHMS, VERSIONS, SURFACES, TIERS = 12, 3, 4, 3, 3
CHUNK_SLATES = 2_000
RULE = Combination.MAX

KINDS = ("view", "view", "view", "click", "click", "save", "implement", "dismiss", "rate", "complete")

EXPERIMENT = pb.Experiment(
    experiment_id="bench",
    hypothesis="Nothing differs: both variants are shown the same.",
    variants=[pb.Variant(variant_id="a", weight=0.5), pb.Variant(variant_id="b", weight=0.5)],
    primary_metric=pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION, type="implement"),
    secondary_metrics=[pb.ExperimentMetric(kind=pb.METRIC_KIND_CTR), pb.ExperimentMetric(kind=pb.METRIC_KIND_LABEL, cuped=True)],
    guardrails=[pb.ExperimentMetric(kind=pb.METRIC_KIND_FALLBACK_RATIO, margin=0.1)],
)
"""Every slate belongs to it: a million users at ten million events."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How much there is."""

    events: int
    """Slates and interactions."""
    end: datetime
    seed: int = 1

    @property
    def begin(self) -> datetime:
        """When its first slate was shown."""
        return self.end - timedelta(days=DAYS)

    @property
    def slate_count(self) -> int:
        """One slate for every PER_SLATE interactions."""
        return self.events // (PER_SLATE + 1)

    @property
    def user_count(self) -> int:
        """Regular users. Grows with the events: a user's own stay as many."""
        return max(10, self.events // (2 * EVENTS_PER_USER))

    @property
    def item_count(self) -> int:
        """Grows with the events, too."""
        return max(50, self.events // EVENTS_PER_ITEM)

    async def write(self, mongo: Mongo, advance: Callable[[int], None]) -> None:
        """Writes ledger, attributions, tallies, catalogue and an experiment; the tallies of a day when the day is over.

        Calls `advance` with the events written.
        """
        await self._catalogue(mongo)
        plan = await self._experiment(mongo)
        tallies: dict[TallyId, dict[tuple[int, str], int]] = defaultdict(lambda: defaultdict(int))
        day = None
        written: asyncio.Future[Any] = asyncio.ensure_future(asyncio.sleep(0))
        chunks = self._chunks(plan)
        # The next chunk is made while the database takes the one before.
        while (made := await asyncio.to_thread(_derived, chunks)) is not None:
            slates, interactions, folded = made
            await written
            if day is not None and slates[-1]["show_time"].date() != day:
                await self._flush(mongo, tallies)
            day = slates[-1]["show_time"].date()
            for tally, counters in folded.tallies.items():
                kept = tallies[tally]
                for at, count in counters.items():
                    kept[at] += count
            attributions = [
                {"_id": {"ranking_id": ranking_id, "item_id": item_id}, "ranking_id": ranking_id, **one.to_document(RULE)}
                for (ranking_id, item_id), one in folded.attributions.items()
            ]
            written = asyncio.gather(
                mongo.collection("slates").insert_many(slates),
                mongo.collection("interactions").insert_many(interactions),
                mongo.collection("attributions").bulk_write([InsertOne(one) for one in attributions]),
            )
            advance(len(slates) + len(interactions))
        await written
        await self._flush(mongo, tallies)

    async def _flush(self, mongo: Mongo, tallies: dict[TallyId, dict[tuple[int, str], int]]) -> None:
        writes = [tally_write(tally, counters, 1) for tally, counters in tallies.items()]
        for first in range(0, len(writes), 5_000):
            await mongo.collection("tallies").bulk_write(writes[first : first + 5_000])
        tallies.clear()

    async def _catalogue(self, mongo: Mongo) -> None:
        items = [
            {"_id": f"item-{number}", "item_type": f"type-{number % TYPES}", "update_time": self.begin} for number in range(self.item_count)
        ]
        for first in range(0, len(items), 5_000):
            await mongo.collection("items").insert_many(items[first : first + 5_000])

    async def _experiment(self, mongo: Mongo) -> Plan:
        store = ExperimentStore(mongo)
        await store.insert(lifecycle.created(EXPERIMENT, EXPERIMENT.experiment_id, self.begin), self.begin)
        running = await store.change(
            EXPERIMENT.experiment_id, "", "start", self.begin, lambda draft, others: (lifecycle.started(draft, others, self.begin), "")
        )
        return plan_of(running)

    def _chunks(self, plan: Plan) -> Iterator[tuple[list[Document], list[Document]]]:
        """Slates in the order of time, each chunk with the interactions of its slates."""
        random = np.random.default_rng(self.seed)
        step = timedelta(days=DAYS) / self.slate_count
        for first in range(0, self.slate_count, CHUNK_SLATES):
            count = min(CHUNK_SLATES, self.slate_count - first)
            users = random.integers(self.user_count, size=count)
            items = (self.item_count * random.random((count, SLATE_ITEMS)) ** 3).astype(int)
            touched = random.integers(2 * PER_SLATE + 1, size=count)
            places = random.integers(SLATE_ITEMS, size=(count, 2 * PER_SLATE))
            kinds = random.integers(len(KINDS), size=(count, 2 * PER_SLATE))
            slates, interactions = list[Document](), list[Document]()
            for row in range(count):
                number = first + row
                show_time = _millisecond(self.begin + number * step)
                user_id = f"guest-{number}" if number % 2 else f"user-{users[row]}"
                # Twice the same item would be no slate.
                chosen = list(dict.fromkeys(items[row].tolist()))
                slates.append(_slate(number, user_id, plan.assign(user_id).variant_id, chosen, show_time))
                for turn in range(touched[row]):
                    place = int(places[row, turn]) % len(chosen)
                    kind = KINDS[kinds[row, turn]]
                    interactions.append(_interaction(number, turn, user_id, chosen[place], place + 1, kind, show_time))
            yield slates, interactions


def _derived(chunks: Iterator[tuple[list[Document], list[Document]]]) -> tuple[list[Document], list[Document], Folded] | None:
    """The next chunk and what follows from it; None: there is none."""
    chunk = next(chunks, None)
    if chunk is None:
        return None
    slates, interactions = chunk
    batch = Batch(interactions=interactions, slates=slates, outcomes=[], folded_slates={}, folded_outcomes=[], attributions={})
    return slates, interactions, fold(batch, RULE)


def _slate(number: int, user_id: str, variant_id: str, items: list[int], show_time: datetime) -> Document:
    return {
        "_id": f"slate-{number:09d}",
        "user_id": user_id,
        "session_id": f"{user_id}-{number // 1000}",
        "surface": f"surface-{number % SURFACES}",
        "algorithm": f"algorithm-{number % ALGORITHMS}",
        "model_version": f"m{number % VERSIONS}",
        "experiment_id": EXPERIMENT.experiment_id,
        "variant_id": variant_id,
        "experiments": [{"id": EXPERIMENT.experiment_id, "variant": variant_id}],
        "ml_ranking_applied": True,
        "show_time": show_time,
        "receive_time": show_time,
        "digest": b"............",
        "items": [
            {"item_id": f"item-{item}", "item_type": f"type-{item % TYPES}", "position": place, "tier": f"tier-{item % TIERS}"}
            for place, item in enumerate(items, start=1)
        ],
    }


def _interaction(slate: int, turn: int, user_id: str, item: int, position: int, kind: str, show_time: datetime) -> Document:
    moment = show_time + timedelta(seconds=3 + 7 * turn)
    value = {"rate": 4.0, "view": 20.0}.get(kind)
    document: Document = {
        "_id": f"event-{slate:09d}-{turn}",
        "user_id": user_id,
        "item_id": f"item-{item}",
        "type": kind,
        "label": label_of(DEFAULT_RULES[kind], value),
        "acts": DEFAULT_RULES[kind].acts,
        "occur_time": moment,
        "receive_time": moment,
        "digest": b"............",
        "position": position,
        "ranking_id": f"slate-{slate:09d}",
        "session_id": f"{user_id}-{slate // 1000}",
        "item_type": f"type-{item % TYPES}",
        "surface": f"surface-{slate % SURFACES}",
    }
    if value is not None:
        document["value"] = value
    return document


def _millisecond(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def newest_hour(now: datetime) -> datetime:
    """The last full hour: where a history ends."""
    return now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
