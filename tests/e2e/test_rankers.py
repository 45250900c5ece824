"""Several ranking workers under traffic: killed, stopped, slow, and beside some that are none. No ranking ever fails."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import lightgbm
import numpy as np
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from rankloop.v1 import model_pb2
from rankloop.v1.ranking_pb2 import Candidate, RankRequest, RankResponse
from rankloop.worker.v1 import worker_pb2, worker_pb2_grpc
from tests.e2e.stack import CALL_SECONDS, PATIENCE_SECONDS, Client, Stack, environment, eventually, running, spawned, state_of

DEADLINE_SECONDS = 5.0
"""Of each ranking: that of a caller whose machine does much else."""
RANKERS = ("ranker", "ranker-2", "ranker-3")


@dataclass(slots=True)
class Rankings:
    """What callers were told."""

    reasons: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    newest: str = ""

    @property
    def count(self) -> int:
        """Rankings answered."""
        return self.reasons.total()

    async def keep_ranking(self, client: Client, stop: asyncio.Event) -> None:
        """Ranks until told to stop. A call that fails ends the test."""
        while not stop.is_set():
            answer = await ranked(client)
            self.reasons[answer.fallback_reason] += 1
            self.versions[answer.model_version] += 1
            self.newest = answer.model_version
            await asyncio.sleep(0.005)

    @property
    def fallback_count(self) -> int:
        """Those that no model ranked."""
        return self.count - self.reasons[""]

    async def more(self, count: int) -> None:
        """Waits for so many more that a model ranked."""
        await self._reach(lambda: self.reasons[""], count)

    async def more_fallbacks(self, count: int) -> None:
        """Waits for so many more that no model ranked."""
        await self._reach(lambda: self.fallback_count, count)

    async def _reach(self, so_far: Callable[[], int], more: int) -> None:
        goal = so_far() + more
        async with asyncio.timeout(PATIENCE_SECONDS):
            while so_far() < goal:
                await asyncio.sleep(0.01)


async def ranked(client: Client) -> RankResponse:
    """A ranking, which never fails and is never short."""
    candidates = [Candidate(item_id=f"c{number}", prior_score=number / 20) for number in range(20)]
    answer: RankResponse = await client.ranking.Rank(RankRequest(user_id="u", candidates=candidates, top_k=10), timeout=DEADLINE_SECONDS)
    assert len({item.item_id for item in answer.items}) == 10
    return answer


@asynccontextmanager
async def traffic(client: Client, callers: int = 4) -> AsyncIterator[Rankings]:
    """Callers at work for the length of the block."""
    seen, stop = Rankings(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(seen.keep_ranking(client, stop))
        try:
            yield seen
        finally:
            stop.set()


class Noise(socketserver.BaseRequestHandler):
    """Says something that is no HTTP/2, and hangs up."""

    def handle(self) -> None:
        """Answers a connection."""
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


class QuietServer(socketserver.ThreadingTCPServer):
    """A TCP server whose threads end with the test run."""

    daemon_threads = True


@contextmanager
def strangers() -> Iterator[list[str]]:
    """Addresses that somebody wrote into the configuration, at which no ranking worker answers.

    Another service; noise; a listener that never says a word; and nobody at all.
    """
    with ExitStack() as stack:
        other = grpc.server(ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), other)
        service = other.add_insecure_port("127.0.0.1:0")
        other.start()
        stack.callback(other.stop, None)
        noise = stack.enter_context(QuietServer(("127.0.0.1", 0), Noise))
        threading.Thread(target=noise.serve_forever, daemon=True).start()
        stack.callback(noise.shutdown)
        mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        with socket.create_server(("127.0.0.1", 0)) as gone:
            nobody = gone.getsockname()[1]
        yield [f"127.0.0.1:{port}" for port in (service, noise.server_address[1], mute.getsockname()[1], nobody)]


def forest(sign: float) -> bytes:
    """A forest whose score is the prior, or its reverse."""
    prior = np.linspace(0, 1, 201)
    parameters = {"objective": "regression", "num_leaves": 15, "min_data_in_leaf": 1, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(prior[:, None], sign * prior, params=parameters), num_boost_round=10)
    return str(booster.model_to_string()).encode()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three ranking workers among strangers. Each test leaves them well, or fails."""
    with strangers() as addresses:
        variables = {"RANKLOOP_SERVER_RANKERS": ",".join(addresses), "RANKLOOP_SERVER_RANK_TIMEOUT_SECONDS": "2"}
        with running(tmp_path_factory.mktemp("crowd"), "--rankers", "3", **variables) as stack:
            asyncio.run(let_serve(stack.address))
            yield stack


async def let_serve(address: str) -> None:
    """Two models, the first of them champion, and every ranking is by it."""
    async with Client(address) as client:
        for version, sign in (("up", 1.0), ("down", -1.0)):
            brought = model_pb2.ImportModelRequest(model_version=version, forest=forest(sign), feature_names=["prior_score"])
            await client.models.ImportModel(brought, timeout=CALL_SECONDS)
        await client.models.PromoteModel(model_pb2.PromoteModelRequest(model_version="up"), timeout=CALL_SECONDS)
        await all_by(client, "up")


async def all_by(client: Client, version: str, *, in_a_row: int = 12) -> None:
    """Waits until so many rankings in a row are by this model: as they take turns, every worker has it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        count = 0
        while count < in_a_row:
            count = count + 1 if (await ranked(client)).model_version == version else 0


async def back(stack: Stack, name: str, pid: int) -> None:
    """Waits until another process answers in the place of the one that ended."""

    async def is_another() -> bool:
        return stack.pid(name) != pid

    await eventually(is_another)


async def test_strangers_among_the_workers_cost_nothing(crowd: Stack) -> None:
    async with Client(crowd.address) as client, traffic(client) as seen:
        await seen.more(100)
        assert set(seen.versions) == {"up"}, seen


async def test_workers_killed_one_after_the_other_cost_no_ranking(crowd: Stack) -> None:
    async with Client(crowd.address) as client:
        async with traffic(client) as seen:
            for name in RANKERS:
                await seen.more(20)
                pid = crowd.send(name, signal.SIGKILL)
                await seen.more(20)
                await back(crowd, name, pid)
        # While one is killed the others rank: nothing falls back for want of a worker.
        assert set(seen.reasons) <= {"", "RANKER_TIMEOUT"}, seen
        assert seen.reasons[""] > 0.9 * seen.count


async def test_all_workers_killed_at_once_fall_back_and_come_back(crowd: Stack) -> None:
    async with Client(crowd.address) as client:
        async with traffic(client) as seen:
            await seen.more(20)
            pids = {name: crowd.send(name, signal.SIGKILL) for name in RANKERS}
            await seen.more_fallbacks(20)
            for name, pid in pids.items():
                await back(crowd, name, pid)
            await seen.more(20)
        assert "NO_MODEL" not in seen.reasons, "a worker is healthy only with its model"


async def test_workers_that_stop_cost_no_ranking_and_are_found_when_they_go_on(crowd: Stack) -> None:
    async with Client(crowd.address) as client, traffic(client) as seen:
        stopped: list[int] = []
        try:
            for name in RANKERS[:2]:
                await seen.more(20)
                stopped.append(crowd.send(name, signal.SIGSTOP))
                await seen.more(50)
            stopped.append(crowd.send(RANKERS[2], signal.SIGSTOP))
            await seen.more_fallbacks(20)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        await seen.more(20)
        assert [crowd.pid(name) for name in RANKERS] == stopped, "who only stopped was not replaced"
    async with Client(crowd.address) as client:
        await all_by(client, "up")


async def test_a_slow_worker_costs_no_ranking(crowd: Stack) -> None:
    async with Client(crowd.address) as client, traffic(client) as seen:
        pid = crowd.pid("ranker")
        done = asyncio.Event()

        async def hinder() -> None:
            # It gets a tenth of the time.
            while not done.is_set():
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(0.09)
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.01)

        hindering = asyncio.create_task(hinder())
        try:
            await seen.more(150)
        finally:
            done.set()
            await hindering
        assert seen.reasons[""] > 0.9 * seen.count, seen


async def test_promotion_and_rollback_under_load_fail_no_ranking(crowd: Stack) -> None:
    async with Client(crowd.address) as client:
        async with traffic(client) as seen:
            for _ in range(2):
                await client.models.PromoteModel(model_pb2.PromoteModelRequest(model_version="down"), timeout=CALL_SECONDS)
                await all_by(client, "down")
                await client.models.RollbackModel(model_pb2.RollbackModelRequest(model_version="down"), timeout=CALL_SECONDS)
                await all_by(client, "up")
        assert set(seen.versions) == {"up", "down"}, seen
        listed = await client.models.ListModels(model_pb2.ListModelsRequest(), timeout=CALL_SECONDS)
        assert all(model.HasField("serve_time") and not model.refusals for model in listed.models)


async def resident(addresses: Sequence[str]) -> list[set[str]]:
    """The models that workers hold in memory."""
    held = []
    for address in addresses:
        async with grpc.aio.insecure_channel(address) as channel:
            status = await worker_pb2_grpc.WorkerServiceStub(channel).GetStatus(worker_pb2.GetStatusRequest(), timeout=CALL_SECONDS)
            held.append(set(status.resident_versions))
    return held


async def test_one_command_runs_several_workers_restarts_one_that_dies_and_drains_all(crowd: Stack, tmp_path: Path) -> None:
    ready_file, log = tmp_path / "workers.json", tmp_path / "workers.log"
    line = ["ranker", "--workers", "2", "--port", "0", "--metrics-port", "0", "--ready-file", str(ready_file)]
    parent = spawned(line, log, environment(RANKLOOP_MONGO_URI=crowd.mongo_uri))

    async def is_ready() -> bool:
        assert parent.poll() is None, log.read_text()
        return ready_file.exists()

    try:
        await eventually(is_ready)
        before = json.loads(ready_file.read_text())
        addresses, pids = before["addresses"], [worker["pid"] for worker in before["workers"]]
        assert before["pid"] == parent.pid
        assert len({*addresses, *(worker["metrics"] for worker in before["workers"])}) == 4
        assert all("up" in held for held in await resident(addresses))
        os.kill(pids[0], signal.SIGKILL)

        async def is_replaced() -> bool:
            return bool(json.loads(ready_file.read_text())["workers"][0]["pid"] != pids[0])

        await eventually(is_replaced)
        after = json.loads(ready_file.read_text())
        assert after["addresses"] == addresses, "where it was before"
        assert after["workers"][1] == before["workers"][1], "the other one was left alone"
        assert all("up" in held for held in await resident(addresses))
        parent.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(parent.wait, PATIENCE_SECONDS) == 0
        assert not ready_file.exists()
        await eventually(functools.partial(gone, [worker["pid"] for worker in after["workers"]]))
        said = [json.loads(text)["event"] for text in log.read_text().splitlines()]
        assert said.count("ranker stopped") == 2, "each was drained"
        assert any("ended by signal 9" in event for event in said)
    finally:
        if parent.poll() is None:
            parent.kill()
            parent.wait()


async def gone(pids: Sequence[int]) -> bool:
    return not any(state_of(pid) for pid in pids)
