"""What became of one impression.

An attribution takes its interactions in any order and ends up the same: it keeps sums, extremes, and the newest few. Labels are kept in
billionths, so that adding them is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from collector.labels import Combination, combined_label

NANOS = 1_000_000_000
MILLISECOND = timedelta(milliseconds=1)
RECENT = 16
"""Newest labels kept, for rules that depend on the order; what is older weighs less than 2⁻¹⁶ under DECAYED."""


class Touch(NamedTuple):
    """An interaction, as far as its impression is concerned. Orders by time, then id."""

    occur_time: datetime
    event_id: str
    type: str
    label: float
    acts: bool
    value: float | None
    dropoff_point: str


class LatestLabel(NamedTuple):
    """A label with what orders it."""

    occur_time: datetime
    event_id: str
    label_nanos: int


class LatestRating(NamedTuple):
    """Stars with what orders them."""

    occur_time: datetime
    event_id: str
    stars: float


class LatestAbandon(NamedTuple):
    """A drop-off with what orders it."""

    occur_time: datetime
    event_id: str
    point: str


class Shown(NamedTuple):
    """Where an impression that was acted upon or completed had been shown."""

    show_time: datetime
    item_type: str


@dataclass(slots=True)
class Attribution:
    """The state of an impression that had interactions."""

    counts: dict[str, int] = field(default_factory=dict)
    """Interactions by type."""
    first_view_time: datetime | None = None
    first_click_time: datetime | None = None
    first_act_time: datetime | None = None
    first_complete_time: datetime | None = None
    last_rating: LatestRating | None = None
    last_abandon: LatestAbandon | None = None
    label_max_nanos: int = 0
    label_sum_nanos: int = 0
    recent: tuple[LatestLabel, ...] = ()
    """The newest labels, oldest first."""
    shown: Shown | None = None
    """Known once its slate is, of an impression that was acted upon or completed: such are found by when they were shown."""

    def add(self, touch: Touch) -> None:
        """Takes an interaction in. Each one once: what is added twice counts twice."""
        self.counts[touch.type] = self.counts.get(touch.type, 0) + 1
        if touch.type == "view":
            self.first_view_time = _earlier(self.first_view_time, touch.occur_time)
        elif touch.type == "click":
            self.first_click_time = _earlier(self.first_click_time, touch.occur_time)
        elif touch.type == "complete":
            self.first_complete_time = _earlier(self.first_complete_time, touch.occur_time)
        elif touch.type == "rate":
            rating = LatestRating(touch.occur_time, touch.event_id, touch.value or 0.0)
            self.last_rating = max(self.last_rating, rating) if self.last_rating else rating
        elif touch.type == "abandon":
            abandon = LatestAbandon(touch.occur_time, touch.event_id, touch.dropoff_point)
            self.last_abandon = max(self.last_abandon, abandon) if self.last_abandon else abandon
        if touch.acts:
            self.first_act_time = _earlier(self.first_act_time, touch.occur_time)
        label_nanos = round(touch.label * NANOS)
        self.label_max_nanos = max(self.label_max_nanos, label_nanos)
        self.label_sum_nanos += label_nanos
        self.recent = tuple(sorted((*self.recent, LatestLabel(touch.occur_time, touch.event_id, label_nanos)))[-RECENT:])

    def copy(self) -> Attribution:
        """An independent copy."""
        return Attribution(
            counts=dict(self.counts),
            first_view_time=self.first_view_time,
            first_click_time=self.first_click_time,
            first_act_time=self.first_act_time,
            first_complete_time=self.first_complete_time,
            last_rating=self.last_rating,
            last_abandon=self.last_abandon,
            label_max_nanos=self.label_max_nanos,
            label_sum_nanos=self.label_sum_nanos,
            recent=self.recent,
            shown=self.shown,
        )

    @property
    def timed(self) -> bool:
        """Whether it was acted upon or completed."""
        return self.first_act_time is not None or self.first_complete_time is not None

    def label(self, rule: Combination) -> float:
        """The impression's label under the deployment's rule, 0 to 1."""
        if rule is Combination.MAX:
            return self.label_max_nanos / NANOS
        if rule is Combination.SUM:
            return min(NANOS, self.label_sum_nanos) / NANOS
        return combined_label([latest.label_nanos / NANOS for latest in self.recent], rule)

    def to_document(self, rule: Combination) -> dict[str, Any]:
        """As the database keeps it, without its id."""
        document: dict[str, Any] = {
            "label": self.label(rule),
            "counts": self.counts,
            "label_max_nanos": self.label_max_nanos,
            "label_sum_nanos": self.label_sum_nanos,
            "recent": [list(latest) for latest in self.recent],
        }
        for name in ("first_view_time", "first_click_time", "first_act_time", "first_complete_time"):
            if (moment := getattr(self, name)) is not None:
                document[name] = moment
        if self.last_rating is not None:
            document["last_rating"] = list(self.last_rating)
        if self.last_abandon is not None:
            document["last_abandon"] = list(self.last_abandon)
        if self.shown is not None:
            timed: dict[str, Any] = {"shown": self.shown.show_time, "type": self.shown.item_type}
            if self.first_act_time is not None:
                timed["action"] = milliseconds_between(self.shown.show_time, self.first_act_time)
            if self.first_complete_time is not None:
                timed["completion"] = milliseconds_between(self.shown.show_time, self.first_complete_time)
            document["timed"] = timed
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Attribution:
        """The reverse."""
        rating, abandon, timed = document.get("last_rating"), document.get("last_abandon"), document.get("timed")
        return cls(
            counts=dict(document["counts"]),
            first_view_time=document.get("first_view_time"),
            first_click_time=document.get("first_click_time"),
            first_act_time=document.get("first_act_time"),
            first_complete_time=document.get("first_complete_time"),
            last_rating=LatestRating(*rating) if rating else None,
            last_abandon=LatestAbandon(*abandon) if abandon else None,
            label_max_nanos=document["label_max_nanos"],
            label_sum_nanos=document["label_sum_nanos"],
            recent=tuple(LatestLabel(*latest) for latest in document["recent"]),
            shown=Shown(timed["shown"], timed["type"]) if timed else None,
        )


def milliseconds_between(show_time: datetime, moment: datetime) -> int:
    """From shown to then; an act that a caller's clock puts before the slate counts as at once."""
    return max(0, (moment - show_time) // MILLISECOND)


def _earlier(known: datetime | None, moment: datetime) -> datetime:
    return moment if known is None or moment < known else known
