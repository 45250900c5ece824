"""The features of slates that were recorded without them: what a ranker would have known when each was shown.

History is taken in in the order it happened, and a slate's features come from the very extraction that serves, over the state as it is just
before the slate. What the ledger does not tell is as it is today (the catalogue), or cannot be told: candidates that were offered and not
shown, so values relative to the list are relative to what was shown.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast

import numpy as np

from ranker.features import request
from ranker.features.columns import Floats, RequestColumns
from ranker.features.counters import ACTED, CLICKED, COUNTERS, DISMISSALS, IMPRESSIONS, INTERACTIONS, LABEL_NANOS, POSITIONS, VIEWS
from ranker.features.extraction import extract
from ranker.features.history import LIMIT, NO_HISTORY
from ranker.features.schema import FeatureSchema
from ranker.state.counted import CountedTallies
from ranker.state.daybook import Ints
from ranker.state.history import DISMISS, history_of
from ranker.state.items import OVERALL_KEY, ItemState, day_of

Document = Mapping[str, Any]

ATTRIBUTED_DAYS: Final = 90
"""An act on an impression shown longer ago no longer changes the rates of its item."""

PRIOR_SCORE: Final = "prior_score"


@dataclass(slots=True)
class _Shown:
    """What an act on one of a slate's impressions needs to know."""

    day: int
    item_types: Mapping[str, str]
    clicked: set[str] = field(default_factory=set)
    acted: set[str] = field(default_factory=set)


class Replay:
    """The state of a ranker, moved on by what happened. Entries come in time order; of one moment, slates first."""

    def __init__(self, schema: FeatureSchema, *, max_items: int = 2_000_000, max_item_types: int = 100_000, limit: int = LIMIT) -> None:
        """`limit` is how many interactions of a user are looked at, as in serving."""
        self.schema = schema
        self.items = ItemState(
            schema.names[schema.families[request.FAMILY]],
            today=0,
            item_capacity=max_items,
            type_capacity=max_item_types,
            tallies=CountedTallies,
        )
        made = (self.items.tallies, self.items.type_tallies, self.items.overall_tallies)
        self._items_counted, self._types_counted, self._overall_counted = (cast(CountedTallies, tallies) for tallies in made)
        self._limit = limit
        self._histories: dict[str, deque[Document]] = {}
        self._shown: OrderedDict[str, _Shown] = OrderedDict()

    def interacted(self, interaction: Document) -> None:
        """Takes an interaction in, as the ledger has it."""
        occurred: datetime = interaction["occur_time"]
        day = self._advance(occurred)
        kind, item_id = interaction["type"], interaction["item_id"]
        change = np.zeros(len(COUNTERS), dtype=np.int64)
        change[INTERACTIONS], change[LABEL_NANOS] = 1, round(interaction["label"] * 1e9)
        change[VIEWS], change[DISMISSALS] = kind == "view", kind == DISMISS
        self._count(item_id, interaction.get("item_type", ""), day, change)
        if user_id := interaction["user_id"]:
            self._histories.setdefault(user_id, deque(maxlen=self._limit)).appendleft(interaction)
        shown = self._shown.get(interaction.get("ranking_id", ""))
        if shown is None or item_id not in shown.item_types:
            return
        change = np.zeros(len(COUNTERS), dtype=np.int64)
        if kind == "click" and item_id not in shown.clicked:
            shown.clicked.add(item_id)
            change[CLICKED] = 1
        if interaction.get("acts") and item_id not in shown.acted:
            shown.acted.add(item_id)
            change[ACTED] = 1
        if change.any():
            self._count(item_id, shown.item_types[item_id], shown.day, change)

    def showed(self, slate: Document) -> None:
        """Takes a slate in, as the ledger has it."""
        day = self._advance(slate["show_time"])
        self._shown[slate["_id"]] = _Shown(day, {item["item_id"]: item.get("item_type", "") for item in slate["items"]})
        by_type: dict[str, Ints] = {}
        overall = np.zeros(len(COUNTERS), dtype=np.int64)
        for place, item in enumerate(slate["items"], start=1):
            change = np.zeros(len(COUNTERS), dtype=np.int64)
            change[IMPRESSIONS], change[POSITIONS] = 1, item.get("position", place)
            self._items_counted.add(item["item_id"], day, change)
            overall += change
            if item_type := item.get("item_type", ""):
                by_type[item_type] = by_type.get(item_type, 0) + change
        self._overall_counted.add(OVERALL_KEY, day, overall)
        for item_type, changes in by_type.items():
            self._types_counted.add(item_type, day, changes)
        while self._shown and next(iter(self._shown.values())).day < day - ATTRIBUTED_DAYS:
            self._shown.popitem(last=False)

    def features(self, slate: Document, names: Sequence[str]) -> Floats:
        """(n_items, n_features) float64 of the schema, for a slate that is about to be taken in.

        `names` are the columns of the values that the slate brought itself, if any; they win over computed ones.
        """
        self._advance(slate["show_time"])
        columns = columns_of(slate, names, self.schema)
        known = self._histories.get(slate["user_id"])
        history = history_of(list(known), self.items) if known else NO_HISTORY
        return extract(self.schema, columns, self.items.join(columns), history)

    def _advance(self, moment: datetime) -> int:
        day = day_of(moment.timestamp())
        self.items.advance(day)
        return day

    def _count(self, item_id: str, item_type: str, day: int, change: Ints) -> None:
        self._items_counted.add(item_id, day, change)
        self._overall_counted.add(OVERALL_KEY, day, change)
        if item_type:
            self._types_counted.add(item_type, day, change)


def columns_of(slate: Document, names: Sequence[str], schema: FeatureSchema) -> RequestColumns:
    """A recorded slate as the request that it could have come from: its items are the candidates, in the order shown."""
    items: Sequence[Document] = slate["items"]
    count = len(items)
    given: dict[str, Floats] = {}
    if names and len(slate.get("features", b"")) == 8 * count * len(names):
        values = np.frombuffer(slate["features"], dtype="<f8").reshape(count, len(names))
        given = {name: values[:, column].copy() for column, name in enumerate(names) if name in schema.index}
    if PRIOR_SCORE in given:
        priors = given[PRIOR_SCORE]
    elif slate.get("algorithm") == PRIOR_SCORE:
        # Ordered by the caller's own scores: those are what is recorded as the scores.
        priors = np.array([item.get("score", np.nan) for item in items], dtype=np.float64)
    else:
        priors = np.full(count, np.nan)
    return RequestColumns(
        item_ids=[item["item_id"] for item in items],
        item_types=[item.get("item_type", "") for item in items],
        priors=priors,
        given=given,
        tags=[item.get("tags", ()) for item in items],
        tiers=[item.get("tier", "") for item in items],
        create_seconds=np.full(count, np.nan),
        embeddings=None,
        surface=slate.get("surface", ""),
        device=dict(slate.get("context", ())).get("device", ""),
        moment_seconds=slate["show_time"].timestamp(),
    )
