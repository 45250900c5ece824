"""The loop of a demo: simulate without a model, train, watch the rankers swap, simulate again, compare."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rankloop.v1 import ranking_pb2, ranking_pb2_grpc, stats_pb2, stats_pb2_grpc
from runtime.child import Child
from runtime.process import stop_on_signals
from scripts.connection import Connection
from scripts.simulation.failure import Failed
from scripts.simulation.player import Pace, Play, Player
from scripts.simulation.priors import make_priors
from scripts.simulation.progress import progress_bar
from scripts.simulation.report import Figure, as_json, figures_of, lift_of
from scripts.simulation.stack import GRACE_SECONDS, Stack, command, environment, last_words
from scripts.simulation.table import figures_table, plain
from scripts.simulation.truth import truth_of
from scripts.simulation.world import make_world

FOLD_SECONDS = 120.0
TRAIN_SECONDS = 600.0
SWAP_SECONDS = 60.0
LOOK_SECONDS = 0.2
STOPPED = 130
"""The exit code after a signal, as a shell has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a demo does."""

    seed: int
    users: int
    items: int
    slates: int
    rounds: int
    port: int
    data_dir: Path | None
    report: Path | None
    exit_when_done: bool


class Loop:
    """One run."""

    def __init__(self, plan: Plan, scratch: Path, console: Console) -> None:
        self._plan, self._scratch, self._console = plan, scratch, console
        self._world = make_world(seed=plan.seed, item_count=plan.items, user_count=plan.users)
        self._truth = truth_of(self._world)
        self._pace = Pace()
        self._priors = make_priors(self._world, self._truth, candidate_count=self._pace.candidate_count)
        self._run_id = f"demo-{secrets.token_hex(4)}"
        self._done = False
        """Whether the table is printed."""

    async def run(self) -> int:
        """Runs until done or stopped by a signal, and returns the exit code; whatever happens, nothing is left running."""
        stop = stop_on_signals()
        work, stopped = asyncio.create_task(self._work()), asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            stopped.cancel()
            await work
            return 0
        self._say("Stopping the stack")
        work.cancel()
        await asyncio.wait({work})
        return 0 if self._done else STOPPED

    async def _work(self) -> None:
        plan = self._plan
        self._say("Starting the stack")
        data_dir = plan.data_dir or self._scratch / "data"
        stack = await Stack.start(data_dir, self._scratch, ["--port", str(plan.port)])
        try:
            await stack.unless_it_ends(self._loop(stack))
            self._done = True
            if not plan.exit_when_done:
                self._say_addresses(stack)
                await stack.unless_it_ends(asyncio.Event().wait())
        finally:
            await stack.stop()

    async def _loop(self, stack: Stack) -> None:
        """Simulates, then trains and simulates again, as often as asked for; prints and writes what it brought."""
        async with Connection(stack.ready["server"]) as connection:
            player = Player(connection, self._world, self._truth, self._priors, run_id=self._run_id, pace=self._pace)
            await player.publish()
            if (await self._probe(connection, player)).ml_ranking_applied:
                raise Failed("a model ranks before any was trained; the data folder holds one, so name a new one with --data-dir")
            phases = [await self._play(player, "before", "")]
            for number in range(1, self._plan.rounds + 1):
                await self._wait_folded(connection)
                version = await self._train(stack, number)
                await self._wait_swapped(connection, player, version)
                phases.append(await self._play(player, f"after-{number}", version))
        users, seed = self._plan.users, self._plan.seed
        figures = [figures_of(play.visits, users, seed=seed) for play in phases]
        lift = lift_of(phases[0].visits, phases[-1].visits, users, seed=seed)
        names = ["before", *(["after"] if len(phases) == 2 else [f"after {number}" for number in range(1, len(phases))])]
        self._console.print(figures_table("What the loop brought", dict(zip(names, figures, strict=True)), lift))
        if self._plan.report is not None:
            report = {"before": as_json(figures[0]), "after": as_json(figures[-1]), "lift": as_json(lift)}
            self._plan.report.write_text(json.dumps(report, indent=2) + "\n")

    async def _play(self, player: Player, phase: str, version: str) -> Play:
        """Plays a phase in which `version` ranks; empty: no model does."""
        count = self._plan.slates
        self._say(f"Simulating {count} slates for {self._plan.users} people, {f'ranked by {version}' if version else 'without a model'}")
        with progress_bar(self._console, "slates", count) as advance:
            play = await player.play(phase, count, advance)
        told = ", ".join(f"{slates} by {ranking}" for ranking, slates in play.served.most_common())
        self._say(f"  {play.seconds:.0f} s; {play.accepted_count} interactions stored; slates: {told}")
        if play.rejected_count:
            raise Failed(f"the server rejected {play.rejected_count} interactions, the first for {play.first_rejection}")
        if version and not any(visit.model_version == version for visit in play.visits):
            raise Failed(f"model {version} ranked not one slate; `rankloop models` says what serves")
        return play

    async def _wait_folded(self, connection: Connection) -> None:
        """Waits until the fold has taken in everything that was sent."""
        stats, pending = stats_pb2_grpc.StatsServiceStub(connection.channel), -1
        try:
            async with asyncio.timeout(FOLD_SECONDS):
                while pending:
                    pending = (await connection.call(stats.GetOverview, stats_pb2.GetOverviewRequest())).pending_count
                    if pending:
                        await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise Failed(f"the collector did not fold what was sent within {FOLD_SECONDS:.0f} s; {pending} entries are left") from None

    async def _train(self, stack: Stack, number: int) -> str:
        """Trains in a process of its own and returns the version that became champion; Failed when none did."""
        self._say("Training")
        told, log = self._scratch / f"train-{number}.json", self._scratch / f"train-{number}.log"
        child = Child.start(
            command("train", "--json", str(told)),
            output=log,
            environment=environment(self._scratch, RANKLOOP_MONGO_URI=stack.ready["mongo_uri"]),
        )
        try:
            async with asyncio.timeout(TRAIN_SECONDS):
                code = await child.wait()
        except TimeoutError:
            raise Failed(f"training was not done within {TRAIN_SECONDS:.0f} s") from None
        finally:
            await child.stop(grace_seconds=GRACE_SECONDS)
        if code != 0:
            raise Failed(f"training failed (exit code {code}): {last_words(log)}")
        return self._read_training(json.loads(told.read_text()))

    def _read_training(self, told: dict[str, Any]) -> str:
        """Says what the training said, and returns the version that became champion."""
        version, counts = told["model_version"], told["counts"]
        if not told["promoted"]:
            raise Failed(f"the trained model {version} does not serve: {told['decision']}")
        used = f"{counts['used_rows']} impressions in {counts['used_slates']} slates"
        self._say(f"  {told['seconds']:.0f} s; {told['tree_count']} trees from {used}")
        for name, metric in told["metrics"].items():
            if name.startswith("test.") and name.endswith(".ndcg_at_10"):
                figure = Figure(value=metric["value"], low=metric.get("low"), high=metric.get("high"))
                self._say(f"  NDCG@10 by labels of the latest slates, {name.split('.')[1]}: {plain(figure)}")
        gains = ", ".join(f"{one['feature']} {one['gain_share']:.0%}" for one in told["top_features"][:5])
        self._say(f"  most important: {gains}")
        self._say(f"  {told['decision']}")
        return str(version)

    async def _wait_swapped(self, connection: Connection, player: Player, version: str) -> None:
        """Asks for slates until the new model ranks them."""
        answer = ranking_pb2.RankResponse()
        try:
            async with asyncio.timeout(SWAP_SECONDS):
                while not (answer.ml_ranking_applied and answer.model_version == version):
                    await asyncio.sleep(LOOK_SECONDS)
                    answer = await self._probe(connection, player)
        except TimeoutError:
            serving = answer.model_version or answer.fallback_reason
            raise Failed(f"no ranker took up model {version} within {SWAP_SECONDS:.0f} s; slates come from {serving}") from None
        self._say(f"The ranker swapped to {version}")

    async def _probe(self, connection: Connection, player: Player) -> ranking_pb2.RankResponse:
        """A slate for an unknown visitor, to see what ranks; nobody acts on it, so it teaches nothing."""
        request = player.request(0, np.arange(min(self._pace.candidate_count, self._plan.items), dtype=np.int64))
        request.user_id = ""
        return await connection.call(ranking_pb2_grpc.RankingServiceStub(connection.channel).Rank, request)

    def _say_addresses(self, stack: Stack) -> None:
        """Where everything is, for as long as it runs."""
        ready = stack.ready
        self._say(f"The stack stays up until Ctrl-C.\n  server   {ready['server']}\n  MongoDB  {ready['mongo_uri']}")
        for name, address in sorted(ready.get("metrics", {}).items()):
            self._say(f"  metrics of the {name}: {address}")
        if ready.get("console"):
            self._say(f"  console  {ready['console']}")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
