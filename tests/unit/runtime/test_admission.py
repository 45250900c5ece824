"""Who is let in: as many as there is room for, and only who can be answered in time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.admission import MeanSeconds, verdict


@pytest.mark.parametrize(
    ("waiting", "at_once", "mean_seconds", "remaining_seconds", "told"),
    [
        (0, 1, 0.010, 0.011, ""),
        (0, 1, 0.010, 0.010, "late"),  # it would be done just when its caller goes
        (9, 1, 0.010, 0.101, ""),  # nine before it, 10 ms each, and its own 10 ms
        (9, 1, 0.010, 0.099, "late"),
        (9, 3, 0.010, 0.041, ""),  # three at a time: 9 ÷ 3 turns, and its own
        (9, 3, 0.010, 0.039, "late"),
        (10, 1, 0.010, 60.0, "full"),
        (9, 1, 0.0, 0.001, ""),  # nothing is known yet
        (9, 1, 1.0, math.inf, ""),  # its caller waits for ever
    ],
)
def test_room_and_time(waiting: int, at_once: int, mean_seconds: float, remaining_seconds: float, told: str) -> None:
    assert verdict(waiting=waiting, capacity=10, at_once=at_once, mean_seconds=mean_seconds, remaining_seconds=remaining_seconds) == told


@given(st.lists(st.floats(0.001, 10.0), min_size=1, max_size=50))
def test_the_mean_lies_among_what_was_observed(seconds: list[float]) -> None:
    mean = MeanSeconds()
    for one in seconds:
        mean.observe(one)
    assert min(seconds) * (1 - 1e-9) <= mean.seconds <= max(seconds) * (1 + 1e-9)


def test_the_mean_follows_what_is_new() -> None:
    mean = MeanSeconds()
    for one in [1.0] + [2.0] * 3:
        mean.observe(one)
    assert mean.seconds == pytest.approx(2 - 0.9**3)
