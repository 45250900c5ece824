"""How long a ranking takes, through the server: beside plain scoring, and beside a server that does nothing but score."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.peer_mlserver import mlserver
from benchmarks.shop import CANDIDATES, Floats, Shop, open_shop, request_of
from ranker.scoring.engine import choose_engine

SIZES = (10, 50, 200, 500, 1000)
CALLERS = 8
REQUESTS = 100
"""Different requests, one after the other and over again."""
ROUNDS = 10
"""What is compared takes turns, so that a slow moment of the machine hits all of it."""
WARM_UP = 200

Call = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long calls took."""

    name: str
    candidates: int
    callers: int
    calls: int
    per_second: float
    p50_milliseconds: float
    p99_milliseconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run found."""

    timings: list[Timing]
    profile: dict[str, float]
    """Milliseconds of a mean ranking of CANDIDATES by where they went, one caller; they add up to what the caller waits."""
    processor: dict[str, float]
    """Milliseconds of processor time that a ranking took, by process; recording and folding it included."""
    scorer: str
    """What walked the trees in the ranker."""

    def timing(self, name: str, *, candidates: int = CANDIDATES, callers: int = 1) -> Timing | None:
        """That one, if it was measured."""
        found = [one for one in self.timings if (one.name, one.candidates, one.callers) == (name, candidates, callers)]
        return found[0] if found else None


@dataclass(slots=True)
class _Clock:
    name: str
    candidates: int
    callers: int
    seconds: list[float]
    span: float = 0.0

    def timing(self) -> Timing:
        p50, p99 = np.percentile(self.seconds, [50, 99]).tolist()
        return Timing(self.name, self.candidates, self.callers, len(self.seconds), len(self.seconds) / self.span, p50 * 1e3, p99 * 1e3)


async def bench(directory: Path, *, calls: int, peer: bool, say: Callable[[str], None]) -> Measured:
    """Everything in turn on one running stack; `calls` of each at CANDIDATES candidates with one caller, fewer of longer ones."""
    say("starting a stack, filling it, and training 500 trees on what it logs")
    async with open_shop(directory) as shop:
        engine = choose_engine(shop.boosters[0])
        timings: list[Timing] = []
        say(f"{CANDIDATES} candidates, one caller")
        compared, matrices = await _compared(shop, engine.engine.score, CANDIDATES, with_matrix=True)
        await _rounds(compared, WARM_UP)
        for clock in (clock for clock, _ in compared):
            clock.seconds.clear()
            clock.span = 0.0
        await _rounds(compared, calls)
        timings += [clock.timing() for clock, _ in compared]
        profile, processor = await _profile(shop, calls)
        say(f"{CANDIDATES} candidates, {CALLERS} callers")
        ranked = [_rank(shop, request_of(number, CANDIDATES)) for number in range(REQUESTS)]
        timings.append(await _together(_Clock("rank", CANDIDATES, CALLERS, []), ranked, 2 * calls))
        if peer:
            say("MLServer")
            async with mlserver(directory, shop.boosters[0]) as call:
                infers: list[Call] = [call(matrix) for matrix in matrices]
                await _together(_Clock("mlserver", CANDIDATES, 1, []), infers, WARM_UP)
                timings.append(await _together(_Clock("mlserver", CANDIDATES, 1, []), infers, calls))
                timings.append(await _together(_Clock("mlserver", CANDIDATES, CALLERS, []), infers, 2 * calls))
        for size in SIZES:
            say(f"{size} candidates, one caller")
            compared, _ = await _compared(shop, engine.engine.score, size, with_matrix=False)
            await _rounds(compared, max(ROUNDS, min(calls, calls * CANDIDATES // size // 2)))
            timings += [clock.timing() for clock, _ in compared]
        return Measured(timings, profile, processor, engine.name)


async def _compared(
    shop: Shop, quick: Callable[[Floats], Floats], size: int, *, with_matrix: bool
) -> tuple[list[tuple[_Clock, list[Call]]], list[Floats]]:
    """What is compared at that many candidates, and the matrices that are scored."""
    requests = [request_of(number, size) for number in range(REQUESTS)]
    matrices = [await shop.matrix(request) for request in requests[:20]]
    booster = shop.boosters[0]

    def plain(matrix: Floats) -> Call:
        async def call() -> None:
            booster.predict(matrix, raw_score=True, num_threads=1)

        return call

    def compiled(matrix: Floats) -> Call:
        async def call() -> None:
            quick(matrix)

        return call

    compared = [
        (_Clock("predict", size, 1, []), [plain(matrix) for matrix in matrices]),
        (_Clock("scorer", size, 1, []), [compiled(matrix) for matrix in matrices]),
        (_Clock("rank", size, 1, []), [_rank(shop, request) for request in requests]),
    ]
    if with_matrix:
        brought = [request_of(number, size, (shop.feature_names, matrix)) for number, matrix in enumerate(matrices)]
        compared.append((_Clock("rank_matrix", size, 1, []), [_rank(shop, request) for request in brought]))
    return compared, matrices


def _rank(shop: Shop, request: Any) -> Call:
    async def call() -> None:
        answer = await shop.client.ranking.Rank(request, timeout=10)
        if not answer.ml_ranking_applied:
            raise RuntimeError(f"a ranking was not by the model: {answer.fallback_reason}")

    return call


async def _rounds(compared: Sequence[tuple[_Clock, list[Call]]], calls: int) -> None:
    turn = 0
    for _ in range(ROUNDS):
        for clock, ways in compared:
            began = time.perf_counter()
            for number in range(turn, turn + calls // ROUNDS):
                call = ways[number % len(ways)]
                begin = time.perf_counter()
                await call()
                clock.seconds.append(time.perf_counter() - begin)
            clock.span += time.perf_counter() - began
        turn += calls // ROUNDS


async def _together(clock: _Clock, ways: Sequence[Call], calls: int) -> Timing:
    waiting = iter(range(calls))

    async def caller() -> None:
        for number in waiting:
            begin = time.perf_counter()
            await ways[number % len(ways)]()
            clock.seconds.append(time.perf_counter() - begin)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(clock.callers)))
    clock.span = time.perf_counter() - began
    return clock.timing()


async def _profile(shop: Shop, calls: int) -> tuple[dict[str, float], dict[str, float]]:
    """Where the time of a mean ranking went, by what the processes' own metrics say they did meanwhile."""
    ranked = [_rank(shop, request_of(number, CANDIDATES)) for number in range(REQUESTS)]
    before = await _seconds(shop)
    timing = _Clock("rank", CANDIDATES, 1, [])
    await _together(timing, ranked, calls)
    after = await _seconds(shop)
    spent = {name: 1000 * (after[name] - before.get(name, 0.0)) / calls for name in after}
    waited = 1000 * sum(timing.seconds) / calls
    stages = {name.removeprefix("stage:"): spent[name] for name in spent if name.startswith("stage:")}
    in_ranker, in_server = spent["call:WorkerService"], spent["call:RankingService"]
    processor = {name.removeprefix("processor:"): spent[name] for name in spent if name.startswith("processor:")}
    parts = {
        "caller to server": waited - in_server,
        "server to ranker": in_server - in_ranker,
        **stages,
        "rest of the ranker": in_ranker - sum(stages.values()),
    }
    return parts, processor


async def _seconds(shop: Shop) -> dict[str, float]:
    """Sums of what is timed, by name, and the processor time of each process."""
    found: dict[str, float] = {}
    for address in shop.stack.ready["metrics"].values():
        for family in text_string_to_metric_families(await asyncio.to_thread(_scraped, address)):
            for sample in family.samples:
                if sample.name == "rankloop_ranker_stage_seconds_sum":
                    found[f"stage:{sample.labels['stage']}"] = sample.value
                elif sample.name == "grpc_server_handling_seconds_sum" and sample.labels["grpc_method"] == "Rank":
                    found[f"call:{sample.labels['grpc_service'].rsplit('.', 1)[-1]}"] = sample.value
    for name, pid in {**shop.stack.ready["pids"], "caller": os.getpid()}.items():
        found[f"processor:{name}"] = _processor_seconds(pid)
    return found


def _scraped(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return str(answer.read().decode())


def _processor_seconds(pid: int) -> float:
    """User and system time of a process so far; 0 where the system does not tell."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
