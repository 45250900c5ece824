"""The label policy: how good each interaction says its impression was, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_STARS = 5.0
DECAY = 0.5


class ValueKind(StrEnum):
    """What an interaction's `value` is."""

    ANY = "any"
    """A number that the label does not depend on."""
    SECONDS = "seconds"
    """Time spent."""
    STARS = "stars"
    """0 to 5, required."""


class Combination(StrEnum):
    """How the labels of several interactions with one impression become one."""

    MAX = "max"
    """The best of them."""
    SUM = "sum"
    """Their sum, at most 1."""
    LAST = "last"
    """The latest."""
    DECAYED = "decayed"
    """Their sum, the latest in full and each earlier one at half the weight of the one after it, at most 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """One line of the table."""

    label: float
    """0 to 1; what the interaction is worth by itself."""
    acts: bool
    """Whether the user thereby acted upon the recommendation."""
    value: ValueKind = ValueKind.ANY
    """What the interaction's `value` means."""
    extra: float = 0.0
    """What full time adds to the label, for SECONDS."""
    full_seconds: float = 60.0
    """The time that counts as full, for SECONDS."""


DEFAULT_RULES: Mapping[str, LabelRule] = {
    "implement": LabelRule(label=1.0, acts=True),
    "complete": LabelRule(label=1.0, acts=True),
    "purchase": LabelRule(label=1.0, acts=True),
    "rate": LabelRule(label=0.0, acts=True, value=ValueKind.STARS),
    "apply": LabelRule(label=0.9, acts=True),
    "save": LabelRule(label=0.8, acts=True),
    "favorite": LabelRule(label=0.8, acts=True),
    "watchlist": LabelRule(label=0.8, acts=True),
    "share": LabelRule(label=0.6, acts=True),
    "comment": LabelRule(label=0.6, acts=True),
    "like": LabelRule(label=0.6, acts=True),
    "act": LabelRule(label=0.4, acts=True),
    "click": LabelRule(label=0.4, acts=True),
    "ai_usage": LabelRule(label=0.3, acts=True),
    "view": LabelRule(label=0.1, acts=False, value=ValueKind.SECONDS, extra=0.3),
    "abandon": LabelRule(label=0.1, acts=False),
    "dismiss": LabelRule(label=0.0, acts=False),
}


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """The deployment's table."""

    rules: Mapping[str, LabelRule]
    combination: Combination = Combination.MAX

    @property
    def known_types(self) -> str:
        """For people who sent another."""
        return ", ".join(sorted(self.rules))


def label_of(rule: LabelRule, value: float | None) -> float:
    """The label of one interaction, 0 to 1. `value` has been checked: finite, not negative, stars at most 5."""
    if rule.value is ValueKind.SECONDS:
        return min(1.0, rule.label + rule.extra * min((value or 0.0) / rule.full_seconds, 1.0))
    if rule.value is ValueKind.STARS:
        return (value or 0.0) / MAX_STARS
    return rule.label


def combined_label(labels: Sequence[float], rule: Combination) -> float:
    """The label of an impression from those of its interactions, oldest first; 0 to 1.

    Under MAX a weaker interaction that follows a stronger one changes nothing: a click after a purchase leaves it a purchase.
    """
    if not labels:
        return 0.0
    if rule is Combination.MAX:
        return max(labels)
    if rule is Combination.SUM:
        return min(1.0, sum(labels))
    if rule is Combination.LAST:
        return labels[-1]
    return min(1.0, sum(label * DECAY**age for age, label in enumerate(reversed(labels))))
