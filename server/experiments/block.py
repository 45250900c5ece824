"""Rows of many users as columns: what a part of a digest holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.experiments.rows import Outline, Row

SLICE_BITS = 7
"""Slices are by the leading bits of users' keys: of ten million users, one takes some 10 MB of memory."""

COLUMNS = {"users": "<u8", "groups": "<i2", "periods": "<u2", "mixed": "?", "exposures": "<u4"}
CHANGE_COLUMNS = {"rows": "<u4", "days": "<i4", "exposures": "<u4"}
"""With their types, as stored; values are <f8."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Users, each once, and the changes of their primary metric."""

    users: NDArray[np.uint64]
    """(n,) keys."""
    groups: NDArray[np.int16]
    """(n,) −1: a variant that the experiment does not have."""
    periods: NDArray[np.uint16]
    """(n,)"""
    mixed: NDArray[np.bool_]
    """(n,)"""
    exposures: NDArray[np.uint32]
    """(n,)"""
    values: NDArray[np.float64]
    """(n, columns of all metrics) NaN where not measured."""
    change_rows: NDArray[np.uint32]
    """(m,) whose change it is: a place in `users`."""
    change_days: NDArray[np.int32]
    """(m,) from the end of which day on it holds."""
    change_exposures: NDArray[np.uint32]
    """(m,)"""
    change_values: NDArray[np.float64]
    """(m, columns of the primary metric)"""

    @classmethod
    def of(cls, outline: Outline, rows: Sequence[Row]) -> Block:
        """Of users that differ."""
        changes = [(place, change) for place, row in enumerate(rows) for change in row.changes]
        return cls(
            np.array([row.key for row in rows], dtype=np.uint64),
            np.array([row.group for row in rows], dtype=np.int16),
            np.array([row.period for row in rows], dtype=np.uint16),
            np.array([row.mixed for row in rows], dtype=np.bool_),
            np.array([row.exposure_count for row in rows], dtype=np.uint32),
            np.array([row.values for row in rows], dtype=np.float64).reshape(len(rows), sum(outline.widths)),
            np.array([place for place, _ in changes], dtype=np.uint32),
            np.array([change.day for _, change in changes], dtype=np.int32),
            np.array([change.exposure_count for _, change in changes], dtype=np.uint32),
            np.array([change.values for _, change in changes], dtype=np.float64).reshape(len(changes), outline.widths[0]),
        )

    @classmethod
    def from_document(cls, outline: Outline, document: Mapping[str, Any]) -> Block:
        """As stored; without its changes where those were not read."""
        users, groups, periods, mixed, exposures = (np.frombuffer(document[name], dtype=kind) for name, kind in COLUMNS.items())
        values = np.frombuffer(document["values"], dtype="<f8").reshape(len(users), sum(outline.widths))
        stored = document.get("changes") or dict.fromkeys((*CHANGE_COLUMNS, "values"), b"")
        rows, days, counts = (np.frombuffer(stored[name], dtype=kind) for name, kind in CHANGE_COLUMNS.items())
        change_values = np.frombuffer(stored["values"], dtype="<f8").reshape(len(rows), outline.widths[0])
        return cls(users, groups, periods, mixed, exposures, values, rows, days, counts, change_values)

    def to_document(self) -> dict[str, Any]:
        """Packed columns."""
        columns: tuple[NDArray[Any], ...] = (self.users, self.groups, self.periods, self.mixed, self.exposures)
        changes: tuple[NDArray[Any], ...] = (self.change_rows, self.change_days, self.change_exposures)
        packed: dict[str, Any] = {name: one.astype(kind).tobytes() for (name, kind), one in zip(COLUMNS.items(), columns, strict=True)}
        kept = {name: one.astype(kind).tobytes() for (name, kind), one in zip(CHANGE_COLUMNS.items(), changes, strict=True)}
        packed["values"] = self.values.astype("<f8").tobytes()
        return {"row_count": len(self), **packed, "changes": {**kept, "values": self.change_values.astype("<f8").tobytes()}}

    def __len__(self) -> int:
        return len(self.users)

    def take(self, places: NDArray[np.intp]) -> Block:
        """Some of the users, in this order."""
        new_place = np.full(len(self), -1, dtype=np.int64)
        new_place[places] = np.arange(len(places))
        rows = new_place[self.change_rows]
        kept = np.flatnonzero(rows >= 0)
        return Block(
            self.users[places],
            self.groups[places],
            self.periods[places],
            self.mixed[places],
            self.exposures[places],
            self.values[places],
            rows[kept].astype(np.uint32),
            self.change_days[kept],
            self.change_exposures[kept],
            self.change_values[kept],
        )

    def slices(self) -> dict[int, Block]:
        """The users of each slice; slices that have any."""
        of = slice_of(self.users)
        return {int(one): self.take(np.flatnonzero(of == one)) for one in np.unique(of)}

    def parts(self, row_count: int) -> list[Block]:
        """The same users in blocks of at most so many, by key."""
        order = np.argsort(self.users, kind="stable")
        return [self.take(order[first : first + row_count]) for first in range(0, len(order), row_count)]


def slice_of(users: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Which slice each user belongs to."""
    return users >> np.uint64(64 - SLICE_BITS)


def newest(outline: Outline, blocks: Sequence[Block]) -> Block:
    """All users of the blocks, oldest block first; whoever is in several, as in the newest of them."""
    if not blocks:
        return Block.of(outline, [])
    before = np.cumsum([0, *(len(block) for block in blocks)])
    whole = Block(
        np.concatenate([block.users for block in blocks]),
        np.concatenate([block.groups for block in blocks]),
        np.concatenate([block.periods for block in blocks]),
        np.concatenate([block.mixed for block in blocks]),
        np.concatenate([block.exposures for block in blocks]),
        np.concatenate([block.values for block in blocks]),
        np.concatenate([block.change_rows.astype(np.int64) + first for block, first in zip(blocks, before, strict=False)]).astype(
            np.uint32
        ),
        np.concatenate([block.change_days for block in blocks]),
        np.concatenate([block.change_exposures for block in blocks]),
        np.concatenate([block.change_values for block in blocks]),
    )
    order = np.argsort(whole.users, kind="stable")
    sorted_users = whole.users[order]
    last = np.append(sorted_users[1:] != sorted_users[:-1], np.ones(min(1, len(order)), dtype=np.bool_))
    return whole.take(order[last])
