"""The interactions of one day as columns: who did what when, in which session."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from collector.entries import mapping
from runtime.mongo import Document

ROW = np.dtype([("user", "<i4"), ("session", "<i4"), ("type", "<i2"), ("time", "<i4"), ("label", "<f8")])
"""An interaction. `user`, `session` and `type` are places among the names; `time` is milliseconds of the day."""
USE = np.dtype([("user", "<i4"), ("use", "<i4"), ("time", "<i4")])
"""That somebody used something."""
NO_SESSION = -1
HOUR_MILLISECONDS = 3_600_000
DAY_HOURS = 24
USED = ("page", "feature")
"""Keys of an interaction's context that say what was used."""
NAME_BYTES = 24
"""What a name takes in a document, roughly."""
Records = NDArray[Any]
Places = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class DayColumns:
    """Rows in no order."""

    users: tuple[str, ...]
    sessions: tuple[str, ...]
    types: tuple[str, ...]
    uses: tuple[tuple[str, str], ...]
    """What was used: kind (`page`, `feature`) and name."""
    rows: Records
    """(n,) of ROW."""
    used: Records
    """(m,) of USE."""

    @classmethod
    def empty(cls) -> Self:
        """Of a day that nothing is known of."""
        return cls((), (), (), (), np.empty(0, ROW), np.empty(0, USE))

    @classmethod
    def of(cls, entries: Iterable[Document]) -> Self:
        """From the ledger's interactions: `user_id`, `type`, `label`, `occur_time`, and `session_id`, `context` where there are any."""
        users, sessions, types, uses = dict[str, int](), dict[str, int](), dict[str, int](), dict[tuple[str, str], int]()
        rows, used = [], []
        for one in entries:
            time = _milliseconds(one["occur_time"])
            user = users.setdefault(one["user_id"], len(users))
            session = NO_SESSION if (name := one.get("session_id")) is None else sessions.setdefault(name, len(sessions))
            rows.append((user, session, types.setdefault(one["type"], len(types)), time, one["label"]))
            if context := one.get("context"):
                stated = mapping(context)
                used += [(user, uses.setdefault((kind, stated[kind]), len(uses)), time) for kind in USED if kind in stated]
        return cls(tuple(users), tuple(sessions), tuple(types), tuple(uses), np.array(rows, ROW), np.array(used, USE))

    @property
    def byte_count(self) -> int:
        """What it takes, packed or in memory, roughly."""
        return self.rows.nbytes + self.used.nbytes + NAME_BYTES * (len(self.users) + len(self.sessions))

    def stale(self, marks: Mapping[int, int]) -> list[int]:
        """Hours that have not as many interactions as the fold counted. `marks` are those counts by hour.

        Nothing else has to be compared: interactions are immutable, and what was read a moment too early is read again.
        """
        counts = np.bincount(self.rows["time"] // HOUR_MILLISECONDS, minlength=DAY_HOURS)
        return [hour for hour in range(DAY_HOURS) if marks.get(hour, 0) != counts[hour]]

    def replaced(self, hours: Collection[int], fresh: DayColumns) -> DayColumns:
        """With these hours from elsewhere."""
        users, user_places = _joined(self.users, fresh.users)
        sessions, session_places = _joined(self.sessions, fresh.sessions)
        types, type_places = _joined(self.types, fresh.types)
        uses, use_places = _joined(self.uses, fresh.uses)
        rows, used = fresh.rows.copy(), fresh.used.copy()
        rows["user"], used["user"] = user_places[rows["user"]], user_places[used["user"]]
        in_session = rows["session"] != NO_SESSION
        rows["session"][in_session] = session_places[rows["session"][in_session]]
        rows["type"], used["use"] = type_places[rows["type"]], use_places[used["use"]]
        kept, kept_uses = (~np.isin(of["time"] // HOUR_MILLISECONDS, list(hours)) for of in (self.rows, self.used))
        return DayColumns(
            users, sessions, types, uses, np.concatenate([self.rows[kept], rows]), np.concatenate([self.used[kept_uses], used])
        )

    def within(self, start: int, end: int) -> DayColumns:
        """Those of `[start, end)`, in milliseconds of the day."""
        if start <= 0 and end >= DAY_HOURS * HOUR_MILLISECONDS:
            return self
        rows, used = (of[(of["time"] >= start) & (of["time"] < end)] for of in (self.rows, self.used))
        return DayColumns(self.users, self.sessions, self.types, self.uses, rows, used)

    def to_document(self) -> Document:
        """As the database keeps it, without its id."""
        return {
            "users": list(self.users),
            "sessions": list(self.sessions),
            "types": list(self.types),
            "uses": [list(use) for use in self.uses],
            "rows": self.rows.tobytes(),
            "used": self.used.tobytes(),
        }

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """The reverse."""
        return cls(
            tuple(document["users"]),
            tuple(document["sessions"]),
            tuple(document["types"]),
            tuple((kind, name) for kind, name in document["uses"]),
            np.frombuffer(document["rows"], ROW),
            np.frombuffer(document["used"], USE),
        )


def _milliseconds(moment: datetime) -> int:
    return ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1000 + moment.microsecond // 1000


def _joined(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> tuple[tuple[Any, ...], Places]:
    """All names, and where theirs stand among them."""
    known = {name: place for place, name in enumerate(ours)}
    places = np.array([known.setdefault(name, len(known)) for name in theirs], dtype=np.int32)
    return tuple(known), places
