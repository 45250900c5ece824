"""Bandits and guardrails on a real MongoDB: weights that follow, nobody moved for nothing, one server at a time, and every change told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from prometheus_client import REGISTRY

from rankloop.assignment import Because, place_of, plan_of
from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1.tracking_pb2 import Interaction, Slate, SlateItem
from runtime.errors import FailedPrecondition
from runtime.lease import Lease
from runtime.mongo import Mongo
from runtime.timestamps import to_timestamp
from server.experiments.experiments import Experiments
from server.experiments.keeper import LEASE_NAME, LEASE_SECONDS, ExperimentKeeper
from server.experiments.lifecycle import weights_of
from server.experiments.running import RunningExperiments
from server.experiments.store import ExperimentStore
from tests.integration.measured import store
from tests.recount import Sent

START = datetime(2024, 3, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)
RATES = {"a": 0.28, "b": 0.36, "c": 0.25}
ANYBODY = [f"anybody-{number}" for number in range(3000)]


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Server:
    """What a server has of experiments."""

    def __init__(self, mongo: Mongo, clock: Clock, name: str = "one") -> None:
        keeper_store = ExperimentStore(mongo)
        self.running = RunningExperiments(keeper_store, poll_seconds=0.01)
        self.experiments = Experiments(mongo, keeper_store, self.running, new_id=lambda: "made", clock=clock)
        self.lease = Lease(mongo, LEASE_NAME, name, LEASE_SECONDS, clock)
        self.keeper = ExperimentKeeper(self.experiments, keeper_store, self.running, self.lease, watch=timedelta(minutes=10), clock=clock)

    async def tick(self) -> None:
        await self.running.refresh()
        await self.keeper.attend()

    def arms(self, users: Sequence[str] = ANYBODY) -> dict[str, str]:
        return {user: self.running.treatment("home", user).assignments[0].variant_id for user in users}


def wanted(**changed: object) -> pb.Experiment:
    fields: dict[str, object] = {
        "experiment_id": "e",
        "surface": "home",
        "variants": [pb.Variant(variant_id=name, weight=weight) for name, weight in zip("abc", (0.34, 0.33, 0.33), strict=True)],
        "primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION, type="save"),
        "bandit": pb.Bandit(),
    }
    return pb.Experiment(**(fields | changed))  # type: ignore[arg-type]


def came(
    server: Server, prefix: str, count: int, at: datetime, rates: Mapping[str, float], fallback: Callable[[str], bool] | None = None
) -> Sent:
    """Users who come to the surface around a time, and of whom some save something."""
    draw = random.Random(prefix)
    slates, interactions = [], []
    for number in range(count):
        user_id = f"{prefix}-{number}"
        found = server.running.treatment("home", user_id).assignments[0]
        shown = at + timedelta(seconds=draw.randrange(3600))
        slates.append(
            Slate(
                ranking_id=f"r-{user_id}",
                user_id=user_id,
                surface="home",
                show_time=to_timestamp(shown),
                experiment_id="e",
                variant_id=found.variant_id,
                variant_propensity=found.propensity,
                items=[SlateItem(item_id="i", position=1)],
            )
        )
        if draw.random() < rates[found.variant_id]:
            interactions.append(
                Interaction(
                    event_id=f"s-{user_id}",
                    user_id=user_id,
                    item_id="i",
                    type="save",
                    ranking_id=f"r-{user_id}",
                    occur_time=to_timestamp(shown + timedelta(seconds=60)),
                )
            )
    return Sent(catalogue={"i": "type"}, slates=slates, interactions=interactions)


def counted(name: str, outcome: str) -> float:
    return REGISTRY.get_sample_value(f"rankloop_experiment_{name}_total", {"experiment_id": "e", "outcome": outcome}) or 0.0


async def actions(server: Server) -> list[tuple[str, str]]:
    _, changes = await server.experiments.get("e")
    return [(change.action, change.description) for change in changes]


async def begun(mongo: Mongo, clock: Clock, **changed: object) -> Server:
    server = Server(mongo, clock)
    await server.experiments.create(wanted(**changed))
    await server.experiments.start("e", "")
    return server


async def test_the_best_variant_gets_the_users_and_nobody_moves_for_nothing(mongo: Mongo) -> None:
    clock = Clock()
    server = await begun(mongo, clock)
    best = []
    for day in range(4):
        await store(mongo, came(server, f"day-{day}", 500, START + day * DAY, RATES), seed=day)
        before, arms = server.running.experiments[0], server.arms()
        clock.now = START + (day + 1) * DAY - timedelta(seconds=1)
        await server.tick()
        assert len(await actions(server)) == 2 + day, "weights moved before they were due"
        clock.now = START + (day + 1) * DAY
        await server.tick()
        after = server.running.experiments[0]
        weights = weights_of(after)
        assert weights != weights_of(before)
        assert min(weights.values()) >= 0.05 - 1e-12
        assert dict(after.weight_periods[-1].weights) == weights
        assert after.weight_periods[-1].start_time == to_timestamp(clock.now)
        best.append(weights["b"])
        # Exactly those move whose place was given: as many as the variants that shrank gave, and each to one that grew.
        moved = {user: (arms[user], arm) for user, arm in server.arms().items() if arm != arms[user]}
        shrank = {name for name in weights if weights[name] < weights_of(before)[name]}
        assert all(old in shrank and new not in shrank for old, new in moved.values())
        given = sum(weights_of(before)[name] - weights[name] for name in shrank)
        assert len(moved) / len(arms) == pytest.approx(given, abs=0.03)
    assert best[-1] > 0.6 > 0.33
    told = await actions(server)
    assert [action for action, _ in told] == ["create", "start", *["reweight"] * 4]
    assert told[2][1].startswith("a 34.0% → ")
    assert told[2][1].endswith("500 users in 1 period")
    assert "probability to be best by conversion:save: a 0." in told[2][1]
    # What was recorded with the slates is the weight of the time.
    documents = await mongo.collection("slates").find(
        {}, {"variant_id": 1, "variant_propensity": 1, "experiments": 1, "show_time": 1}, limit=5000
    )
    periods = [(period.start_time.ToDatetime(UTC), dict(period.weights)) for period in server.running.experiments[0].weight_periods]
    assert len(documents) == 2000
    for document in documents:
        weight = [weights for since, weights in periods if since <= document["show_time"]][-1][document["variant_id"]]
        assert document["variant_propensity"] == pytest.approx(weight)
        assert document["experiments"] == [{"id": "e", "variant": document["variant_id"], "propensity": document["variant_propensity"]}]
    found = await server.experiments.results(pb.GetExperimentResultsRequest(experiment_id="e"))
    assert not found.sample_ratio.void
    assert sum(variant.user_count for variant in found.variants) == 2000
    assert found.metrics[0].comparisons[0].absolute_fixed.value > 0, "b against a, within periods"


async def test_what_was_missed_is_made_up_once_and_a_restart_moves_nobody(mongo: Mongo) -> None:
    clock = Clock()
    server = await begun(mongo, clock)
    await store(mongo, came(server, "u", 600, START, RATES), seed=1)
    clock.now = START + 6 * DAY
    await server.tick()
    for _ in range(5):
        clock.now += timedelta(hours=1)
        await server.tick()
    assert [action for action, _ in await actions(server)] == ["create", "start", "reweight"]
    arms = server.arms()
    restarted = Server(mongo, clock, "two")
    await restarted.running.refresh()
    assert restarted.arms() == arms
    await server.lease.release()
    await restarted.tick()
    assert len(await actions(restarted)) == 3
    assert restarted.arms() == arms


async def test_of_two_servers_one_acts_and_the_other_takes_over_when_it_is_gone(mongo: Mongo) -> None:
    clock = Clock()
    first = await begun(mongo, clock)
    second = Server(mongo, clock, "two")
    await store(mongo, came(first, "u", 600, START, RATES), seed=1)
    clock.now = START + DAY
    await asyncio.gather(first.tick(), second.tick())
    assert [action for action, _ in await actions(first)] == ["create", "start", "reweight"]
    await first.running.refresh()
    await store(mongo, came(first, "v", 600, clock.now, {"a": 0.9, "b": 0.1, "c": 0.1}), seed=2)
    clock.now = START + 2 * DAY + timedelta(seconds=1)
    for server in (second, first, second):
        await server.tick()
    assert [action for action, _ in await actions(first)][2:] == ["reweight"] * 2


async def test_two_who_both_believe_it_is_theirs_change_once(mongo: Mongo) -> None:
    """As when a readout outlives its lease: the second names an etag that is no more."""
    clock = Clock()
    first = await begun(mongo, clock)
    second = Server(mongo, clock, "two")
    second.keeper._lease = Lease(mongo, "another", "two", LEASE_SECONDS, clock)
    await store(mongo, came(first, "u", 600, START, RATES), seed=1)
    clock.now = START + DAY
    overtaken = counted("weight_updates", "overtaken")
    await asyncio.gather(first.running.refresh(), second.running.refresh())
    await asyncio.gather(first.keeper.attend(), second.keeper.attend())
    assert [action for action, _ in await actions(first)] == ["create", "start", "reweight"]
    assert counted("weight_updates", "overtaken") == overtaken + 1


async def test_weights_stay_where_little_is_known_and_nobody_sets_them_by_hand(mongo: Mongo) -> None:
    clock = Clock()
    server = await begun(mongo, clock, bandit=pb.Bandit(update_interval=Duration(seconds=3600), min_users=200))
    await store(mongo, came(server, "u", 300, START, RATES), seed=1)
    few = counted("weight_updates", "too_few")
    clock.now = START + timedelta(hours=2)
    await server.tick()
    await server.tick()
    assert counted("weight_updates", "too_few") == few + 1
    clock.now += timedelta(minutes=11)
    await server.tick()
    assert counted("weight_updates", "too_few") == few + 2
    assert len(await actions(server)) == 2
    by_hand, _ = await server.experiments.get("e")
    by_hand.variants[0].weight, by_hand.variants[1].weight = 0.6, 0.07
    with pytest.raises(FailedPrecondition, match="is a bandit: its weights follow"):
        await server.experiments.update(by_hand)
    # More users, and it moves; an editor who read it before is told.
    read, _ = await server.experiments.get("e")
    await store(mongo, came(server, "v", 600, clock.now, RATES), seed=2)
    clock.now += timedelta(hours=2)
    await server.tick()
    assert (await actions(server))[-1][0] == "reweight"
    read.hypothesis = "Other words."
    with pytest.raises(Exception, match="was changed since it was read"):
        await server.experiments.update(read)


async def test_a_tester_has_no_propensity(mongo: Mongo) -> None:
    server = await begun(mongo, Clock(), overrides={"tester": "c"})
    (found,) = server.running.treatment("home", "tester").assignments
    assert (found.variant_id, found.because, found.propensity) == ("c", Because.OVERRIDDEN, None)
    told = await server.experiments.assignment(pb.GetAssignmentRequest(experiment_id="e", user_id="tester"))
    assert not told.HasField("variant_propensity")
    user = next(user for user in ANYBODY if place_of("default", "e", user) < 0.34)
    told = await server.experiments.assignment(pb.GetAssignmentRequest(experiment_id="e", user_id=user))
    assert (told.variant_id, told.variant_propensity) == ("a", pytest.approx(0.34))
    assert plan_of(server.running.experiments[0]).assign(user).propensity == told.variant_propensity


async def test_shares_that_are_not_as_they_should_be_move_nothing(mongo: Mongo) -> None:
    clock = Clock()
    server = await begun(mongo, clock)
    sent = came(server, "u", 900, START, RATES)
    sent.slates[:] = [slate for number, slate in enumerate(sent.slates) if slate.variant_id != "c" or number % 2]
    await store(mongo, sent, seed=1)
    void = counted("weight_updates", "void")
    clock.now = START + DAY
    await server.tick()
    assert counted("weight_updates", "void") == void + 1
    assert len(await actions(server)) == 2


GUARDED: dict[str, object] = {
    "bandit": None,
    "primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_ENGAGEMENT),
    "guardrails": [pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION, type="save", margin=0.1)],
}


async def test_harm_stops_what_asks_for_it_and_says_why(mongo: Mongo) -> None:
    clock = Clock()
    server = await begun(mongo, clock, stop_on_breach=True, **GUARDED)
    stopped = counted("breach_looks", "stopped")
    await store(mongo, came(server, "u", 1200, START, {"a": 0.3, "b": 0.3, "c": 0.0}), seed=1)
    clock.now = START + timedelta(hours=3)
    await server.tick()
    found, changes = await server.experiments.get("e")
    assert (found.state, found.stop_time.ToDatetime(UTC)) == (pb.EXPERIMENT_STATE_STOPPED, clock.now)
    assert found.verdict.startswith("Stopped by itself, a guardrail is breached: conversion:save of c is -0.")
    assert "against a (95% interval -0." in found.verdict
    assert (changes[-1].action, changes[-1].description, changes[-1].etag) == ("stop_on_breach", found.verdict, found.etag)
    assert list(server.running.treatment("home", "somebody").assignments) == []
    assert counted("breach_looks", "stopped") == stopped + 1
    # It is over: nobody looks again. What is to be learned from it may still be said.
    clock.now += timedelta(hours=1)
    await server.tick()
    assert counted("breach_looks", "stopped") == stopped + 1
    ended = await server.experiments.stop(pb.StopExperimentRequest(experiment_id="e", winner_variant_id="b", verdict="b, for all."))
    assert (ended.state, ended.verdict) == (pb.EXPERIMENT_STATE_CONCLUDED, "b, for all.")


async def test_what_breaches_nothing_or_did_not_ask_runs_on(mongo: Mongo) -> None:
    clock = Clock()
    server = await begun(mongo, clock, stop_on_breach=True, **GUARDED)
    sound = counted("breach_looks", "sound")
    await store(mongo, came(server, "u", 600, START, {"a": 0.3, "b": 0.3, "c": 0.3}), seed=1)
    for minutes, looks in ((180, 1), (185, 1), (191, 2)):
        clock.now = START + timedelta(minutes=minutes)
        await server.tick()
        assert counted("breach_looks", "sound") == sound + looks
    # It may be asked for, or no more, while it runs; then the harm is there and nobody stops it.
    found, _ = await server.experiments.get("e")
    found.stop_on_breach = False
    await server.experiments.update(found)
    await store(mongo, came(server, "v", 1200, START + timedelta(hours=4), {"a": 0.3, "b": 0.3, "c": 0.0}), seed=2)
    clock.now = START + timedelta(hours=6)
    await server.tick()
    results = await server.experiments.results(pb.GetExperimentResultsRequest(experiment_id="e"))
    assert list(results.verdict.breaches) == ["c: conversion:save"]
    assert (await server.experiments.get("e"))[0].state == pb.EXPERIMENT_STATE_RUNNING
    assert counted("breach_looks", "sound") == sound + 2
    found, _ = await server.experiments.get("e")
    found.stop_on_breach = True
    await server.experiments.update(found)
    await server.tick()
    assert (await server.experiments.get("e"))[0].state == pb.EXPERIMENT_STATE_STOPPED


async def test_one_that_cannot_be_read_holds_up_no_other(mongo: Mongo) -> None:
    clock = Clock()
    server = await begun(mongo, clock)
    await store(mongo, came(server, "u", 600, START, RATES), seed=1)
    odd = wanted(experiment_id="odd", surface="odd", stop_on_breach=True, guardrails=[pb.ExperimentMetric(kind=pb.METRIC_KIND_LATENCY)])
    await server.experiments.create(odd)
    clock.now = START - timedelta(minutes=1)
    await server.experiments.start("odd", "")
    clock.now = START + DAY
    # A slate that nothing of ours writes: the readout of its experiment fails.
    await mongo.collection("slates").insert_one(
        {"_id": "odd", "user_id": "u", "items": [], "show_time": START, "receive_time": START, "experiments": [{"id": "odd"}]}
    )
    await server.tick()
    assert (await actions(server))[-1][0] == "reweight"
    assert (REGISTRY.get_sample_value("rankloop_experiment_breach_looks_total", {"experiment_id": "odd", "outcome": "failed"}) or 0) > 0
