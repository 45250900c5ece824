"""Follows the fold and keeps the digests of experiments up to date, so that a readout need not walk the ledger.

The fold writes down whose figures each of its transactions may have changed. Of those users, the rows of every followed experiment are
made anew from the ledger, by the functions that a walk uses; one transaction appends them, moves the digest's mark and takes away what was
written down. It touches this lease first, so whoever lost it cannot commit. Killed at any line, the same users are read once more.

An experiment without a digest gets one by a full pass in the order of the users' ids, some thousands at a time, beside the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import Counter, Gauge

from collector.fold import oldest_pending
from collector.touched import forget_touched
from rankloop.v1 import experiment_pb2 as pb
from runtime.errors import Aborted, DuplicateKey, Unavailable
from runtime.lease import Lease, follow
from runtime.logs import get_logger
from runtime.mongo import DeleteOne, Document, Long, Mongo, ReplaceOne
from runtime.timestamps import EPOCH, at_millisecond
from server.experiments.block import Block, newest
from server.experiments.digests import Digest, Digests, State, merged_runs
from server.experiments.followed import Followed, Told, awaiting_writes, stop_of
from server.experiments.histories import Histories
from server.experiments.history import History
from server.experiments.rows import Outline
from server.experiments.store import ExperimentStore

log = get_logger("digest")

LATE = timedelta(days=7)
"""After an experiment's end, how long entries are waited for that belong before it."""
USERS_PER_COMMIT = 5_000
"""About as many users are taken in at once; a full pass takes twice as many."""
SLATES_PER_COMMIT = 100_000
"""Of a full pass."""
ROWS_PER_MERGE = 20_000
"""Of several slices, merged in one transaction."""
REVISIONS_AT_ONCE = 20
USERS_PER_TURN = 2

ACTIVE = Gauge("rankloop_experiment_digest_active", "1 while this process keeps the digests of experiments up to date.")
LAG = Gauge(
    "rankloop_experiment_digest_lag_seconds",
    "How far the digests of experiments are behind: the age of the newest moment up to which they are known to be complete.",
)
BUILDING = Gauge("rankloop_experiment_digests_building", "Digests of experiments under way by a full pass; their readouts walk the ledger.")
USERS = Counter("rankloop_experiment_digest_users", "Users whose rows were made anew in a digest.")


class DigestFollower:
    """Works while it holds the lease, stands by while another does."""

    def __init__(self, mongo: Mongo, store: ExperimentStore, lease: Lease, *, poll_seconds: float, clock: Callable[[], datetime]) -> None:
        self._mongo = mongo
        self._store = store
        self._lease = lease
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._stop = asyncio.Event()
        self._complete_time: datetime | None = None
        """Of the digest that is furthest behind; None: nothing is followed here."""
        self._digests = Digests(mongo)
        self._touched = mongo.collection("touched_users")
        self._awaited = mongo.collection("awaited_users")

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then lets go of the lease."""
        self._stop = stop
        while not stop.is_set():
            more = False
            try:
                more = await self.step()
            except (Unavailable, Aborted, DuplicateKey) as error:
                log.warning("digests of experiments interrupted", cause=error.message)
            except Exception as error:
                # Readouts are as of the digests' own moment, and say so; rankings go on.
                log.error("digests of experiments cannot be brought up to date", exc_info=error)
            if self._complete_time is not None:
                LAG.set(max(0.0, (self._now() - self._complete_time).total_seconds()))
            if not more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._poll_seconds)
        ACTIVE.set(0)
        with contextlib.suppress(Unavailable):
            await self._lease.release()

    async def step(self) -> bool:
        """One round; says whether there is a full pass to go on with."""
        if not await self._lease.claim():
            ACTIVE.set(0)
            BUILDING.set(0)
            LAG.set(0)
            self._complete_time = None
            return False
        ACTIVE.set(1)
        followed = await self._followed(self._now())
        if not followed:
            await self._rest()
            return False
        now = self._now()
        await self._refresh(followed, now)
        for one in followed:
            if one.digest.state is State.BUILDING:
                await self._build(one)
        for one in followed:
            await self._merge(one)
        building = sum(one.digest.state is State.BUILDING for one in followed)
        BUILDING.set(building)
        self._complete_time = min((one.digest.complete_time for one in followed if one.stop_time is None), default=now)
        return building > 0

    async def _followed(self, now: datetime) -> list[Followed]:
        """What runs or ended lately, and whose digest is not finished; each with a digest that can go on from where it is."""
        experiments = {one.experiment_id: one for one in await self._store.followed(now - LATE)}
        digests = await self._digests.unfinished()
        for experiment_id in digests.keys() - experiments.keys():
            experiments[experiment_id], _ = await self._store.get(experiment_id)
        if not experiments:
            return []
        since = await follow(self._mongo, "fold")
        sound: dict[str, Digest] = {}
        for experiment_id, digest in digests.items():
            experiment = experiments[experiment_id]
            fits = digest.fits(Outline.of(experiment), stop_of(experiment))
            if fits and digest.mark >= since and digest.state is not State.STALE:
                sound[experiment_id] = digest
        # Those that begin now begin where the others are: what is touched later is still written down.
        mark = max((digest.mark for digest in sound.values()), default=since)
        followed = []
        for experiment_id, experiment in sorted(experiments.items()):
            outline = Outline.of(experiment)
            found = sound.get(experiment_id) or await self._begin(experiment, outline, mark, again=experiment_id in digests)
            if found is not None:
                followed.append(Followed(experiment, outline, found))
        return followed

    async def _begin(self, experiment: pb.Experiment, outline: Outline, mark: int, *, again: bool) -> Digest | None:
        """A digest of nobody, to be filled by a full pass; None: there is one that stands."""
        digest = Digest(
            experiment_id=experiment.experiment_id,
            state=State.BUILDING,
            fingerprint=outline.fingerprint,
            starts=outline.starts,
            mark=mark,
            as_of=EPOCH,
            complete_time=EPOCH,
        )
        known = await self._digests.get(experiment.experiment_id)
        if known is not None and known.state is State.STANDING:
            return None

        async def work(session: Any) -> None:
            await self._lease.next_revision(session)
            await self._digests.empty(digest.experiment_id, session)
            await self._digests.put(digest, session)

        await self._mongo.transact(work, session=self._lease.session)
        log.info("an experiment's digest is made", experiment=digest.experiment_id, again=again)
        return digest

    async def _rest(self) -> None:
        """Nothing is followed: nobody need write anything down."""
        BUILDING.set(0)
        LAG.set(0)
        self._complete_time = None
        await forget_touched(self._mongo)
        if await self._awaited.find({}, {"_id": 1}, limit=1):

            async def work(session: Any) -> None:
                await self._lease.next_revision(session)
                await self._awaited.delete_many({}, session=session)

            await self._mongo.transact(work, session=self._lease.session)

    async def _refresh(self, followed: Sequence[Followed], now: datetime) -> None:
        """Takes in everybody touched so far, and those of whom something begins to count."""
        oldest = await oldest_pending(self._mongo)
        complete = now if oldest is None else min(now, oldest)
        newest_touched = await self._touched.find({}, {"_id": 1}, sort=[("_id", -1)], limit=1)
        mark = min(one.digest.mark for one in followed)
        target = max(mark, int(newest_touched[0]["_id"])) if newest_touched else mark
        while True:
            mark, touched = await self._touched_users(mark, target)
            due = await self._awaited.find({"time": {"$lt": now}}, {"_id": 1}, sort=[("time", 1)], limit=USERS_PER_COMMIT)
            done = mark >= target and len(due) < USERS_PER_COMMIT
            user_ids = list(dict.fromkeys([*touched, *(one["_id"] for one in due)]))
            await self._take_in(followed, user_ids, [one["_id"] for one in due], mark, now, complete if done else None)
            if done:
                return

    async def _touched_users(self, mark: int, target: int) -> tuple[int, list[str]]:
        """Users touched after the mark, of some revisions, and the mark up to which these are all."""
        users: dict[str, None] = {}
        while mark < target and len(users) < USERS_PER_COMMIT:
            query = {"_id": {"$gt": Long(mark), "$lte": Long(target)}}
            async with self._mongo.snapshot() as session:
                found = await self._touched.find(query, sort=[("_id", 1)], limit=REVISIONS_AT_ONCE, session=session)
            for one in found:
                users.update(dict.fromkeys(one["user_ids"]))
                mark = int(one["_id"])
                if len(users) >= USERS_PER_COMMIT:
                    return mark, list(users)
            if len(found) < REVISIONS_AT_ONCE:
                mark = target
        return mark, list(users)

    async def _take_in(
        self, followed: Sequence[Followed], user_ids: Sequence[str], due: Sequence[str], mark: int, now: datetime, complete: datetime | None
    ) -> None:
        """Makes the rows of some users anew, in every experiment. `complete`: then nobody is left, and that is up to when all is in."""
        blocks: dict[str, Block] = {}
        digests: list[Digest] = []
        awaited: dict[str, datetime] = {}
        for one in followed:
            told = Told()
            histories = Histories(self._mongo, one.experiment)
            async with aclosing(histories.of(user_ids, one.stop_time)) as batches:
                async for found in batches:
                    await self._tell(told, one, found, now)
            blocks[one.experiment_id] = await asyncio.to_thread(Block.of, one.outline, told.rows)
            for user_id, moment in told.due.items():
                awaited[user_id] = min(moment, awaited.get(user_id, moment))
            digest = replace(
                one.digest, mark=max(mark, one.digest.mark), as_of=max(one.as_of(now), one.digest.as_of), starts=one.outline.starts
            )
            if complete is not None:
                stands = digest.state is State.WHOLE and one.stop_time is not None and one.stop_time <= now - LATE
                digest = replace(digest, complete_time=one.as_of(complete), state=State.STANDING if stands else digest.state)
            digests.append(digest.with_first(row.exposure_time for row in told.rows))
        writes = [DeleteOne({"_id": user_id}) for user_id in due if user_id not in awaited]
        await self._commit(followed, digests, blocks, [*writes, *awaiting_writes(awaited)], mark)
        USERS.inc(sum(map(len, blocks.values())))

    async def _build(self, one: Followed) -> None:
        """Goes on with a full pass, up to so many users, or fewer who saw much."""
        now = self._now()
        told, blocks, position = Told(), list[Block](), one.digest.position
        count, slates, more = 0, 0, False
        first_times: list[datetime] = []
        async with aclosing(Histories(self._mongo, one.experiment).all(one.stop_time, after=position)) as batches:
            async for histories in batches:
                position, count = histories[-1].user_id, count + len(histories)
                await self._tell(told, one, histories, now)
                first_times += [row.exposure_time for row in told.rows]
                slates += sum(len(history.visits) for history in histories)
                blocks.append(await asyncio.to_thread(Block.of, one.outline, told.rows))
                told.rows.clear()
                more = count >= 2 * USERS_PER_COMMIT or slates >= SLATES_PER_COMMIT
                if more:
                    break
        state = State.BUILDING if more else State.WHOLE
        digest = replace(one.digest, state=state, position=position, as_of=max(one.as_of(now), one.digest.as_of))
        block = await asyncio.to_thread(newest, one.outline, blocks)
        await self._commit([one], [digest.with_first(first_times)], {one.experiment_id: block}, awaiting_writes(told.due), 0)
        USERS.inc(len(block))
        if state is State.WHOLE:
            log.info("an experiment's digest is whole", experiment=one.experiment_id)

    async def _tell(self, told: Told, one: Followed, histories: Sequence[History], now: datetime) -> None:
        """Beside rankings, which go on in between; keeps the lease."""
        for first in range(0, len(histories), USERS_PER_TURN):
            told.take(one, histories[first : first + USERS_PER_TURN], now)
            await asyncio.sleep(0)
        if self._stop.is_set():
            raise Aborted("this process stops; another goes on")
        if not await self._lease.claim():
            raise Aborted("another process keeps the digests of experiments now", reason="LEASE_LOST")

    async def _commit(
        self,
        followed: Sequence[Followed],
        digests: Sequence[Digest],
        blocks: dict[str, Block],
        awaited: Sequence[ReplaceOne[Document] | DeleteOne],
        mark: int,
    ) -> None:
        """All of it or nothing. Raises Aborted if the lease was lost or an experiment changed meanwhile."""
        slices = {experiment_id: block.slices() for experiment_id, block in blocks.items()}
        read = {one.experiment_id: one.experiment.etag for one in followed}

        async def work(session: Any) -> None:
            sequence = await self._lease.next_revision(session)
            if await self._store.etags(list(read), session) != read:
                raise Aborted("an experiment was changed meanwhile; its rows are made anew", reason="CHANGED")
            for digest in digests:
                kept = await self._digests.get(digest.experiment_id, session)
                if kept is None or kept.state is State.STALE:
                    raise Aborted("a digest is to be made anew", reason="CHANGED")
                await self._digests.append(digest.experiment_id, sequence, slices[digest.experiment_id], session)
                await self._digests.put(digest, session)
            await self._awaited.bulk_write(awaited, session=session)
            await self._touched.delete_many({"_id": {"$lte": Long(mark)}}, session=session)

        await self._mongo.transact(work, session=self._lease.session)
        for one, digest in zip(followed, digests, strict=True):
            one.digest = digest

    async def _merge(self, one: Followed) -> None:
        """Merges what was written to a slice bit by bit, some slices at a time."""
        merged: dict[int, tuple[int, Block]] = {}
        for number, runs in (await self._digests.runs(one.experiment_id)).items():
            count = merged_runs([rows for _, rows in runs])
            if count:
                first = runs[-count][0]
                merged[number] = first, await self._digests.slice(one.outline, one.experiment_id, number, first)
            if sum(len(block) for _, block in merged.values()) > ROWS_PER_MERGE:
                await self._replace(one, merged)
                merged = {}
        if merged:
            await self._replace(one, merged)

    async def _replace(self, one: Followed, merged: dict[int, tuple[int, Block]]) -> None:
        async def work(session: Any) -> None:
            sequence = await self._lease.next_revision(session)
            for number, (first, block) in merged.items():
                await self._digests.replace_since(one.experiment_id, number, first, sequence, block, session)

        await self._mongo.transact(work, session=self._lease.session)

    def _now(self) -> datetime:
        return at_millisecond(self._clock())
