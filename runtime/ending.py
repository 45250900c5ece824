"""Ends tasks in the background, for certain."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_SECONDS = 0.5


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and returns when they are over, however they ended; what they raised stays theirs.

    Before Python 3.12 a cancellation that meets the end of an `asyncio.wait_for` within the task is lost, so it is said again until heard.
    """
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN_SECONDS)
