"""The rules there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

TargetKind = Literal["item_id", "item_type", "tag"]


@dataclass(frozen=True, slots=True)
class Target:
    """Which candidates a rule is about."""

    kind: TargetKind
    """By what."""

    value: str
    """The item, the type or the tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An item at a fixed position."""

    rule_id: str
    item_id: str
    position: int
    """1 is the top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boost:
    """Relevance × factor + addend."""

    rule_id: str
    target: Target
    factor: float = 1.0
    addend: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Candidates that are not shown."""

    rule_id: str
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """The most items of a type."""

    rule_id: str
    item_type: str
    """Empty: every type without a cap of its own."""
    max_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All that hold for a request, the weightier first: those of the request before those of the surface."""

    pins: tuple[Pin, ...] = ()
    boosts: tuple[Boost, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    caps: tuple[Cap, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pins or self.boosts or self.exclusions or self.caps)


NO_RULES: Final = Rules()
