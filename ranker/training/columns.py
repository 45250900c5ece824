"""Columns that are filled slate by slate, in room that was made before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from ranker.training.data import Codebook, TrainingData
from ranker.training.failures import CannotTrain

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSlate:
    """A slate as it was shown, as far as it is learned from."""

    ranking_id: str
    user_id: str
    surface: str
    show_time: datetime
    item_ids: Sequence[str]
    item_types: Sequence[str]
    positions: Sequence[int]
    features: bytes
    """Little-endian float64, (items, names of the schema)."""
    schema_hash: str


class Columns:
    """Takes slates in, in the order they were shown, or counts why not."""

    def __init__(
        self,
        *,
        feature_names: tuple[str, ...],
        schema_hash: str,
        schemas: Mapping[str, tuple[str, ...]],
        seen_only: bool,
        row_capacity: int,
        slate_capacity: int,
    ) -> None:
        """`schemas` gives the column names by hash. The capacities must hold all that is added: room that is never written to costs
        nothing, since the machine hands out memory when it is touched.

        Raises:
            CannotTrain: the machine has not so much.
        """
        self.counts: Counter[str] = Counter()
        self._feature_names = feature_names
        self._schema_hash = schema_hash
        self._schemas = schemas
        self._seen_only = seen_only
        try:
            self._matrix = np.empty((row_capacity, len(feature_names)))
        except MemoryError:
            gibibytes = row_capacity * len(feature_names) * 8 / 2**30
            raise CannotTrain(
                f"{row_capacity:,} impressions of {len(feature_names)} features need {gibibytes:.0f} GiB, "
                "which this machine does not have: look back less far (--lookback-days), or use fewer slates of each user "
                "(trainer.max_slates_per_user)",
                "TOO_LARGE",
            ) from None
        self._labels = np.empty(row_capacity)
        self._positions = np.empty(row_capacity, dtype=np.int32)
        self._items = np.empty(row_capacity, dtype=np.int32)
        self._item_types = np.empty(row_capacity, dtype=np.int32)
        self._ends = np.empty(slate_capacity, dtype=np.int64)
        self._show_times = np.empty(slate_capacity, dtype=np.int64)
        self._users = np.empty(slate_capacity, dtype=np.int64)
        self._surfaces = np.empty(slate_capacity, dtype=np.int32)
        self._ranking_ids: list[str] = []
        self._item_codes: dict[str, int] = {}
        self._type_codes: dict[str, int] = {}
        self._surface_codes: dict[str, int] = {}
        self._user_codes: dict[str, int] = {}
        self._mappings: dict[str, tuple[list[int], list[int]]] = {}
        self._rows = 0

    def add(self, slate: ShownSlate, labels: Mapping[str, float]) -> None:
        """Takes a slate in; `labels` are those of its items that had an interaction."""
        names, item_ids = self._schemas.get(slate.schema_hash), slate.item_ids
        if names is None or len(slate.features) != 8 * len(item_ids) * len(names):
            self.counts["bad"] += 1
            return
        if len(item_ids) < 2:
            self.counts["one item"] += 1
            self.counts["one item, with a label"] += any(label > 0 for label in labels.values())
            return
        if not any(label > 0 for label in labels.values()):
            self.counts["no label"] += 1
            return
        values = np.frombuffer(slate.features, dtype="<f8").reshape(len(item_ids), len(names))
        item_types, positions = slate.item_types, slate.positions
        if self._seen_only:
            places = [place for place, item_id in enumerate(item_ids) if item_id in labels]
            if len(places) < 2:
                self.counts["one item"] += 1
                self.counts["one item, with a label"] += 1
                return
            self.counts["unseen"] += len(item_ids) - len(places)
            values = values[places]
            item_ids = [item_ids[place] for place in places]
            item_types = [item_types[place] for place in places]
            positions = [positions[place] for place in places]
        of_items = [labels.get(item_id, 0.0) for item_id in item_ids]
        if not max(of_items) > 0:
            self.counts["no label"] += 1
            return
        begin, end = self._rows, self._rows + len(item_ids)
        self._put(values, slate.schema_hash, names, begin, end)
        self._labels[begin:end] = of_items
        self._positions[begin:end] = positions
        code, codes = self._item_codes.setdefault, self._item_codes
        self._items[begin:end] = [code(item_id, len(codes)) for item_id in item_ids]
        type_code, type_codes = self._type_codes.setdefault, self._type_codes
        self._item_types[begin:end] = [type_code(item_type, len(type_codes)) for item_type in item_types]
        place = len(self._ranking_ids)
        self._ends[place] = self._rows = end
        self._show_times[place] = (slate.show_time - _EPOCH) // _MILLISECOND
        # Visitors without an id are not one person: each of their slates counts as a user of its own.
        user = slate.user_id or f"\0{slate.ranking_id}"
        self._users[place] = self._user_codes.setdefault(user, len(self._user_codes))
        self._surfaces[place] = self._surface_codes.setdefault(slate.surface, len(self._surface_codes))
        self._ranking_ids.append(slate.ranking_id)

    @property
    def user_count(self) -> int:
        """Users of what was taken in, a visitor without an id being one per slate."""
        return len(self._user_codes)

    def finished(self) -> TrainingData:
        """What was taken in, as views."""
        rows, slates = self._rows, len(self._ranking_ids)
        return TrainingData(
            feature_names=self._feature_names,
            schema_hash=self._schema_hash,
            matrix=self._matrix[:rows],
            labels=self._labels[:rows],
            positions=self._positions[:rows],
            items=self._items[:rows],
            item_types=self._item_types[:rows],
            offsets=np.concatenate(([0], self._ends[:slates])),
            show_times=self._show_times[:slates],
            users=self._users[:slates],
            surfaces=self._surfaces[:slates],
            ranking_ids=np.array(self._ranking_ids, dtype=np.object_),
            codebook=Codebook(items=tuple(self._item_codes), item_types=tuple(self._type_codes), surfaces=tuple(self._surface_codes)),
        )

    def _put(self, values: NDArray[np.float64], schema_hash: str, names: Sequence[str], begin: int, end: int) -> None:
        if schema_hash == self._schema_hash:
            self._matrix[begin:end] = values
            return
        self.counts["other schema"] += 1
        sources, targets = self._mapping(schema_hash, names)
        self._matrix[begin:end] = np.nan
        self._matrix[begin:end, targets] = values[:, sources]

    def _mapping(self, schema_hash: str, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """The columns of another schema that have a place in this one, and their places."""
        if schema_hash not in self._mappings:
            places = {name: column for column, name in enumerate(self._feature_names)}
            common = [(source, places[name]) for source, name in enumerate(names) if name in places]
            self._mappings[schema_hash] = ([source for source, _ in common], [target for _, target in common])
        return self._mappings[schema_hash]
