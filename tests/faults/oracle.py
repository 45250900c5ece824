"""The oracle: a process of its own that is never harmed. It sends entries and owes what was acknowledged.

`python -m tests.faults.oracle --seed 1 --journal FILE --server host:port --server host:port` sends until SIGTERM, then ends what it began.
It sends in bursts of concurrent calls, with rests between them in which what was sent is folded: a call under way is what a fault has to
meet, and a ledger that grows without pause would leave a run to its recounts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc

from rankloop.v1 import tracking_pb2 as pb
from rankloop.v1.tracking_pb2_grpc import TrackingServiceStub
from runtime.rpc.channel import open_channel
from tests.faults.journal import Attempt, Issued, Journal
from tests.faults.payloads import Payloads

DEADLINE_SECONDS = 3.0
ENDING_SECONDS = 10.0
"""How long after SIGTERM what has no certain answer is still sent again; after that it stays unknown."""
METHODS: dict[str, tuple[str, Any]] = {
    "interactions": ("TrackInteractions", pb.TrackInteractionsRequest),
    "slates": ("RecordSlates", pb.RecordSlatesRequest),
    "outcomes": ("RecordOutcomes", pb.RecordOutcomesRequest),
}
LARGEST = {"interactions": 20, "slates": 6, "outcomes": 6}
LARGE_BURST = 4
"""Calls for each caller in every fifth burst; the others have one call at least, and one for each caller at most."""
SOUND_CODES = ("OK", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED")


class Oracle:
    """Callers that send until they are told to stop."""

    def __init__(self, payloads: Payloads, journal: Journal, addresses: list[str]) -> None:
        self._payloads = payloads
        self._journal = journal
        self._stubs = [TrackingServiceStub(open_channel(address)) for address in addresses]
        self._next: Counter[str] = Counter()
        self._calls = 0
        self._permits: asyncio.Queue[None] = asyncio.Queue()
        """Calls of the burst that nobody has begun."""
        self._stop = asyncio.Event()
        self._give_up = asyncio.Event()

    async def run(self, callers: int, rate: float) -> None:
        """Sends with so many callers until SIGTERM; about `rate` new entries a second, without rests if it is 0."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        async with asyncio.TaskGroup() as work:
            for _ in range(callers):
                work.create_task(self._send_on())
            pacing = work.create_task(self._let_go(callers, rate))
            await self._stop.wait()
            pacing.cancel()
            self._permit(callers)  # whoever waits for the next burst sees that it is over
            loop.call_later(ENDING_SECONDS, self._give_up.set)

    async def _let_go(self, callers: int, rate: float) -> None:
        """One burst after the other. Each rests by what it sent; what is sent again is not counted."""
        random_ = random.Random(f"{self._payloads.seed}:bursts")
        while True:
            before = self._next.total()
            self._permit(random_.randint(1, callers) if random_.random() < 0.8 else LARGE_BURST * callers)
            await self._permits.join()
            await asyncio.sleep(random_.uniform(0.5, 1.5) * (self._next.total() - before) / rate if rate else 0.0)

    def _permit(self, count: int) -> None:
        for _ in range(count):
            self._permits.put_nowait(None)

    async def _send_on(self) -> None:
        while True:
            await self._permits.get()
            if self._stop.is_set():
                return
            self._calls += 1
            random_ = random.Random(f"{self._payloads.seed}:call:{self._calls}")
            kind = random_.choices(("interactions", "slates", "outcomes"), (6, 3, 1))[0]
            count = 1 if random_.random() < 0.5 else random_.randint(2, LARGEST[kind])
            first = self._next[kind]
            self._next[kind] += count
            self._journal.write(Issued(kind=kind, first=first, count=count))
            self._permits.task_done()
            await self._send_one(random_, kind, first, count)

    async def _send_one(self, random_: random.Random, kind: str, first: int, count: int) -> None:
        """Sends until the answer is certain; some at once through two servers, some once more after that, some never again."""
        server = random_.randrange(len(self._stubs))
        other = (server + 1) % len(self._stubs)
        way = random_.choices(("plain", "twice", "again", "hasty", "cancelled", "forgotten"), (50, 15, 10, 10, 5, 10))[0]
        if way == "twice":
            answers = await asyncio.gather(*(self._attempt(one, kind, first, count, "twice") for one in (server, other)))
            known = any(answers)
        else:
            # Too short to be answered, mostly: the entry may be stored, and nobody heard.
            seconds = random_.uniform(0.001, 0.05) if way in ("hasty", "cancelled") else DEADLINE_SECONDS
            known = await self._attempt(server, kind, first, count, "first", seconds=seconds, cancel=way == "cancelled")
        while not known and way != "forgotten" and not self._give_up.is_set():
            await asyncio.sleep(random_.uniform(0.02, 0.2))
            server = (server + 1) % len(self._stubs)
            known = await self._attempt(server, kind, first, count, "after")
        if way == "again" and known:
            await self._attempt(other, kind, first, count, "again")

    async def _attempt(
        self, server: int, kind: str, first: int, count: int, manner: str, *, seconds: float = DEADLINE_SECONDS, cancel: bool = False
    ) -> bool:
        """One call; says whether its entries are acknowledged, after the journal has it."""
        method, request_type = METHODS[kind]
        request = request_type(**{kind: [self._payloads.entry(kind, number) for number in range(first, first + count)]})
        begin = time.monotonic()
        outcome: dict[str, Any] = {}
        call = getattr(self._stubs[server], method)(request, timeout=DEADLINE_SECONDS if cancel else seconds)
        timer = asyncio.get_running_loop().call_later(seconds, call.cancel) if cancel else None
        try:
            answer = await call
            rejected = tuple(f"{one.event_id}: {one.reason}" for one in answer.rejected)
            outcome = {"code": "OK", "accepted": answer.accepted_count, "duplicates": answer.duplicate_count, "rejected": rejected}
        except grpc.aio.AioRpcError as error:
            outcome = {"code": error.code().name, "detail": "" if error.code().name in SOUND_CODES else str(error.details())}
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            outcome = {"code": "CANCELLED"}
        finally:
            if timer is not None:
                timer.cancel()
        attempt = Attempt(kind=kind, first=first, count=count, server=server, manner=manner, begin=begin, end=time.monotonic(), **outcome)
        self._journal.write(attempt)
        return attempt.acknowledged


async def main() -> None:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--server", action="append", required=True)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.0, help="new entries a second, about; 0: as many as there is room for")
    said = parser.parse_args()
    await Oracle(Payloads(said.seed), Journal(said.journal), said.server).run(said.callers, said.rate)


if __name__ == "__main__":
    asyncio.run(main())
