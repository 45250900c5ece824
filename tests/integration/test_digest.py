"""What a digest says is what a walk through the ledger says: after any traffic, at any moment, wherever its follower was killed."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from prometheus_client import REGISTRY

from collector import touched
from collector.commit import CommitLimits
from collector.fold import FoldWorker
from collector.labels import Combination
from collector.ledger import Ledger
from collector.quarantine import Quarantine
from collector.rebuild import rebuild
from collector.settings import LabelSettings
from collector.touched import bound_touched
from collector.tracking import Tracking
from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Slate, SlateItem
from runtime.errors import Aborted
from runtime.lease import Lease
from runtime.mongo import Collection, Mongo, UpdateOne
from runtime.timestamps import to_timestamp
from server.experiments import digests, follower, recall
from server.experiments.digests import Digests, State
from server.experiments.experiments import Experiments
from server.experiments.follower import DigestFollower
from server.experiments.gathering import Gathered, Gathering
from server.experiments.observed import Group
from server.experiments.running import RunningExperiments
from server.experiments.store import ExperimentStore

START = datetime(2024, 3, 1, 9, tzinfo=UTC)
LIMITS = CommitLimits(capacity_entries=20_000, capacity_bytes=2**26, write_entries=500, writes_at_once=2)
ID = "variety"
VISITS = (pb.METRIC_KIND_DIVERSITY, pb.METRIC_KIND_LATENCY, pb.METRIC_KIND_ERROR_RATE, pb.METRIC_KIND_FALLBACK_RATIO)


class World:
    """A deployment in one process, and people who use it."""

    def __init__(self, mongo: Mongo, seed: int) -> None:
        self.mongo = mongo
        self.draw = random.Random(seed)
        self.now = START
        self.tracking = Tracking(mongo, Ledger.open(mongo, LIMITS), Quarantine(mongo), LabelSettings().policy(), self.clock)
        self.store = ExperimentStore(mongo)
        self.experiments = Experiments(
            mongo, self.store, RunningExperiments(self.store, poll_seconds=60), new_id=lambda: "", clock=self.clock
        )
        self.numbers = count()
        self.sent: list[Interaction] = []
        self.shown: list[Slate] = []

    def clock(self) -> datetime:
        return self.now

    async def start_interleaving(self) -> None:
        await self.experiments.create(
            pb.Experiment(
                experiment_id=ID,
                method=pb.EXPERIMENT_METHOD_INTERLEAVING,
                variants=[pb.Variant(variant_id=name) for name in "ab"],
                overrides={"u-1": "a"},
            )
        )
        await self.experiments.start(ID, "")

    async def start(self, **changed: Any) -> None:
        metric = pb.ExperimentMetric
        await self.experiments.create(
            pb.Experiment(
                experiment_id=ID,
                variants=[pb.Variant(variant_id=name, weight=weight) for name, weight in (("a", 0.5), ("b", 0.25), ("c", 0.25))],
                primary_metric=changed.pop("primary_metric", metric(kind=pb.METRIC_KIND_LABEL, cuped=True)),
                secondary_metrics=[
                    metric(kind=pb.METRIC_KIND_CONVERSION, type="save", cuped=True),
                    metric(kind=pb.METRIC_KIND_CTR),
                    metric(kind=pb.METRIC_KIND_OUTCOME_VALUE, type="revenue", winsor_quantile=0.9, cuped=True),
                    metric(kind=pb.METRIC_KIND_TIME_TO_ACTION, winsor_quantile=0.8),
                    metric(kind=pb.METRIC_KIND_RATING),
                    metric(kind=pb.METRIC_KIND_RETENTION),
                    metric(kind=pb.METRIC_KIND_ENGAGEMENT),
                ],
                guardrails=[metric(kind=kind) for kind in VISITS],
                overrides={"u-1": "a", "u-nobody": "b"},
            )
        )
        await self.experiments.start(ID, "")

    def moment(self) -> datetime:
        """Mostly lately; at times late, before everything, or ahead of the clock."""
        hours = self.draw.choice(
            [self.draw.uniform(-1, 0), self.draw.uniform(-60, 0), self.draw.uniform(-500, 0), self.draw.uniform(0, 20)]
        )
        moment = self.now + timedelta(hours=hours)
        return moment.replace(hour=0, minute=0, second=0) if self.draw.random() < 0.05 else moment.replace(microsecond=0)

    def user(self) -> str:
        return f"u-{min(int(self.draw.expovariate(0.05)), 90)}"

    async def traffic(self, size: int) -> None:
        """Slates, what people do with them and without, outcomes; some are sent again."""
        slates = [self.slate() for _ in range(self.draw.randrange(1, size))]
        self.shown += slates
        interactions = [self.interaction() for _ in range(self.draw.randrange(1, 4 * size))]
        self.sent += interactions
        outcomes = [
            Outcome(
                event_id=f"o-{next(self.numbers)}",
                user_id=self.user(),
                type=self.draw.choice(["revenue", "other"]),
                value=self.draw.lognormvariate(2, 2),
                occur_time=to_timestamp(self.moment()),
            )
            for _ in range(self.draw.randrange(1, size))
        ]
        late = self.draw.random() < 0.3
        if not late:
            await self.tracking.record_slates(slates)
        await self.tracking.track([*interactions, *self.draw.sample(self.sent, min(5, len(self.sent)))])
        await self.tracking.record_outcomes(outcomes)
        if late:
            await self.fold(some=True)
            await self.tracking.record_slates([*slates, *self.draw.sample(self.shown, 1)])
        # As a slate ranked here: with how that went.
        went = [
            UpdateOne(
                {"_id": slate.ranking_id},
                {
                    "$set": {
                        "ml_ranking_applied": self.draw.random() < 0.7,
                        "fallback_reason": self.draw.choice(["", "RANKER_TIMEOUT"]),
                        "diversity_score": self.draw.random(),
                        "rank_seconds": self.draw.random(),
                    }
                },
            )
            for slate in slates
            if self.draw.random() < 0.5
        ]
        await self.mongo.collection("slates").bulk_write(went)

    def slate(self) -> Slate:
        user_id = self.user() if self.draw.random() < 0.95 else ""
        usual = "abc"[len(user_id) * 7 % 3 if user_id else 0]
        return Slate(
            ranking_id=f"r-{next(self.numbers)}",
            user_id=user_id,
            algorithm="x",
            show_time=to_timestamp(self.moment()),
            experiment_id=ID if self.draw.random() < 0.9 else "",
            variant_id="" if not user_id else self.draw.choice([*[usual] * 30, *"abcz"]),
            items=[SlateItem(item_id=f"i-{place}", variant_id=self.draw.choice("ab")) for place in range(self.draw.randrange(1, 6))],
        )

    def interaction(self) -> Interaction:
        kind = self.draw.choice(["view", "click", "click", "save", "rate"])
        slate = self.draw.choice(self.shown) if self.shown and self.draw.random() < 0.7 else None
        # At times with a slate that somebody else was shown.
        own = slate.user_id if slate is not None and slate.user_id and self.draw.random() < 0.9 else self.user()
        moment = self.moment()
        if slate is not None and self.draw.random() < 0.8:
            moment = min(
                slate.show_time.ToDatetime(tzinfo=UTC) + timedelta(minutes=self.draw.randrange(2000)), self.now + timedelta(hours=23)
            )
        return Interaction(
            event_id=f"e-{next(self.numbers)}",
            user_id=own,
            item_id=f"i-{self.draw.randrange(6)}",
            type=kind,
            value=self.draw.randrange(6) if kind == "rate" else None,
            ranking_id=slate.ranking_id if slate else "",
            occur_time=to_timestamp(moment),
        )

    async def fold(self, *, some: bool = False) -> None:
        lease = Lease(self.mongo, "fold", "w", 1e6, self.clock)
        assert await lease.claim()
        worker = FoldWorker(self.mongo, lease, Combination.MAX, batch_entries=37, poll_seconds=1)
        while await worker.fold_once():
            if some and self.draw.random() < 0.4:
                break
        if worker._settling:
            await worker._settling
        await lease.release()

    def follower(self, holder: str = "f") -> DigestFollower:
        lease = Lease(self.mongo, "digests", holder, 1e6, self.clock)
        return DigestFollower(self.mongo, self.store, lease, poll_seconds=1, clock=self.clock)

    async def refresh(self, *, whole: bool = True) -> None:
        following = self.follower()
        while await following.step() and whole:
            pass
        await following._lease.release()

    async def change(self) -> None:
        """Other weights, or other testers."""
        experiment, _ = await self.store.get(ID)
        if self.draw.random() < 0.5:
            shares = [self.draw.randrange(1, 10) for _ in experiment.variants]
            for variant, share in zip(experiment.variants, shares, strict=True):
                variant.weight = share / sum(shares)
            experiment.variants[-1].weight = 1 - sum(variant.weight for variant in experiment.variants[:-1])
        else:
            experiment.overrides[self.user()] = "b"
        await self.experiments.update(experiment)

    async def stop(self) -> None:
        await self.experiments.stop(pb.StopExperimentRequest(experiment_id=ID))

    async def state(self) -> State | None:
        found = await Digests(self.mongo).get(ID)
        return found.state if found else None

    async def agrees(self) -> bool:
        """Whether there is a digest to compare; fails if it says something else than the walk."""
        experiment, _ = await self.store.get(ID)
        found = await recall.recall(self.mongo, experiment, self.now)
        if found is None:
            return False
        gathered, as_of = found
        same(gathered, await Gathering(self.mongo, experiment, as_of=as_of).gather())
        return True


def same(found: Gathered, wanted: Gathered) -> None:
    counts = [(one.mixed_user_count, one.anonymous_slate_count, one.tester_count) for one in (found, wanted)]
    assert counts[0] == counts[1]
    assert found.caps == pytest.approx(wanted.caps, rel=1e-12)
    same_groups(found.groups, wanted.groups)
    assert [period.weights for period in found.periods] == [period.weights for period in wanted.periods]
    for mine, theirs in zip(found.periods, wanted.periods, strict=True):
        same_groups(mine.groups, theirs.groups)
    assert [time for time, _ in found.looks] == [time for time, _ in wanted.looks]
    for (time, some), (_, others) in zip(found.looks, wanted.looks, strict=True):
        same_groups(some, others, str(time))


def same_groups(found: Sequence[Group], wanted: Sequence[Group], where: str = "") -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine.variant_id, mine.user_count, mine.exposure_count) == (theirs.variant_id, theirs.user_count, theirs.exposure_count), (
            where
        )
        assert mine.metrics.keys() == theirs.metrics.keys(), where
        for name, one in mine.metrics.items():
            other = theirs.metrics[name]
            assert (one.converted_count, one.moments.count) == (other.converted_count, other.moments.count), (where, name)
            assert one.moments.mean == pytest.approx(other.moments.mean, rel=1e-9, abs=1e-9), (where, name)
            scale = 1 + math.fsum(other.moments.products.diagonal().tolist())
            assert one.moments.products / scale == pytest.approx(other.moments.products / scale, abs=1e-9), (where, name)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bound is met often."""
    monkeypatch.setattr(follower, "USERS_PER_COMMIT", 9)
    monkeypatch.setattr(follower, "SLATES_PER_COMMIT", 25)
    monkeypatch.setattr("server.experiments.histories.USERS_AT_ONCE", 5)
    monkeypatch.setattr("server.experiments.histories.SLATES_AT_ONCE", 11)
    monkeypatch.setattr(follower, "REVISIONS_AT_ONCE", 2)
    monkeypatch.setattr(digests, "RUNS", 2)
    monkeypatch.setattr(digests, "ROWS_AT_ONCE", 6)
    monkeypatch.setattr(follower, "ROWS_PER_MERGE", 5)
    monkeypatch.setattr(digests, "PART_BYTES", 800)


async def test_a_digest_of_interleaved_rankings_says_what_a_walk_says(mongo: Mongo) -> None:
    world = World(mongo, 5)
    await world.start_interleaving()
    compared = 0
    for _ in range(8):
        await world.traffic(25)
        await world.fold(some=world.draw.random() < 0.4)
        if world.draw.random() < 0.6:
            await world.refresh()
        world.now += timedelta(hours=world.draw.choice([0, 5, 30]))
        compared += await world.agrees()
    assert compared >= 5
    await world.stop()
    await world.refresh()
    assert await world.agrees()
    assert sum(one.user_count for one in (await recalled(world)).groups) > 20


async def recalled(world: World) -> Gathered:
    found = await recall.recall(world.mongo, (await world.store.get(ID))[0], world.now)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("seed", range(4))
async def test_a_digest_says_what_a_walk_says(mongo: Mongo, seed: int) -> None:
    world = World(mongo, seed)
    chosen = (None, pb.METRIC_KIND_CTR, pb.METRIC_KIND_OUTCOME_VALUE, pb.METRIC_KIND_TIME_TO_ACTION)[seed]
    await world.traffic(40)
    await world.start(**({} if chosen is None else {"primary_metric": pb.ExperimentMetric(kind=chosen, name="first")}))
    compared = 0
    for _ in range(14):
        await world.traffic(25)
        draw = world.draw.random
        if draw() < 0.25:
            await world.refresh(whole=draw() < 0.5)
        if draw() < 0.7:
            await world.fold(some=draw() < 0.4)
        if draw() < 0.5:
            await world.refresh()
        if draw() < 0.3:
            await world.change()
        compared += await world.agrees()
        world.now += timedelta(hours=world.draw.choice([0, 0.1, 5, 30, 400 if seed % 2 else 5]))
        compared += await world.agrees()
    assert compared >= 8
    await world.refresh()
    assert await world.agrees()

    await world.stop()
    assert await world.agrees()
    for _ in range(2):
        world.now += timedelta(hours=5)
        await world.traffic(20)
        await world.fold()
        assert await world.agrees()
        await world.refresh()
        assert await world.agrees()


async def test_a_digest_stands_when_its_experiment_has_ended_long_ago(mongo: Mongo) -> None:
    world = World(mongo, 11)
    await world.start()
    await world.traffic(30)
    await world.fold()
    await world.refresh()
    await world.stop()
    await world.traffic(30)
    world.now += follower.LATE + timedelta(days=1)
    await world.fold()
    # It hears of what came before it lets the digest stand.
    await world.refresh()
    assert await world.state() is State.STANDING
    assert await world.agrees()
    await world.refresh()
    assert await mongo.collection("touched_users").count({}, limit=10) == 0
    await world.traffic(30)
    await world.fold()
    assert await mongo.collection("touched_users").count({}, limit=10) == 0
    before = await recall.recall(mongo, (await world.store.get(ID))[0], world.now)
    assert before is not None

    # The next experiment is followed again, from its first user on.
    await world.experiments.create(
        pb.Experiment(
            experiment_id="next",
            variants=[pb.Variant(variant_id=name, weight=0.5) for name in "ab"],
            primary_metric=pb.ExperimentMetric(kind=pb.METRIC_KIND_ENGAGEMENT),
        )
    )
    await world.experiments.start("next", "")
    await world.refresh()
    await world.tracking.record_slates(
        [
            Slate(
                ranking_id="n",
                user_id="n",
                experiment_id="next",
                variant_id="a",
                show_time=to_timestamp(world.now),
                items=[SlateItem(item_id="i")],
            )
        ]
    )
    world.now += timedelta(minutes=1)
    await world.fold()
    await world.refresh()
    found = await recall.recall(mongo, (await world.store.get("next"))[0], world.now)
    assert found is not None
    assert [group.user_count for group in found[0].groups] == [1, 0]
    assert await world.state() is State.STANDING


async def test_a_rebuild_has_digests_made_anew_even_while_one_is_written(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(mongo, 17)
    await world.start()
    await world.traffic(40)
    await world.fold()
    await world.refresh()
    # Somebody lost what became of the impressions, and a digest was made of that.
    await mongo.collection("attributions").delete_many({})
    await world.traffic(40)
    await world.fold()
    await world.refresh()
    commit = DigestFollower._commit

    async def rebuilt_first(self: DigestFollower, *arguments: Any) -> None:
        monkeypatch.setattr(DigestFollower, "_commit", commit)
        await rebuild(mongo, Lease(mongo, "fold", "rebuild", 1e6, world.clock), Combination.MAX, Silent())
        await commit(self, *arguments)

    monkeypatch.setattr(DigestFollower, "_commit", rebuilt_first)
    following = world.follower()
    with pytest.raises(Aborted, match="made anew"):
        await following.step()
    await following._lease.release()
    assert await world.state() is State.STALE
    assert not await world.agrees()
    await world.refresh()
    assert await world.agrees()


class Silent:
    def step(self, description: str, total: int | None = None) -> None: ...

    def advance(self, count: int) -> None: ...


async def test_a_digest_that_stayed_away_too_long_is_made_anew(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(mongo, 18)
    await world.start()
    await world.traffic(40)
    await world.fold()
    await world.refresh()
    await world.traffic(20)
    await world.fold()
    assert not await bound_touched(mongo)
    monkeypatch.setattr(touched, "MOST_REVISIONS", 1)
    assert await bound_touched(mongo)
    assert await mongo.collection("touched_users").count({}, limit=10) == 0
    await world.traffic(20)
    await world.fold()
    assert await mongo.collection("touched_users").count({}, limit=10) == 0
    assert not await world.agrees()
    await world.refresh()
    assert await world.agrees()


async def test_where_there_is_too_much_news_the_readout_says_as_of_when_it_is(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(mongo, 12)
    await world.start()
    await world.traffic(30)
    await world.fold()
    await world.refresh()
    kept = world.now
    before = await recall.recall(mongo, (await world.store.get(ID))[0], world.now)
    assert before is not None
    world.now += timedelta(minutes=7)
    await world.traffic(30)
    await world.fold()
    for bound in ("NEWS_USERS", "NEWS_ROWS"):
        with monkeypatch.context() as patched:
            patched.setattr(recall, bound, 3)
            readout = await world.experiments.results(pb.GetExperimentResultsRequest(experiment_id=ID))
            assert readout.as_of_time.ToDatetime(tzinfo=UTC) == kept
            found = await recall.recall(mongo, (await world.store.get(ID))[0], world.now)
            assert found is not None
            same(found[0], before[0])
        world.experiments._readouts.clear()
    readout = await world.experiments.results(pb.GetExperimentResultsRequest(experiment_id=ID))
    assert readout.as_of_time.ToDatetime(tzinfo=UTC) == world.now


class Killed(BaseException):
    """What ends a follower at a line of its work."""


async def test_broken_off_at_any_operation_a_digest_says_the_same(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(mongo, 13)
    await world.start()
    await world.traffic(40)
    await world.fold()
    left = 0

    async def step(inner: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        return await inner(*arguments, **options)

    names = (
        "find",
        "find_one",
        "find_one_and_update",
        "replace_one",
        "update_one",
        "bulk_write",
        "insert_one",
        "delete_one",
        "delete_many",
    )
    broken, operation = 0, 0
    while True:
        operation += 1
        await world.traffic(6)
        await world.fold(some=True)
        following = world.follower(f"killed {operation}")
        left = operation
        with monkeypatch.context() as patched:
            for name in names:
                inner = getattr(Collection, name)
                patched.setattr(Collection, name, lambda *a, inner=inner, **o: step(inner, *a, **o))
            try:
                while await following.step():
                    pass
            except Killed:
                broken += 1
        finished = left > 0
        await world.agrees()
        await following._lease.release()
        if finished:
            break
    assert broken > 40
    assert await world.agrees()
    assert await world.state() is State.WHOLE


async def test_a_follower_that_lost_the_lease_writes_nothing(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(mongo, 14)
    await world.start()
    await world.traffic(40)
    await world.fold()
    await world.refresh()
    await world.traffic(10)
    await world.fold()
    late = world.follower("late")
    take_in = DigestFollower._commit

    async def other_first(self: DigestFollower, *arguments: Any) -> None:
        """Between what it read and what it writes, another takes over, and there is news of the same users."""
        monkeypatch.setattr(DigestFollower, "_commit", take_in)
        await mongo.collection("leases").update_one({"_id": "digests"}, {"$set": {"until": START - timedelta(days=1)}})
        await world.traffic(40)
        await world.fold()
        await world.refresh()
        await take_in(self, *arguments)

    monkeypatch.setattr(DigestFollower, "_commit", other_first)
    with pytest.raises(Aborted, match="lease"):
        await late.step()
    assert await world.agrees()


async def test_a_follower_works_until_it_is_told_to_stop(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(mongo, 19)
    await world.start()
    await world.traffic(40)
    await world.fold()
    lease = Lease(mongo, "digests", "f", 1e6, world.clock)
    following, stop = DigestFollower(mongo, world.store, lease, poll_seconds=0.01, clock=world.clock), asyncio.Event()
    step = DigestFollower.step

    async def fails_once(self: DigestFollower) -> bool:
        monkeypatch.setattr(DigestFollower, "step", step)
        raise RuntimeError("what nobody thought of")

    monkeypatch.setattr(DigestFollower, "step", fails_once)
    work = asyncio.create_task(following.run(stop))
    async with asyncio.timeout(60):
        while await world.state() is not State.WHOLE:
            await asyncio.sleep(0.01)
        await world.traffic(20)
        await world.fold()
        while await mongo.collection("touched_users").count({}, limit=1):
            await asyncio.sleep(0.01)
        assert not work.done()
        assert REGISTRY.get_sample_value("rankloop_experiment_digest_active") == 1
        assert REGISTRY.get_sample_value("rankloop_experiment_digests_building") == 0
        stop.set()
        await work
    assert await world.agrees()
    assert await Lease(mongo, "digests", "another", 5, world.clock).claim()


async def test_what_changes_while_rows_are_made_calls_for_making_them_again(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(mongo, 16)
    await world.start()
    await world.traffic(40)
    await world.fold()
    await world.refresh()
    await world.traffic(40)
    await world.fold()
    commit = DigestFollower._commit
    changed = (await world.store.get(ID))[0]
    changed.variants[0].weight, changed.variants[1].weight = 0.25, 0.5

    async def other_first(self: DigestFollower, *arguments: Any) -> None:
        monkeypatch.setattr(DigestFollower, "_commit", commit)
        await world.experiments.update(changed)
        world.now += timedelta(hours=3)
        await commit(self, *arguments)

    monkeypatch.setattr(DigestFollower, "_commit", other_first)
    with pytest.raises(Aborted, match="changed meanwhile"):
        await world.follower().step()
    assert await world.agrees()


async def test_weights_that_changed_before_the_digest_heard_of_it_call_for_another(mongo: Mongo) -> None:
    """As where the clock of the one who changed them is behind."""
    world = World(mongo, 15)
    await world.start()
    await world.traffic(40)
    await world.fold()
    world.now += timedelta(hours=2)
    await world.refresh()
    assert await world.agrees()
    world.now -= timedelta(hours=1)
    experiment, _ = await world.store.get(ID)
    experiment.variants[0].weight, experiment.variants[1].weight = 0.25, 0.5
    await world.experiments.update(experiment)
    world.now += timedelta(hours=1)
    assert not await world.agrees()
    await world.refresh()
    assert await world.agrees()
