"""How alike the candidates of a request are."""

from __future__ import annotations

from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Candidates, Floats

WHOLE_CELLS: Final = 20_000
"""Pairs of candidates up to which all of them are worked out at once: so few cost less than the calls for one row after another."""
WHOLE_SHARE: Final = 4
"""With more candidates: all at once where at least one row in so many is going to be asked for."""
BLOCK_ROWS: Final = 128
"""Rows at a time, so that what lies between stays in the processor's cache."""
TABLE_CELLS: Final = 2_000_000
"""Candidates × tags up to which they are laid out as a table for that."""


class SimilarityRows(Protocol):
    """How alike one candidate is to all."""

    def row(self, place: int) -> Floats:
        """(n,) float64: the similarity of the candidate at `place` to every one; 1 at most, a cosine may be negative."""


class Similarities:
    """The similarity of any two candidates: the cosine of their embeddings where both have one, else the Jaccard index of their tags.

    In the Jaccard index an equal (and known) item type counts as one shared tag: (|A ∩ B| + e) ÷ (|A ∪ B| + e) with e = 1 if the types are
    equal and 0 if not; nothing in common, or nothing at all, is 0. A cosine may be negative.

    Rows are worked out when one asks for them: choosing 20 of 1,000 needs 20 rows, not a million pairs.
    """

    def __init__(self, candidates: Candidates, order: NDArray[np.int64], *, expected_rows: int) -> None:
        """Of some candidates in an order of their own.

        Args:
            candidates: of a request.
            order: (n,) int64, places of candidates; here they stand in this order, and places count from 0 again.
            expected_rows: how many rows are going to be asked for. Any may be; this only decides how they are worked out.
        """
        self._count = len(order)
        self._at_once = self._count**2 <= max(WHOLE_CELLS, WHOLE_SHARE * expected_rows * self._count)
        self._known: dict[int, Floats] = {}
        self._types = candidates.type_codes[order]
        self._tag_count = len(candidates.tag_names)
        counts = candidates.tag_counts
        starts = np.cumsum(counts) - counts
        self._counts = counts[order]
        self._ends = np.cumsum(self._counts)
        # Tag codes of candidate after candidate, in this order.
        within = np.arange(int(self._counts.sum())) - np.repeat(self._ends - self._counts, self._counts)
        self._codes = candidates.tag_codes[np.repeat(starts[order], self._counts) + within]
        self._owners = np.repeat(np.arange(self._count), self._counts)
        embeddings = candidates.embeddings
        present = None if embeddings is None else embeddings.present[order]
        if embeddings is None or present is None or not present.any():
            self._unit = self._present = None
        else:
            self._unit, self._present = embeddings.unit[order], present
        self._all_embedded = present is not None and bool(present.all())

    def __len__(self) -> int:
        return self._count

    def row(self, place: int) -> Floats:
        """(n,) float64: the similarity of the candidate at `place` to every one. Not to be written to."""
        if self._at_once:
            row: Floats = self._whole[place]
            return row
        known = self._known.get(place)
        if known is None:
            known = self._known[place] = self._rows(np.array([place]))[0]
        return known

    def among(self, places: NDArray[np.int64]) -> Floats:
        """(m, m) float64: the similarities of (m,) places to each other."""
        if self._at_once:
            return self._whole[places][:, places]
        return np.stack([self.row(place)[places] for place in places.tolist()]) if len(places) else np.empty((0, 0))

    def _rows(self, places: NDArray[np.int64]) -> Floats:
        """(m, n) float64: the similarities of (m,) places to every one."""
        if self._unit is None or self._present is None:
            return self._jaccard(places)
        cosine: Floats = np.clip((self._unit[places] @ self._unit.T).astype(np.float64), -1.0, 1.0)
        if self._all_embedded:
            return cosine
        both = self._present[places, None] & self._present
        return cosine if both.all() else np.where(both, cosine, self._jaccard(places))

    @cached_property
    def _whole(self) -> Floats:
        whole = np.empty((self._count, self._count))
        for begin in range(0, self._count, BLOCK_ROWS):
            end = min(begin + BLOCK_ROWS, self._count)
            whole[begin:end] = self._rows(np.arange(begin, end))
        return whole

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        # float32 counts exactly up to 2^24, and multiplies twice as fast.
        table = np.zeros((self._count, self._tag_count), dtype=np.float32)
        table[self._owners, self._codes] = 1.0
        return table

    def _jaccard(self, places: NDArray[np.int64]) -> Floats:
        shared = self._shared_tags(places)
        union = self._counts[places, None] + self._counts - shared
        equal = (self._types[places, None] == self._types) & (self._types >= 0)
        shared += equal
        union += equal
        # Where the union is empty nothing is shared either: 0 ÷ 1.
        shared /= np.maximum(union, 1.0)
        return shared

    def _shared_tags(self, places: NDArray[np.int64]) -> Floats:
        """(m, n) float64: how many tags each of (m,) places shares with every one."""
        if len(places) > 1 and self._count * self._tag_count <= TABLE_CELLS:
            return (self._table[places] @ self._table.T).astype(np.float64)
        shared = np.empty((len(places), self._count))
        held = np.zeros(self._tag_count)
        for row, place in zip(shared, places.tolist(), strict=True):
            end = int(self._ends[place])
            own = self._codes[end - int(self._counts[place]) : end]
            held[own] = 1.0
            row[:] = np.bincount(self._owners, weights=held[self._codes], minlength=self._count)
            held[own] = 0.0
        return shared


def diversity_score(similarities: Floats) -> float | None:
    """1 − mean pairwise similarity of (k, k) float64, within 0 to 1; None for fewer than two items."""
    count = len(similarities)
    if count < 2:
        return None
    pairs = count * (count - 1)
    mean = (float(similarities.sum()) - float(np.trace(similarities))) / pairs
    return min(1.0, max(0.0, 1.0 - mean))
