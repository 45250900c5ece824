"""Whether a call is taken in, or told at once that there is too much to do: nothing waits longer than its caller does. Pure."""

from __future__ import annotations

from typing import Literal

Verdict = Literal["", "full", "late"]

SHARE_OF_NEWEST = 0.1
"""How much the newest duration counts for in the mean: about the last twenty are remembered."""


class MeanSeconds:
    """How long a piece of work takes by and large: an exponentially weighted mean."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """0 until something was observed."""

    def observe(self, seconds: float) -> None:
        """One piece of work took this long."""
        self.seconds = seconds if not self.seconds else self.seconds + SHARE_OF_NEWEST * (seconds - self.seconds)


def verdict(*, waiting: int, capacity: int, at_once: int, mean_seconds: float, remaining_seconds: float) -> Verdict:
    """Whether there is room and time for one more.

    `waiting` calls stand before it, `capacity` may at most; `at_once` are worked on at the same time, each for `mean_seconds`. It is
    late when it would be done after `remaining_seconds`: better told now than when its caller has gone.
    """
    if waiting >= capacity:
        return "full"
    return "late" if (waiting / at_once + 1) * mean_seconds >= remaining_seconds else ""
