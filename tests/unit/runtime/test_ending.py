"""Ending what runs in the background, also when a task does not hear it at first."""

from __future__ import annotations

import asyncio

from runtime.ending import end


async def test_a_task_that_loses_its_cancellation_ends_all_the_same() -> None:
    lost = 0

    async def deaf_once() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    async def fails() -> None:
        raise RuntimeError("of no interest to whoever ends it")

    tasks = [asyncio.create_task(deaf_once()), asyncio.create_task(fails()), asyncio.create_task(asyncio.sleep(0))]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end(*tasks)
    assert lost == 1
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].exception(), RuntimeError)
    assert tasks[2].done()


async def test_nothing_to_end() -> None:
    await end()
