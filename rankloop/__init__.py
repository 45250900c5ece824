"""What callers import: the contract's messages and a small client.

The contract itself lies in `rankloop.v1`, generated from `protos/`; nothing there is written by hand.
"""

from __future__ import annotations

from rankloop.client import Client
from rankloop.v1.catalog_pb2 import Item, User
from rankloop.v1.ranking_pb2 import Candidate, RankedItem, RankRequest, RankResponse
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Session, Slate, SlateItem, TrackInteractionsResponse

__all__ = [
    "Candidate",
    "Client",
    "Interaction",
    "Item",
    "Outcome",
    "RankRequest",
    "RankResponse",
    "RankedItem",
    "Session",
    "Slate",
    "SlateItem",
    "TrackInteractionsResponse",
    "User",
]
