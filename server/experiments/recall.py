"""A readout's sums from the digest: the same as a walk through the ledger finds, without the walk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any

from collector.fold import MARKED
from collector.receipts import KINDS
from rankloop.v1 import experiment_pb2 as pb
from runtime.lease import followed_from
from runtime.mongo import Long, Mongo
from server.experiments.block import Block, newest
from server.experiments.digests import Digest, Digests, State
from server.experiments.followed import stop_of
from server.experiments.gathering import USERS_PER_TURN, Gathered, Gathering, looks_between
from server.experiments.histories import Histories
from server.experiments.observed import Group, Period
from server.experiments.rows import Outline, Row, row_of
from server.experiments.summing import Caps, Counted, Summing

NEWS_USERS = 20_000
"""Users of whom there may be news, looked up at most."""
NEWS_ROWS = 4_000
"""Rows made on the fly at most. Where there is more news, the readout is as of the digest's own moment, and says so."""
MOST_ANONYMOUS = 100_000_000


async def latest(mongo: Mongo, experiment: pb.Experiment, now: datetime) -> tuple[Gathered, datetime]:
    """What the experiment's readout is made of, and as of when: by its digest, or where there is none by a walk through the ledger."""
    recalled = await recall(mongo, experiment, now)
    if recalled is not None:
        return recalled
    as_of = stop_of(experiment) or now
    return await Gathering(mongo, experiment, as_of=as_of).gather(), as_of


async def recall(mongo: Mongo, experiment: pb.Experiment, now: datetime) -> tuple[Gathered, datetime] | None:
    """What the experiment's readout is made of, and as of when: now, or its end; None: there is no digest that says.

    Where more users did something since than can be read at once, it is as of when the digest was brought up to date.
    """
    outline = Outline.of(experiment)
    async with mongo.snapshot() as session:
        digest = await Digests(mongo).get(experiment.experiment_id, session)
        if digest is None or digest.state not in (State.WHOLE, State.STANDING) or not digest.fits(outline, stop_of(experiment)):
            return None
        since = await followed_from(mongo, "fold", session)
        if digest.state is State.WHOLE and (since is None or since > digest.mark):
            return None  # the fold may have taken in what nobody wrote down for this digest
        as_of = stop_of(experiment) or max(now, digest.as_of)
        reading = _Recall(mongo, experiment, outline, session)
        rows = await reading.news(digest, as_of)
        if rows is None:
            rows, as_of = [], digest.complete_time
        return await reading.gathered(digest.with_first(row.exposure_time for row in rows), rows, as_of), as_of


class _Recall:
    def __init__(self, mongo: Mongo, experiment: pb.Experiment, outline: Outline, session: Any) -> None:
        self._mongo = mongo
        self._experiment = experiment
        self._outline = outline
        self._session = session
        """Everything but the ledger is read as of one moment."""

    async def news(self, digest: Digest, as_of: datetime) -> list[Row] | None:
        """Rows of the users whom the digest does not know as they are; None: too many."""
        if digest.state is State.STANDING:
            return []
        user_ids = await self._touched_since(digest.mark, as_of)
        if user_ids is None:
            return None
        rows: list[Row] = []
        histories = Histories(self._mongo, self._experiment)
        async with aclosing(histories.of(user_ids, as_of)) as batches:
            async for found in batches:
                for place, history in enumerate(found):
                    rows.append(row_of(self._outline, history, as_of))
                    if place % USERS_PER_TURN == 0:
                        await asyncio.sleep(0)  # rankings go on beside a readout
                if len(rows) > NEWS_ROWS:
                    return None
        return rows

    async def _touched_since(self, mark: int, as_of: datetime) -> list[str] | None:
        """Users folded since, those whose entries wait for the fold, and those of whom something has begun to count."""
        users: dict[str, None] = {}
        touched = self._mongo.collection("touched_users")
        async for batch in touched.batches({"_id": {"$gt": Long(mark)}}, sort=[("_id", 1)], batch_size=8, session=self._session):
            users.update((user_id, None) for one in batch for user_id in one["user_ids"])
            if len(users) > NEWS_USERS:
                return None
        for kind in KINDS:
            found = await self._mongo.collection(kind).find(
                MARKED, {"user_id": 1}, limit=NEWS_USERS + 1, hint="pending", session=self._session
            )
            users.update((one["user_id"], None) for one in found)
        due = await self._mongo.collection("awaited_users").find(
            {"time": {"$lt": as_of}}, {"_id": 1}, limit=NEWS_USERS + 1, session=self._session
        )
        users.update((one["_id"], None) for one in due)
        return list(users) if len(users) <= NEWS_USERS else None

    async def gathered(self, digest: Digest, rows: Sequence[Row], as_of: datetime) -> Gathered:
        """Reads the digest, twice where a cap has to be found first."""
        counted = Counted(self._experiment.overrides)
        caps = Caps(self._outline, counted)
        if caps.wanted:
            async for block in self._blocks(rows, changes=False):
                await asyncio.to_thread(caps.add, block)
        anonymous_time, anonymous_count = await self._anonymous(as_of)
        first = digest.with_first(anonymous_time).first_time
        looks = [] if first is None else looks_between(first, as_of)
        found = caps.found()
        summing = Summing(self._outline, counted, found, looks[:-1])
        async for block in self._blocks(rows, changes=True):
            await asyncio.to_thread(summing.add, block)
        periods = self._periods(summing)
        groups = [
            sum((period.groups[place] for period in periods), Group(variant_id=name)) for place, name in enumerate(self._outline.group_ids)
        ]
        primary = self._outline.metrics[0].metric.name
        now = [replace(one, metrics={name: seen for name, seen in one.metrics.items() if name == primary}) for one in groups]
        return Gathered(
            groups,
            periods,
            {},
            list(zip(looks, [*summing.looks(), now], strict=True)) if looks else [],
            found,
            summing.mixed_count,
            anonymous_count,
            summing.tester_count,
        )

    def _periods(self, summing: Summing) -> list[Period]:
        weights = [dict(period.weights) for period in self._experiment.weight_periods]
        weights = weights or [{variant.variant_id: variant.weight for variant in self._experiment.variants}]
        return [Period(weights=some, groups=groups) for some, groups in zip(weights, summing.periods(len(weights)), strict=True)]

    async def _blocks(self, rows: Sequence[Row], *, changes: bool) -> AsyncIterator[Block]:
        """Everybody, some slices after the other, with the news."""
        news = Block.of(self._outline, rows).slices()
        kept = Digests(self._mongo).slices(self._outline, self._experiment.experiment_id, self._session, changes=changes)
        async for numbers, block in kept:
            fresh = [news.pop(number) for number in numbers if number in news]
            yield newest(self._outline, [block, *fresh]) if fresh else block
        for block in news.values():
            yield block

    async def _anonymous(self, as_of: datetime) -> tuple[list[datetime], int]:
        """When the first slate without a user was shown, if any, and how many were."""
        query = {"experiments.id": self._experiment.experiment_id, "user_id": "", "show_time": {"$lt": as_of}}
        slates = self._mongo.collection("slates")
        first = await slates.find(query, {"show_time": 1}, sort=[("show_time", 1)], limit=1, hint="experiment")
        count = await slates.count(query, limit=MOST_ANONYMOUS, hint="experiment") if first else 0
        return [one["show_time"] for one in first], count
