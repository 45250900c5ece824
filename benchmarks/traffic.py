"""What benchmarks send: events like those of a shop's day, from a seed-free formula, so that every run sends the same."""

from __future__ import annotations

from datetime import datetime, timedelta

from rankloop.v1.tracking_pb2 import Interaction, Slate, SlateItem
from runtime.timestamps import to_timestamp

USERS, ITEMS, TYPES = 5_000, 2_000, 12
SLATE_ITEMS = 10
PER_SLATE = 4
"""Interactions with one slate."""


def interaction(number: int, moment: datetime, *, prefix: str = "e") -> Interaction:
    """The event of that number: a view with its seconds, a click, a save or a rating, in a slate."""
    slate = number // PER_SLATE
    place = number % PER_SLATE
    entry = Interaction(
        event_id=f"{prefix}-{number:012d}",
        user_id=f"user-{slate % USERS}",
        item_id=item_of(slate, place),
        type=("view", "click", "save", "rate")[place],
        occur_time=to_timestamp(moment + timedelta(seconds=number % 50)),
        ranking_id=f"{prefix}-slate-{slate:010d}",
        position=place + 1,
        session_id=f"session-{slate % (USERS * 2)}",
        item_type=f"type-{(slate + place) % TYPES}",
        surface="home",
    )
    if place in (0, 3):
        entry.value = 4.0 if place == 3 else 17.5
    return entry


def slate(number: int, moment: datetime, *, prefix: str = "e") -> Slate:
    """The slate of that number, of ten items."""
    return Slate(
        ranking_id=f"{prefix}-slate-{number:010d}",
        user_id=f"user-{number % USERS}",
        surface="home",
        algorithm="hybrid",
        show_time=to_timestamp(moment),
        items=[
            SlateItem(item_id=item_of(number, place), item_type=f"type-{(number + place) % TYPES}", position=place + 1)
            for place in range(SLATE_ITEMS)
        ],
    )


def item_of(slate_number: int, place: int) -> str:
    """The item at a place of a slate; some are shown far more often than others."""
    return f"item-{(slate_number * 31 + place * 97) % ITEMS if slate_number % 3 else (slate_number + place) % 50}"
