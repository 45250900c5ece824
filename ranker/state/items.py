"""Everything a ranking worker knows of items, in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Candidates, Embeddings, RequestColumns
from ranker.state.catalogue import Catalogue
from ranker.state.rows import Rows
from ranker.state.tallies import WindowedTallies

DAY_SECONDS: Final = 86_400
OVERALL_KEY: Final = ""
"""Key of the tally of everything."""


def day_of(seconds: float) -> int:
    """The UTC day of a moment in Unix seconds, counted from 1970-01-01."""
    return int(seconds // DAY_SECONDS)


class ItemState:
    """Catalogue and windowed tallies per item, tallies per type and of everything. A miss is an item of defaults."""

    def __init__(
        self,
        number_names: Sequence[str],
        *,
        today: int,
        item_capacity: int = 2_000_000,
        type_capacity: int = 100_000,
        tallies: Callable[[Rows, int], WindowedTallies] = WindowedTallies,
    ) -> None:
        """`number_names` as `Catalogue`; `today` as `WindowedTallies`; over the capacities further items and types are misses.

        `tallies` makes what counts, from rows and today.
        """
        self.rows = Rows(item_capacity)
        self.catalogue = Catalogue(self.rows, number_names)
        self.tallies = tallies(self.rows, today)
        self._type_rows = Rows(type_capacity)
        self.type_tallies = tallies(self._type_rows, today)
        self._overall_rows = Rows(1)
        self.overall_tallies = tallies(self._overall_rows, today)

    @property
    def item_count(self) -> int:
        """Items held."""
        return len(self.rows)

    @property
    def refused_count(self) -> int:
        """How often an item or type found no room."""
        return self.rows.refused_count + self._type_rows.refused_count

    def advance(self, today: int) -> None:
        """Moves all windows on to a later day."""
        for tallies in (self.tallies, self.type_tallies, self.overall_tallies):
            tallies.advance(today)

    def item_type(self, item_id: str) -> str:
        """The item's type by the catalogue; empty: unknown."""
        row = self.rows.get(item_id)
        return self.catalogue.item_types[row] if row < len(self.catalogue.item_types) else ""

    def tags(self, item_id: str) -> tuple[str, ...]:
        """The item's tags by the catalogue."""
        row = self.rows.get(item_id)
        return self.catalogue.tags[row] if row < len(self.catalogue.tags) else ()

    def embeddings(self, item_ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
        """(n, size) float32 unit vectors and (n,) bool whether there is one, by the catalogue; None: it has none at all."""
        return self.catalogue.embeddings(self.rows.find(item_ids, len(item_ids)))

    def join(self, columns: RequestColumns) -> Candidates:
        """The candidates of a request with what is known of them; what the request says wins."""
        count = len(columns.item_ids)
        rows = self.rows.find(columns.item_ids, count)
        catalogue = self.catalogue
        created = catalogue.create_seconds(rows)  # also makes room for rows that only tallies know
        np.copyto(created, columns.create_seconds, where=~np.isnan(columns.create_seconds))
        places = rows.tolist()
        types = [said or catalogue.item_types[row] for said, row in zip(columns.item_types, places, strict=True)]
        tags = [tuple(dict.fromkeys(said)) if said else catalogue.tags[row] for said, row in zip(columns.tags, places, strict=True)]
        tag_codes, tag_names = _coded(chain.from_iterable(tags))
        return Candidates(
            item_ids=columns.item_ids,
            item_types=types,
            type_codes=_type_codes(types),
            tiers=[said or catalogue.tiers[row] for said, row in zip(columns.tiers, places, strict=True)],
            tag_names=tag_names,
            tag_codes=tag_codes,
            tag_counts=np.fromiter(map(len, tags), dtype=np.int64, count=count),
            embeddings=self._embeddings(columns, rows),
            age_days=np.maximum((columns.moment_seconds - created) / DAY_SECONDS, 0.0),
            priors=columns.priors,
            numbers=catalogue.numbers(rows),
            item_tallies=self.tallies.at(rows),
            type_tallies=self.type_tallies.at(self._type_rows.find(types, count)),
            overall_tallies=self.overall_tallies.at(self._overall_rows.find((OVERALL_KEY,), 1))[0],
        )

    def _embeddings(self, columns: RequestColumns, rows: NDArray[np.int64]) -> Embeddings | None:
        known = self.catalogue.embeddings(rows)
        if columns.embeddings is None:
            return None if known is None or not known[1].any() else Embeddings(unit=known[0], present=known[1])
        sent = columns.embeddings.astype(np.float64)
        lengths = np.linalg.norm(sent, axis=1)
        present = np.isfinite(lengths) & (lengths > 0.0)
        unit = np.zeros(sent.shape, dtype=np.float32)
        unit[present] = sent[present] / lengths[present, None]
        if known is not None and known[0].shape[1:] == unit.shape[1:]:
            absent = ~present & known[1]
            unit[absent] = known[0][absent]
            present |= absent
        return Embeddings(unit=unit, present=present)


def _coded(names: chain[str]) -> tuple[NDArray[np.int64], list[str]]:
    codes: dict[str, int] = {}
    coded = [codes.setdefault(name, len(codes)) for name in names]
    return np.array(coded, dtype=np.int64), list(codes)


def _type_codes(types: Sequence[str]) -> NDArray[np.int64]:
    codes: dict[str, int] = {"": -1}
    coded = [codes.setdefault(name, len(codes) - 1) for name in types]
    return np.array(coded, dtype=np.int64)
