"""Entries that are sound, and the values that spoil them."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from rankloop.v1.catalog_pb2 import Item, User
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Session, Slate, SlateItem

LONGEST = "ü" * 128
"""256 bytes."""
TOO_LONG = LONGEST + "x"
FAR = Timestamp(seconds=10**15)
"""No time that a calendar has."""
NAN, INFINITY = math.nan, math.inf
HOSTILE_KEYS = ["$ref", "$id", "$db", "$", "$$", "%", "%24", "%25ref", "a.b", ".", "..", "a.$b", "$a.b", "tier.x", "é", "𝄞", "__proto__"]


def new_id() -> str:
    return uuid.uuid4().hex


def in_two_days() -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) + timedelta(days=2))
    return stamp


def interaction(**fields: Any) -> Interaction:
    return Interaction(**{"event_id": new_id(), "user_id": "u", "item_id": "i", "type": "click", **fields})


def slate(**fields: Any) -> Slate:
    return Slate(**{"ranking_id": new_id(), "user_id": "u", "items": [SlateItem(item_id="i")], **fields})


def outcome(**fields: Any) -> Outcome:
    return Outcome(**{"event_id": new_id(), "user_id": "u", "type": "income", "value": 1.0, **fields})


def item(**fields: Any) -> Item:
    return Item(**{"item_id": new_id(), **fields})


def user(**fields: Any) -> User:
    return User(**{"user_id": new_id(), **fields})


def session(**fields: Any) -> Session:
    return Session(**{"session_id": new_id(), "user_id": "u", **fields})
