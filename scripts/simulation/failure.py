"""What ends a simulation or a demo."""

from __future__ import annotations

from runtime.errors import RankloopError


class Failed(RankloopError):
    """The run cannot go on; the message is one sentence that says why and what to do."""

    reason = "SIMULATION_FAILED"
