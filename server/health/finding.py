"""What an examination of the data says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

EXAMPLES = 3
"""Examples that a finding gives."""


class Severity(StrEnum):
    """How much it matters."""

    NOTE = "note"
    """Worth knowing; may well be meant."""

    WARNING = "warning"
    """Figures or models suffer from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    name: str
    """What, as in `unknown_items`."""

    severity: Severity

    count: int
    """How many of those examined."""

    examined_count: int
    """How many were examined."""

    examples: tuple[str, ...]
    """At most three."""

    description: str
    """What it means, in a sentence."""

    advice: str
    """What to do about it."""

    @property
    def share(self) -> float:
        """Of those examined, 0 to 1."""
        return self.count / self.examined_count if self.examined_count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is examined: the newest entries of a period."""

    start: datetime
    end: datetime
    """Not included."""

    most_entries: int
    """Interactions looked at, newest first."""

    most_slates: int
    """Slates whose features are looked at."""
