"""The columns that a model learns from, and what was left out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCounts:
    """What was found in the look-back window, and what was left out."""

    interactions: int = 0
    """Interactions that occurred in the window."""
    unmatched_interactions: int = 0
    """Of those, the ones that belong to no slate of the window."""
    slates: int = 0
    """Slates shown in the window."""
    slates_without_features: int = 0
    """Left out: recorded without the feature values they were ranked by, and not replayed."""
    slates_replayed: int = 0
    """Recorded without them, or with some only; the features are those that the ledger up to that moment gives."""
    slates_over_cap: int = 0
    """Left out: their user has more slates than one user may have."""
    slates_with_bad_features: int = 0
    """Left out: the logged values do not fit the items, or their schema is not known."""
    slates_of_one_item: int = 0
    """Left out: nothing to rank."""
    labelled_slates_of_one_item: int = 0
    """Of those, the ones whose item has a label above 0."""
    slates_without_label: int = 0
    """Left out: nobody did anything with any of their items, or only what has a label of 0."""
    slates_of_other_schemas: int = 0
    """Used, their features mapped by name."""
    used_slates: int = 0
    used_rows: int = 0
    """Impressions of the used slates."""
    used_users: int = 0
    labelled_rows: int = 0
    """Used impressions with a label above 0."""
    sampled_out_rows: int = 0
    """Left out of the train slice alone: impressions without a label beyond those asked for."""
    slates_in_gap: int = 0
    """Left out: shown just before the next slice begins."""
    unseen_rows: int = 0
    """Left out: impressions of the used slates that nobody was seen to look at, where views show who looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codebook:
    """What the codes of the columns stand for; a code is a place here."""

    items: tuple[str, ...] = ()
    """Item ids."""
    item_types: tuple[str, ...] = ()
    """Item types; an empty one is an unknown one."""
    surfaces: tuple[str, ...] = ()
    """Surfaces; an empty one was not said."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingData:
    """Slates in the order they were shown, as columns."""

    feature_names: tuple[str, ...]
    schema_hash: str
    matrix: NDArray[np.float64]
    """(rows, features) float64, as logged; NaN is missing."""
    labels: NDArray[np.float64]
    """(rows,) float64, 0 to 1; 0 where nobody touched the impression."""
    positions: NDArray[np.int32]
    """(rows,) int32, from 1."""
    items: NDArray[np.int32]
    """(rows,) int32, codes of the items."""
    item_types: NDArray[np.int32]
    """(rows,) int32, codes of their types."""
    offsets: NDArray[np.int64]
    """(slates + 1,) int64: rows of slate s are offsets[s] to offsets[s + 1] − 1."""
    show_times: NDArray[np.int64]
    """(slates,) int64, milliseconds since 1970."""
    users: NDArray[np.int64]
    """(slates,) int64, a code per user; a slate without a user has a code of its own."""
    surfaces: NDArray[np.int32]
    """(slates,) int32, codes of the surfaces."""
    ranking_ids: NDArray[np.object_]
    """(slates,) str."""
    codebook: Codebook
    """What the codes stand for."""

    @property
    def slate_count(self) -> int:
        """Slates."""
        return int(self.offsets.size - 1)

    @property
    def row_count(self) -> int:
        """Impressions."""
        return int(self.offsets[-1])

    @property
    def group_sizes(self) -> NDArray[np.int64]:
        """(slates,) int64, items of each."""
        return np.diff(self.offsets)

    def part(self, first: int, last: int) -> TrainingData:
        """Slates `first` to `last` − 1, as views."""
        rows, slates = slice(int(self.offsets[first]), int(self.offsets[last])), slice(first, last)
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in ROW_COLUMNS},
            **{name: getattr(self, name)[slates] for name in SLATE_COLUMNS},
            offsets=self.offsets[first : last + 1] - rows.start,
        )

    def chosen(self, slates: NDArray[np.int64]) -> TrainingData:
        """These slates, (n,) int64 places in rising order, as copies."""
        sizes = self.group_sizes[slates]
        offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        rows = np.repeat(self.offsets[slates] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in ROW_COLUMNS},
            **{name: getattr(self, name)[slates] for name in SLATE_COLUMNS},
            offsets=offsets,
        )

    def shuffled(self, seed: int) -> TrainingData:
        """The rows of every slate in a random order, as copies; slates stay where they are."""
        drawn = np.random.default_rng(seed).random(self.row_count)
        rows = np.lexsort((drawn, np.repeat(np.arange(self.slate_count), self.group_sizes)))
        return replace(self, **{name: getattr(self, name)[rows] for name in ROW_COLUMNS})

    def columns(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(rows, len(names)) float64: these features in this order, NaN for those there are not. A view where it is all of them."""
        if tuple(names) == self.feature_names:
            return self.matrix
        chosen = np.full((self.row_count, len(names)), np.nan)
        for target, name in enumerate(names):
            if name in self.feature_names:
                chosen[:, target] = self.matrix[:, self.feature_names.index(name)]
        return chosen


ROW_COLUMNS = ("matrix", "labels", "positions", "items", "item_types")
SLATE_COLUMNS = ("show_times", "users", "surfaces", "ranking_ids")
