"""How long the fold lets entries gather."""

from __future__ import annotations

import pytest

from collector.fold import rest_after


@pytest.mark.parametrize(
    ("seconds", "full", "poll_seconds", "rest"),
    [
        (0.5, True, 0.2, 0.0),  # a backlog is not kept waiting
        (0.01, False, 0.2, 0.2),
        (0.05, False, 0.2, 10 * 0.05),
        (0.5, False, 0.2, 1.0),
        (0.5, False, 5.0, 5.0),  # whoever polls seldom rests as long
    ],
)
def test_rest(seconds: float, full: bool, poll_seconds: float, rest: float) -> None:
    assert rest_after(seconds, full=full, poll_seconds=poll_seconds) == pytest.approx(rest)
