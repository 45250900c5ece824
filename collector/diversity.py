"""How varied a slate is, from what the ledger recorded of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_CELLS = 4_000_000
"""Items × tags of a table at most; a slate beyond it (1,000 items with 64 tags each of their own) has its rarer tags left out."""


def slate_diversity(slate: Mapping[str, Any]) -> float | None:
    """1 − mean pairwise similarity of the slate's items, 0 to 1; None for fewer than two.

    What ranked the slate knew embeddings and said so; of slates ranked elsewhere the ledger holds tags and types, and the similarity of two
    items is the Jaccard index of their tags, an equal type counting as one shared tag.
    """
    stated = slate.get("diversity_score")
    if stated is not None:
        return float(stated)
    items: Sequence[Mapping[str, Any]] = slate["items"]
    if len(items) < 2:
        return None
    if not any(item.get("tags") for item in items):
        return _by_type([item.get("item_type", "") for item in items])
    return _by_tags(items)


def _by_type(types: Sequence[str]) -> float:
    """Without tags two items are alike (1) or not (0)."""
    counts: dict[str, int] = {}
    for item_type in types:
        if item_type:
            counts[item_type] = counts.get(item_type, 0) + 1
    alike = sum(count * (count - 1) for count in counts.values())
    return 1.0 - alike / (len(types) * (len(types) - 1))


def _by_tags(items: Sequence[Mapping[str, Any]]) -> float:
    tags = [set(item.get("tags", ())) for item in items]
    frequency: dict[str, int] = {}
    for own in tags:
        for tag in own:
            frequency[tag] = frequency.get(tag, 0) + 1
    # A tag of one item alone is shared with nobody: it counts in unions, which needs no column.
    shared_tags = sorted((tag for tag, count in frequency.items() if count > 1), key=lambda tag: (-frequency[tag], tag))
    column = {tag: place for place, tag in enumerate(shared_tags[: MOST_CELLS // len(items)])}
    table = np.zeros((len(items), max(1, len(column))), dtype=np.float32)
    for row, own in enumerate(tags):
        table[row, [column[tag] for tag in own if tag in column]] = 1.0
    shared = (table @ table.T).astype(np.float64)
    counts = np.array([len(own) for own in tags], dtype=np.float64)
    union = counts[:, None] + counts[None, :] - shared
    codes = {item_type: code for code, item_type in enumerate(sorted({item.get("item_type", "") for item in items}))}
    types = np.array([codes[item.get("item_type", "")] if item.get("item_type") else -1 for item in items])
    equal = (types[:, None] == types[None, :]) & (types >= 0)[:, None]
    similarity = (shared + equal) / np.maximum(union + equal, 1.0)
    mean = (similarity.sum() - np.trace(similarity)) / (len(items) * (len(items) - 1))
    return float(min(1.0, max(0.0, 1.0 - mean)))
