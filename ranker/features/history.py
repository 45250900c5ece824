"""What a user did lately, in the form features are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Floats

LIMIT: Final = 200
"""Interactions of a user that are looked at, the newest."""

COUNT, LABEL_SUM, ACT_COUNT, LAST_SECONDS = range(4)
"""Columns of `History.by_type`; `by_tag` has the first two."""

ITEM_COUNT, ITEM_BEST_LABEL, ITEM_LAST_SECONDS, ITEM_DISMISSED = range(4)
"""Columns of `History.by_item`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A user's newest interactions, counted by type, tag and item. Row 0 of every table stands for what the user never met."""

    seconds: Floats
    """(n,) float64, when each interaction occurred in Unix seconds, newest first."""

    labels: Floats
    """(n,) float64, 0 to 1."""

    acts: NDArray[np.bool_]
    """(n,) bool, whether it acts."""

    dismissals: int
    """How many are dismissals."""

    type_rows: Mapping[str, int]
    """Row of `by_type` by item type."""

    by_type: Floats
    """(1 + n_types, 4) float64: interactions, sum of labels, interactions that act, Unix seconds of the newest."""

    tag_rows: Mapping[str, int]
    """Row of `by_tag` by tag."""

    by_tag: Floats
    """(1 + n_tags, 2) float64: interactions, sum of labels."""

    item_rows: Mapping[str, int]
    """Row of `by_item` by item."""

    by_item: Floats
    """(1 + n_items, 4) float64: interactions, best label, Unix seconds of the newest, 1 if dismissed."""

    dismissed: frozenset[str]
    """Items that the user dismissed."""

    liked: NDArray[np.float32] | None
    """(n_liked, size) float32, the unit embeddings of the items liked best; None: no liked item has one."""

    liked_weights: NDArray[np.float32] | None
    """(n_liked,) float32, how much each was liked."""

    @property
    def last_act_seconds(self) -> float:
        """Unix seconds of the newest interaction that acts; NaN: none does."""
        acted = self.seconds[self.acts]
        return float(acted.max()) if len(acted) else float("nan")


def _no_rows() -> Mapping[str, int]:
    return MappingProxyType({})


NO_HISTORY: Final = History(
    seconds=np.empty(0),
    labels=np.empty(0),
    acts=np.empty(0, dtype=np.bool_),
    dismissals=0,
    type_rows=_no_rows(),
    by_type=np.array([[0.0, 0.0, 0.0, np.nan]]),
    tag_rows=_no_rows(),
    by_tag=np.zeros((1, 2)),
    item_rows=_no_rows(),
    by_item=np.array([[0.0, np.nan, np.nan, 0.0]]),
    dismissed=frozenset(),
    liked=None,
    liked_weights=None,
)
"""Of a user nobody has seen."""
