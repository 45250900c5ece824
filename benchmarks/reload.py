"""Another model takes over while rankings are being asked for: what the callers notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import numpy as np

from benchmarks.shop import CANDIDATES, open_shop, request_of

REQUESTS = 100
WARM_UP_SECONDS = 3.0
AROUND_SECONDS = 5.0
"""Before and after the first ranking by the new model; beside the whole minute, which dilutes a short trouble."""


@dataclass(frozen=True, slots=True)
class Span:
    """What callers saw in a span of time."""

    name: str
    calls: int
    failed: int
    """Calls that failed, and slates that no model ranked."""
    per_second: float
    p50_milliseconds: float
    p99_milliseconds: float


@dataclass(frozen=True, slots=True)
class Reload:
    """What a run found."""

    callers: int
    before: Span
    """No swap."""
    during: Span
    """As long, with the swap in it."""
    around: Span
    """The seconds just around the swap."""
    swap_seconds: float
    """From the promotion to the first ranking by the new model."""


@dataclass(frozen=True, slots=True)
class _Call:
    ended: float
    seconds: float
    version: str
    """Empty: it failed, or no model ranked."""


async def bench(directory: Path, *, seconds: float, callers: int, say: Callable[[str], None]) -> Reload:
    """A minute without a swap, and a minute with one, by callers that ask again as soon as they are answered."""
    say("starting a stack, filling it, and training two forests on what it logs")
    async with open_shop(directory) as shop:
        requests = [request_of(number, CANDIDATES) for number in range(REQUESTS)]
        calls: list[_Call] = []
        stop = asyncio.Event()

        async def caller(number: int) -> None:
            while not stop.is_set():
                number += callers
                begin = time.perf_counter()
                try:
                    answer = await shop.client.ranking.Rank(requests[number % REQUESTS], timeout=10)
                    version = answer.model_version
                except grpc.aio.AioRpcError:
                    version = ""
                ended = time.perf_counter()
                calls.append(_Call(ended, ended - begin, version))

        async with asyncio.TaskGroup() as work:
            for number in range(callers):
                work.create_task(caller(number))
            await asyncio.sleep(WARM_UP_SECONDS)
            say(f"{callers} callers, {seconds:g} s without a swap")
            began = time.perf_counter()
            await asyncio.sleep(seconds)
            say(f"{callers} callers, {seconds:g} s with one")
            promoted = time.perf_counter()
            await asyncio.sleep(seconds / 3)
            asked = time.perf_counter()
            await shop.registry.promote(shop.versions[1], datetime.now(UTC))
            await asyncio.sleep(seconds * 2 / 3)
            stop.set()
        swapped = next((call.ended for call in calls if call.ended > asked and call.version == shop.versions[1]), None)
        if swapped is None:
            raise RuntimeError(f"the second model did not serve within {seconds * 2 / 3:g} s; measure for longer")
        return Reload(
            callers=callers,
            before=_span("without a swap", calls, began, promoted),
            during=_span("with a swap", calls, promoted, promoted + seconds),
            around=_span(f"{AROUND_SECONDS:g} s on either side of it", calls, swapped - AROUND_SECONDS, swapped + AROUND_SECONDS),
            swap_seconds=swapped - asked,
        )


def _span(name: str, calls: list[_Call], start: float, end: float) -> Span:
    own = [call for call in calls if start < call.ended <= end]
    p50, p99 = (1000 * np.percentile([call.seconds for call in own], [50, 99])).tolist()
    return Span(name, len(own), sum(not call.version for call in own), len(own) / (end - start), p50, p99)
