"""What a server thinks of a ranking worker by what became of its calls. Pure: time is an argument.

    well       gets its share of the calls
    doubted    left a call unanswered: asked only where nobody is well, and looked after
    away       cannot be reached, speaks nonsense, or failed several times in a row: not asked at all, and looked after

Whoever is not well is looked after with probes, and is well again with the first one answered.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

FAILURES_IN_A_ROW: Final = 3
"""Calls that come to nothing before a worker that answers probes is left alone; one slow call says nothing of a worker."""

LONGEST_REST: Final = 8
"""Times the first rest."""


class Standing(Enum):
    """How much is thought of a worker."""

    WELL = "well"
    DOUBTED = "doubted"
    AWAY = "away"


class Opinion:
    """Of one worker."""

    def __init__(self, *, rest_seconds: float) -> None:
        self._rest_seconds = rest_seconds
        self._failures = 0
        self.standing = Standing.WELL
        self.reason = ""
        """Why it is not well: a fallback reason."""
        self.spell = 0
        """Counts changes of opinion. Of several calls that were under way at once, only the first that fails says something new."""

    @property
    def rest_seconds(self) -> float:
        """How long to leave it alone before it is probed: longer each time it failed again."""
        times = self._failures - FAILURES_IN_A_ROW
        return 0.0 if times < 0 else self._rest_seconds * min(2**times, LONGEST_REST)

    def answered(self) -> bool:
        """It gave a sound slate. Returns whether that changes anything."""
        self._failures = 0
        return self._change(Standing.WELL, "")

    def answered_probe(self) -> bool:
        """It is there. Whether it also ranks, the next call will tell: what failed before is remembered."""
        return self._change(Standing.WELL, "")

    def unreachable(self) -> bool:
        """Nobody is there."""
        return self._change(Standing.AWAY, "RANKER_UNAVAILABLE")

    def failed(self, reason: str, spell: int, *, nonsense: bool = False) -> bool:
        """A call that began in `spell` came to nothing. `nonsense`: what answered is no worker, or not a sound one."""
        if spell != self.spell:
            return False
        self._failures += 1
        if nonsense or self._failures >= FAILURES_IN_A_ROW:
            self._failures = max(self._failures, FAILURES_IN_A_ROW)
            return self._change(Standing.AWAY, reason)
        if reason == "RANKER_TIMEOUT":
            self.spell += 1
            return self._change(Standing.DOUBTED, reason)
        return False

    def _change(self, standing: Standing, reason: str) -> bool:
        changed = standing is not self.standing
        if changed:
            self.spell += 1
        self.standing, self.reason = standing, reason
        return changed
