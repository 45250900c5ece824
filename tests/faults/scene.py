"""A scene: a stack, an oracle that sends all the time, a series of faults at random moments, and a verdict."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.child import Child
from tests.faults.faults import Fault, Repertoire
from tests.faults.journal import Reader
from tests.faults.oracle import DEADLINE_SECONDS
from tests.faults.payloads import Payloads
from tests.faults.report import Enough, Hit, SceneReport, measure
from tests.faults.stack import Stack
from tests.faults.verdict import differences, judge

LOOK_SECONDS = 0.02
SHORT_LOOK_SECONDS = 0.001
"""A call takes a few milliseconds, and a fault is to meet it."""
WAIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is to happen."""

    name: str
    nodes: int
    """Mongods in the replica set."""
    faults: Sequence[str]
    """Names of the repertoire, in their order; `disk_full` where there is a mount."""
    enough: Enough
    callers: int = 8
    rate: float = 40.0
    """New entries a second, about, in bursts; 0: as many as there is room for."""
    mount: Path | None = None
    """A small file system for MongoDB's data."""
    recount_each: bool = False
    """Whether everything derived is held against the ledger after each fault, and not only at the end."""


async def play(scene: Scene, folder: Path, seed: int) -> SceneReport:
    """Plays it below `folder`, which is empty. From the main thread only."""
    begin = time.monotonic()
    random_ = random.Random(seed)
    async with AsyncExitStack() as resources:
        stack = await Stack.start(folder, nodes=scene.nodes, data=scene.mount)
        resources.push_async_callback(stack.end)
        mongo = await stack.open_mongo()
        resources.push_async_callback(mongo.close)
        oracle, journal = _start_oracle(folder, seed, scene, stack.addresses)
        resources.push_async_callback(oracle.stop, grace_seconds=0)
        audience = Audience(journal, oracle)
        repertoire = Repertoire(stack, mongo, random_, audience.wait_acknowledged, audience.wait_answered, audience.wait_failing)
        hits: list[Hit] = []
        wrong: list[str] = []
        recounts = 0
        await audience.wait_acknowledged(20)
        for name in scene.faults:
            # A random moment: so many calls from now, and within the next one.
            await audience.wait_acknowledged(random_.randint(1, 8))
            await audience.wait_begun()
            await asyncio.sleep(random_.uniform(0, 0.01))
            if name == "disk_full":
                assert scene.mount is not None
                fault = repertoire.disk_full(scene.mount)
            else:
                fault = repertoire.make(name)
            try:
                hits.append(await _make(fault, audience, name))
                if scene.recount_each:
                    wrong += [f"after {name}: {difference}" for difference in await differences(mongo)]
                    recounts += 1
            except TimeoutError as error:
                # What does not hit or does not heal is a finding, and what follows would only be late as well.
                wrong.append(str(error))
                break
        await oracle.stop(grace_seconds=WAIT_SECONDS)
        end = time.monotonic()
        journal.update()
        verdict = await judge(mongo, Payloads(seed), journal, stack.addresses)
        verdict.recounts += recounts
        verdict.wrong += wrong + measure(hits, journal.attempts, end)
        if oracle.exit_code != 0:
            verdict.wrong.append(f"the oracle ended with {oracle.exit_code}: {(folder / 'oracle.log').read_text()[-2000:]}")
    return SceneReport(
        name=scene.name,
        seed=seed,
        seconds=time.monotonic() - begin,
        hits=hits,
        verdict=verdict,
        enough=scene.enough,
    )


async def _make(fault: Fault, audience: Audience, name: str) -> Hit:
    """Hits, heals, and waits until calls that begin after that are acknowledged again."""
    start = time.monotonic()
    try:
        await fault.hit()
        begin = time.monotonic()
        await fault.heal()
        await audience.wait_acknowledged(1, begun_after=time.monotonic())
    except TimeoutError as error:
        raise TimeoutError(f"{name}: {str(error) or 'it did not heal'}") from error
    return Hit(kind=fault.kind, start=start, begin=begin, mended=fault.mended if fault.silent else 0.0, healed=time.monotonic())


def _start_oracle(folder: Path, seed: int, scene: Scene, addresses: Sequence[str]) -> tuple[Child, Reader]:
    path = folder / "journal.jsonl"
    command = [sys.executable, "-m", "tests.faults.oracle", "--seed", str(seed), "--journal", str(path)]
    command += ["--callers", str(scene.callers), "--rate", str(scene.rate)]
    for address in addresses:
        command += ["--server", address]
    return Child.start(command, output=folder / "oracle.log"), Reader(path)


@asynccontextmanager
async def _patience(otherwise: str) -> AsyncIterator[None]:
    """Raises TimeoutError that says what did not come."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            yield
    except TimeoutError as error:
        raise TimeoutError(f"{otherwise} within {WAIT_SECONDS:.0f} s") from error


class Audience:
    """Watches the oracle's journal."""

    def __init__(self, journal: Reader, oracle: Child) -> None:
        self._journal = journal
        self._oracle = oracle

    async def wait_acknowledged(self, count: int, *, begun_after: float = 0.0) -> None:
        """Waits until so many more calls were acknowledged. Raises TimeoutError."""
        self._journal.update()
        async with _patience("calls are not acknowledged"):
            while count > 0:
                self._look()
                count -= sum(one.acknowledged and one.begin >= begun_after for one in self._journal.update())
                await asyncio.sleep(LOOK_SECONDS)

    async def wait_begun(self) -> None:
        """Waits until the next new call begins. Raises TimeoutError."""
        self._journal.update()
        before = self._journal.issued.total()
        async with _patience("no new call begins"):
            while self._journal.issued.total() == before:
                self._look()
                await asyncio.sleep(SHORT_LOOK_SECONDS)
                self._journal.update()

    async def wait_answered(self, count: int) -> None:
        """Waits until so many calls, begun since now and with time enough, were answered. Raises TimeoutError."""
        await self._wait_answered(count, in_a_row_failed=False)

    async def wait_failing(self, count: int) -> None:
        """Waits until so many of them in a row failed. Raises TimeoutError."""
        await self._wait_answered(count, in_a_row_failed=True)

    async def _wait_answered(self, count: int, *, in_a_row_failed: bool) -> None:
        begin = time.monotonic()
        self._journal.update()
        found = 0
        async with _patience("calls are not answered"):
            while found < count:
                self._look()
                for one in self._journal.update():
                    # On a machine with other work an answer may come just after the caller's deadline.
                    whole = one.code in ("OK", "UNAVAILABLE") or one.end - one.begin >= DEADLINE_SECONDS
                    if one.begin >= begin and whole:
                        found = 0 if in_a_row_failed and one.acknowledged else found + 1
                await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        if self._oracle.exit_code is not None:
            raise RuntimeError(f"the oracle ended with {self._oracle.exit_code}")
