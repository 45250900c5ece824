"""How many users an A/B test and interleaving need for the same verdict, in one deployment with simulated people; and what a slate of two
rankings costs.

A model is trained as in `rankloop demo`. Then the same people come again, one after the other, each for a few slates: most of them into an
A/B test of the model's order against the same order weakened by chance, the others into the same two rankings interleaved, at the same time
and from the same catalogue. So it is known which one is better, and that it is better at every position. After every batch of people both
are read out, as somebody might who looks every day.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from scipy import special

from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1 import experiment_pb2_grpc, ranking_pb2_grpc, stats_pb2, stats_pb2_grpc
from rankloop.v1.ranking_pb2 import EXPLORATION_POLICY_EPSILON_GREEDY, Exploration
from scripts.connection import Connection
from scripts.simulation.failure import Failed
from scripts.simulation.player import Pace, Player
from scripts.simulation.priors import make_priors
from scripts.simulation.stack import Stack
from scripts.simulation.truth import truth_of
from scripts.simulation.world import make_world
from server.inference.power import users_per_variant

VISITS = 4
"""Slates of a user."""
SHARE_INTERLEAVED = 0.25
"""Of the people, so that the A/B test, which needs more, gets more."""
EPSILON = 0.4
"""With this probability the weakened ranking has any candidate left at a position, in place of the next best one."""
BETTER = {pb.RULING_BETTER: "model", pb.RULING_HARMFUL: "weakened"}
"""Which of the two a verdict names."""
FOLD_SECONDS = 120.0
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one design came to."""

    users_seen: int
    """In all."""
    users_at_verdict: int | None
    """At the first look at which the always-valid result named a better one; None: at none."""
    better: str
    """Which; empty: neither."""
    users_needed: int | None
    """To find what was seen in the end with a power of 80 %, both variants together, at a single look; None: nothing was seen."""
    sentence: str
    """The verdict in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a run."""

    ab: Verdict
    interleaving: Verdict
    single_milliseconds: float
    """Median of a ranking of 50 candidates by a model, one caller."""
    interleaved_milliseconds: float
    """The same for a slate of two rankings, each by a model."""


async def bench(
    directory: Path, *, seed: int, users: int, slates: int, batch: int, calls: int, say: Callable[[str], None] = lambda _: None
) -> Found:
    """Runs both designs on a stack of its own. `slates` are those that the model learns from."""
    say(f"training on {slates:,} slates")
    await _trained(directory, seed, users, slates)
    stack = await Stack.start(directory / "data", directory)
    try:
        async with Connection(stack.ready["server"]) as connection:
            await connection.reach()
            return await _race(connection, seed, users, batch, calls, say)
    finally:
        await stack.stop()


async def _trained(directory: Path, seed: int, users: int, slates: int) -> None:
    words = ["demo", "--exit", "--seed", str(seed), "--users", str(users), "--slates", str(slates)]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.cli", *words, "--data-dir", str(directory / "data")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.terminate()
            await child.wait()
    if child.returncode:
        raise Failed(f"no model was trained: {said.decode(errors='replace').strip().splitlines()[-1:]}")


async def _race(connection: Connection, seed: int, users: int, batch: int, calls: int, say: Callable[[str], None]) -> Found:
    world = make_world(seed=seed, item_count=400, user_count=users)
    truth = truth_of(world)
    pace = Pace()
    priors = make_priors(world, truth, candidate_count=pace.candidate_count)
    player = Player(connection, world, truth, priors, run_id=f"race-{seed}", pace=pace)
    await player.publish()
    experiments = experiment_pb2_grpc.ExperimentServiceStub(connection.channel)
    ab, both = experiment("ab", pb.EXPERIMENT_METHOD_AB), experiment("interleaved", pb.EXPERIMENT_METHOD_INTERLEAVING)
    for one in (ab, both):
        await connection.call(experiments.CreateExperiment, pb.CreateExperimentRequest(experiment=one))
        await connection.call(experiments.StartExperiment, pb.StartExperimentRequest(experiment_id=one.experiment_id))
    at_verdict: dict[str, tuple[int, str]] = {}
    found: dict[str, pb.GetExperimentResultsResponse] = {}
    for first in range(0, users, batch):
        coming = [user for _ in range(VISITS) for user in range(first, min(first + batch, users))]
        await player.play(f"race-{first}", len(coming), users=coming)
        await _wait_folded(connection)
        for name in (ab.experiment_id, both.experiment_id):
            request = pb.GetExperimentResultsRequest(experiment_id=name, as_of_time=_now())
            found[name] = await connection.call(experiments.GetExperimentResults, request)
            if found[name].verdict.ruling in BETTER:
                at_verdict.setdefault(name, (users_of(found[name]), BETTER[found[name].verdict.ruling]))
            say(f"{users_of(found[name]):,} users, {name}: {found[name].verdict.sentence}")
        if len(at_verdict) == len(found):
            break
    single, interleaved = await _latency(connection, player, calls)
    told = [
        Verdict(
            users_seen=users_of(found[name]),
            users_at_verdict=at_verdict[name][0] if name in at_verdict else None,
            better=at_verdict[name][1] if name in at_verdict else "",
            users_needed=needed(found[name]),
            sentence=found[name].verdict.sentence,
        )
        for name in (ab.experiment_id, both.experiment_id)
    ]
    return Found(ab=told[0], interleaving=told[1], single_milliseconds=single, interleaved_milliseconds=interleaved)


def experiment(name: str, method: pb.ExperimentMethod.ValueType, surface: str = "home", **changed: object) -> pb.Experiment:
    """A weakened order against the model's, for a part of the people."""
    chance = Exploration(policy=EXPLORATION_POLICY_EPSILON_GREEDY, epsilon=EPSILON)
    interleaved = method == pb.EXPERIMENT_METHOD_INTERLEAVING
    fields: dict[str, object] = {
        "experiment_id": name,
        "surface": surface,
        "method": method,
        "traffic": SHARE_INTERLEAVED if interleaved else 1 - SHARE_INTERLEAVED,
        "variants": [
            pb.Variant(variant_id="weakened", weight=0.5, parameters=pb.VariantParameters(mmr_lambda=1.0, exploration=chance)),
            pb.Variant(variant_id="model", weight=0.5, parameters=pb.VariantParameters(mmr_lambda=1.0)),
        ],
    }
    if not interleaved:
        fields["primary_metric"] = pb.ExperimentMetric(kind=pb.METRIC_KIND_CTR)
    return pb.Experiment(**(fields | changed))  # type: ignore[arg-type]


def users_of(found: pb.GetExperimentResultsResponse) -> int:
    """Users who count, in both variants together."""
    if found.HasField("preference"):
        return found.preference.user_count
    return sum(variant.user_count for variant in found.variants)


def needed(found: pb.GetExperimentResultsResponse) -> int | None:
    """Users, both variants together, that find the difference that was seen with a power of 80 %; None: there is none."""
    if found.HasField("preference"):
        test, count = found.preference.paired_fixed, found.preference.user_count
        if not found.preference.HasField("paired_fixed") or not test.value:
            return None
        error = (test.high - test.value) / float(special.stdtrit(count - 1, 0.975))
        return users_per_variant(error**2 * count, 0.0, test.value)
    one, other = found.metrics[0].values
    if not other.value - one.value:
        return None
    variances = [value.standard_error**2 * value.user_count for value in (one, other)]
    return 2 * users_per_variant(variances[0], variances[1], other.value - one.value)


async def _wait_folded(connection: Connection) -> None:
    stats = stats_pb2_grpc.StatsServiceStub(connection.channel)
    async with asyncio.timeout(FOLD_SECONDS):
        while (await connection.call(stats.GetOverview, stats_pb2.GetOverviewRequest())).pending_count:
            await asyncio.sleep(LOOK_SECONDS)


async def _latency(connection: Connection, player: Player, calls: int) -> tuple[float, float]:
    """Median milliseconds of a ranking by a model and of two interleaved, asked for in turns by one caller."""
    experiments = experiment_pb2_grpc.ExperimentServiceStub(connection.channel)
    variants = [pb.Variant(variant_id=f"lambda-{one:g}", parameters=pb.VariantParameters(mmr_lambda=one)) for one in (0.9, 0.5)]
    wanted = experiment(
        *("twice", pb.EXPERIMENT_METHOD_INTERLEAVING, "twice"), traffic=1.0, variants=variants, overrides={"tester": "lambda-0.9"}
    )
    await connection.call(experiments.CreateExperiment, pb.CreateExperimentRequest(experiment=wanted))
    await connection.call(experiments.StartExperiment, pb.StartExperimentRequest(experiment_id="twice"))
    ranking = ranking_pb2_grpc.RankingServiceStub(connection.channel)
    request = player.request(0, np.arange(50, dtype=np.int64))
    request.surface = "twice"
    seconds: dict[str, list[float]] = {"tester": [], "somebody": []}
    for _ in range(calls):
        for user_id, spent in seconds.items():
            request.user_id = user_id
            began = time.perf_counter()
            response = await connection.call(ranking.Rank, request)
            spent.append(time.perf_counter() - began)
            if (response.algorithm == "interleaved") != (user_id == "somebody"):
                raise Failed(f"{user_id} was shown a slate by {response.algorithm} ({response.fallback_reason})")
    return _milliseconds(seconds["tester"]), _milliseconds(seconds["somebody"])


def _milliseconds(seconds: Sequence[float]) -> float:
    return 1000 * median(seconds) if seconds else math.nan


def _now() -> Timestamp:
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp
