"""From a user's newest interactions to the tables that features are read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ranker.features.history import NO_HISTORY, History
from ranker.state.items import ItemState

Document = Mapping[str, Any]

DISMISS: Final = "dismiss"
LIKED_LABEL: Final = 0.4
"""The least best label that makes an item a liked one: a click's."""
LIKED_LIMIT: Final = 32
"""Liked items whose embeddings are kept, the best first."""


def history_of(interactions: Sequence[Document], items: ItemState) -> History:
    """Counts a user's interactions.

    Args:
        interactions: of the ledger, newest first, each with item_id, type, label, acts, occur_time, and item_type where it was sent.
        items: for types not sent, tags and embeddings.
    """
    if not interactions:
        return NO_HISTORY
    by_type: dict[str, list[float]] = {}
    by_tag: dict[str, list[float]] = {}
    by_item: dict[str, list[float]] = {}
    seconds, labels, acts = [], [], []
    for document in interactions:
        item_id, label, acted = document["item_id"], float(document["label"]), bool(document.get("acts"))
        second, dismissed = document["occur_time"].timestamp(), float(document["type"] == DISMISS)
        seconds.append(second)
        labels.append(label)
        acts.append(acted)
        item_type = document.get("item_type") or items.item_type(item_id)
        if item_type:
            row = by_type.setdefault(item_type, [0.0, 0.0, 0.0, second])
            row[0] += 1.0
            row[1] += label
            row[2] += acted
            row[3] = max(row[3], second)
        for tag in items.tags(item_id):
            row = by_tag.setdefault(tag, [0.0, 0.0])
            row[0] += 1.0
            row[1] += label
        row = by_item.setdefault(item_id, [0.0, label, second, 0.0])
        row[0] += 1.0
        row[1] = max(row[1], label)
        row[2] = max(row[2], second)
        row[3] = max(row[3], dismissed)
    liked = _liked(by_item, items)
    return History(
        seconds=np.array(seconds),
        labels=np.array(labels),
        acts=np.array(acts, dtype=np.bool_),
        dismissals=sum(document["type"] == DISMISS for document in interactions),
        type_rows=_rows(by_type),
        by_type=_table(NO_HISTORY.by_type, by_type),
        tag_rows=_rows(by_tag),
        by_tag=_table(NO_HISTORY.by_tag, by_tag),
        item_rows=_rows(by_item),
        by_item=_table(NO_HISTORY.by_item, by_item),
        dismissed=frozenset(item_id for item_id, row in by_item.items() if row[3]),
        liked=None if liked is None else liked[0],
        liked_weights=None if liked is None else liked[1],
    )


def _rows(table: Mapping[str, list[float]]) -> dict[str, int]:
    return {key: row for row, key in enumerate(table, start=1)}


def _table(unknown: NDArray[np.float64], table: Mapping[str, list[float]]) -> NDArray[np.float64]:
    return np.vstack((unknown, list(table.values()))) if table else unknown


def _liked(by_item: Mapping[str, list[float]], items: ItemState) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    best = sorted(((row[1], item_id) for item_id, row in by_item.items() if row[1] >= LIKED_LABEL and not row[3]), reverse=True)
    if not best:
        return None
    found = items.embeddings([item_id for _, item_id in best])
    if found is None or not found[1].any():
        return None
    weights = np.array([label for label, _ in best], dtype=np.float32)
    return found[0][found[1]][:LIKED_LIMIT], weights[found[1]][:LIKED_LIMIT]
