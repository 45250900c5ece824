"""How long people took with what they were shown on one day: the values, hour by hour, and what says that they still stand."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtime.mongo import Document

Values = NDArray[np.int64]
Integers = NDArray[np.integer[Any]]
NAMES = ("action", "completion")
NOT_MEASURED = -1
DAY_HOURS = range(24)
COUNTERS = ("acted", "action_milliseconds", "completed", "completion_milliseconds")
MARK_BYTES = 16


@dataclass(frozen=True, slots=True)
class DayTimes:
    """Columns of the impressions that were acted upon or completed; each (n,), in no order."""

    marks: Mapping[int, bytes]
    """By hour, what `marks_of` said when its values were read; an hour without anything has none."""
    types: tuple[str, ...]
    type_places: Integers
    """Into `types`."""
    hours: Integers
    """Of the day, when they were shown."""
    action: Integers
    """Milliseconds; NOT_MEASURED where it was not acted upon."""
    completion: Integers

    @classmethod
    def empty(cls) -> Self:
        """Of a day that nothing is known of."""
        nothing = np.empty(0, dtype=np.int32)
        return cls({}, (), nothing, nothing, nothing, nothing)

    @classmethod
    def of(cls, marks: Mapping[int, bytes], timed: Collection[Document]) -> Self:
        """From attributions' `timed`: `shown`, `type`, and `action`, `completion` where there are any."""
        types = tuple(sorted({one["type"] for one in timed}))
        place = {name: at for at, name in enumerate(types)}
        return cls(
            marks,
            types,
            _narrow([place[one["type"]] for one in timed]),
            _narrow([one["shown"].hour for one in timed]),
            *(_narrow([NOT_MEASURED if (value := one.get(name)) is None else value for one in timed]) for name in NAMES),
        )

    @property
    def byte_count(self) -> int:
        """What it takes, packed or in memory, roughly."""
        return sum(column.nbytes for column in (self.type_places, self.hours, self.action, self.completion))

    def stale(self, marks: Mapping[int, bytes]) -> list[int]:
        """Hours whose values changed since they were read."""
        return [hour for hour in DAY_HOURS if marks.get(hour) != self.marks.get(hour)]

    def replaced(self, hours: Collection[int], fresh: DayTimes) -> DayTimes:
        """With other values of some hours."""
        kept = ~np.isin(self.hours, list(hours))
        types = tuple(sorted({*self.types, *fresh.types}))
        marks = {hour: mark for hour, mark in self.marks.items() if hour not in hours} | dict(fresh.marks)
        return DayTimes(
            marks,
            types,
            np.concatenate([_places(self.types, types)[self.type_places[kept]], _places(fresh.types, types)[fresh.type_places]]),
            np.concatenate([self.hours[kept], fresh.hours]),
            np.concatenate([self.action[kept], fresh.action]),
            np.concatenate([self.completion[kept], fresh.completion]),
        )

    def values(self, name: str, hours: range) -> dict[str, Values]:
        """Times of that name (`action`, `completion`) of what was shown in these hours, in milliseconds, by item type."""
        column: Integers = getattr(self, name)
        wanted = (column != NOT_MEASURED) & (self.hours >= hours.start) & (self.hours < hours.stop)
        places, values = self.type_places[wanted], column[wanted].astype(np.int64)
        return {item_type: found for at, item_type in enumerate(self.types) if len(found := values[places == at])}

    def to_document(self) -> Document:
        """As the database keeps it, without its id."""
        columns = {name: _packed(getattr(self, name)) for name in ("type_places", "hours", *NAMES)}
        return {"marks": {str(hour): mark for hour, mark in self.marks.items()}, "types": list(self.types), **columns}

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """The reverse."""
        columns = [_unpacked(document[name]) for name in ("type_places", "hours", *NAMES)]
        return cls({int(hour): mark for hour, mark in document["marks"].items()}, tuple(document["types"]), *columns)


def marks_of(tallies: Collection[Document]) -> dict[int, bytes]:
    """By hour of a day, what changes whenever a value of that hour does, from the tallies of all item types of the day.

    A value is added with its impression, whose count goes up, and can only become smaller after that, so that its sum goes down: while how
    many there are and their sums stand, so do the values.
    """
    found: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for tally in tallies:
        for hour, counters in tally.get("hours", {}).items():
            numbers = tuple(counters.get(name, 0) for name in COUNTERS)
            if any(numbers):
                found.setdefault(int(hour), []).append((tally["_id"]["key"], numbers))
    return {hour: hashlib.blake2b(repr(sorted(some)).encode(), digest_size=MARK_BYTES).digest() for hour, some in found.items()}


def _places(types: tuple[str, ...], among: tuple[str, ...]) -> Integers:
    """Where each of the types stands among others."""
    return np.array([among.index(name) for name in types], dtype=np.int32)


def _narrow(values: list[int]) -> Integers:
    """In 4 bytes each, unless somebody took more than 24 days."""
    found = np.array(values, dtype=np.int64)
    return found if len(found) and found.max() > np.iinfo(np.int32).max else found.astype(np.int32)


def _packed(column: Integers) -> Document:
    return {"width": column.dtype.itemsize, "values": column.astype(f"<i{column.dtype.itemsize}").tobytes()}


def _unpacked(document: Document) -> Integers:
    return np.frombuffer(document["values"], dtype=f"<i{document['width']}")
