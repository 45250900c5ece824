"""The catalogue's items as columns."""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.state.rows import Rows, grown

Document = Mapping[str, Any]

_EMBEDDING_TYPE = np.dtype("<f4")


class Catalogue:
    """What the catalogue says of items. Row 0 is the item nobody knows."""

    def __init__(self, rows: Rows, number_names: Sequence[str]) -> None:
        """`number_names` are the numbers that are features, in the order of the request family."""
        self._rows = rows
        self._number_names = tuple(number_names)
        self.item_types: list[str] = [""]
        """Type by row; empty: unknown."""
        self.tiers: list[str] = [""]
        """The attribute `tier` by row; empty: none."""
        self.tags: list[tuple[str, ...]] = [()]
        """Tags by row, none twice."""
        self._create_seconds = np.full(1, np.nan)
        self._update_seconds = np.full(1, np.nan)
        self._available = np.zeros(1, dtype=np.bool_)
        self._numbers = np.full((1, len(self._number_names)), np.nan)
        self._embeddings: NDArray[np.float32] | None = None
        self._embedded = np.zeros(1, dtype=np.bool_)
        self.newest_update_seconds = float("-inf")
        """The largest update time seen, in Unix seconds."""

    @property
    def embedding_size(self) -> int | None:
        """The size of the catalogue's embeddings; None: none is known yet."""
        return None if self._embeddings is None else int(self._embeddings.shape[1])

    def replace(self, documents: Sequence[Document], *, settled_before: float = float("-inf")) -> None:
        """Takes in items as they are in the database. Saying it again changes nothing.

        Args:
            documents: of `items`.
            settled_before: Unix seconds; an item whose update time is before this and the one already held is passed over.
        """
        for document in documents:
            updated = _seconds(document["update_time"])
            row = self._rows.add(document["_id"])
            if row == 0:
                continue
            self._grow()
            if updated < settled_before and self._update_seconds[row] == updated:
                continue
            self.newest_update_seconds = max(self.newest_update_seconds, updated)
            self._update_seconds[row] = updated
            self._take(row, {} if document.get("deleted") else document)

    def create_seconds(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) float64 for (n,) rows: creation in Unix seconds; NaN: unknown."""
        self._grow()
        found: NDArray[np.float64] = self._create_seconds[rows]
        return found

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, n_numbers) float64 for (n,) rows; NaN: none."""
        self._grow()
        found: NDArray[np.float64] = self._numbers[rows]
        return found

    def available(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) bool for (n,) rows: in the catalogue, not deleted, and not said to be unavailable."""
        self._grow()
        found: NDArray[np.bool_] = self._available[rows]
        return found

    def embeddings(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
        """(n, size) float32 unit vectors and (n,) bool whether there is one, for (n,) rows; None: the catalogue has none at all."""
        self._grow()
        if self._embeddings is None:
            return None
        return self._embeddings[rows], self._embedded[rows]

    def _take(self, row: int, document: Document) -> None:
        self.item_types[row] = sys.intern(document.get("item_type") or "")
        self.tiers[row] = sys.intern((document.get("attributes") or {}).get("tier", ""))
        self.tags[row] = tuple(dict.fromkeys(map(sys.intern, document.get("tags") or ())))
        created = document.get("create_time")
        self._create_seconds[row] = math.nan if created is None else _seconds(created)
        self._available[row] = bool(document) and document.get("available", True)
        numbers = document.get("numbers") or {}
        self._numbers[row] = [numbers.get(name, math.nan) for name in self._number_names]
        self._embedded[row] = False
        if self._embeddings is not None:
            self._embeddings[row] = 0.0
        if document.get("embedding"):
            self._take_embedding(row, np.frombuffer(document["embedding"], dtype=_EMBEDDING_TYPE).astype(np.float64))

    def _take_embedding(self, row: int, embedding: NDArray[np.float64]) -> None:
        if self._embeddings is None:
            self._embeddings = np.zeros((len(self._embedded), len(embedding)), dtype=np.float32)
        length = float(np.linalg.norm(embedding))
        # The first size holds for the deployment; the catalogue refuses others, so another one here is nothing to serve with.
        if len(embedding) != self._embeddings.shape[1] or not math.isfinite(length) or length == 0.0:
            return
        self._embeddings[row] = embedding / length
        self._embedded[row] = True

    def _grow(self) -> None:
        missing = self._rows.end - len(self.tags)
        if missing > 0:
            self.item_types.extend([""] * missing)
            self.tiers.extend([""] * missing)
            self.tags.extend([()] * missing)
        old = len(self._embedded)
        if old < self._rows.end:
            length = grown(old, self._rows.end)
            self._create_seconds = _extended(self._create_seconds, length, np.nan)
            self._update_seconds = _extended(self._update_seconds, length, np.nan)
            self._available = _extended(self._available, length, False)
            self._numbers = _extended(self._numbers, length, np.nan)
            self._embedded = _extended(self._embedded, length, False)
            if self._embeddings is not None:
                self._embeddings = _extended(self._embeddings, length, 0.0)


def _extended(column: NDArray[Any], length: int, fill: float | bool) -> NDArray[Any]:
    longer = np.full((length, *column.shape[1:]), fill, dtype=column.dtype)
    longer[: len(column)] = column
    return longer


def _seconds(moment: datetime.datetime) -> float:
    return moment.timestamp()
