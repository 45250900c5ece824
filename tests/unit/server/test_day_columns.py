"""Interactions of a day as columns: what goes in comes out, hour by hour, packed or not."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.statistics.day_columns import NO_SESSION, DayColumns

DAY = datetime(2026, 3, 1, tzinfo=UTC)

entries = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["a", "b", "ü"]),
            "type": st.sampled_from(["view", "click"]),
            "label": st.floats(0, 1),
            "occur_time": st.integers(0, 24 * 3600 * 1000 - 1).map(lambda milliseconds: DAY + timedelta(milliseconds=milliseconds)),
        },
        optional={"session_id": st.sampled_from(["s", "t"]), "context": st.just([["page", "home"], ["device", "phone"], ["feature", "x"]])},
    ),
    max_size=30,
)


def told(columns: DayColumns) -> tuple[Counter[Any], Counter[Any]]:
    rows = Counter(
        (
            columns.users[row["user"]],
            None if row["session"] == NO_SESSION else columns.sessions[row["session"]],
            columns.types[row["type"]],
            int(row["time"]),
            float(row["label"]),
        )
        for row in columns.rows
    )
    return rows, Counter((columns.users[one["user"]], *columns.uses[one["use"]], int(one["time"])) for one in columns.used)


def expected(some: list[dict[str, Any]]) -> tuple[Counter[Any], Counter[Any]]:
    def at(one: dict[str, Any]) -> int:
        return int((one["occur_time"] - DAY) / timedelta(milliseconds=1))

    rows = Counter((one["user_id"], one.get("session_id"), one["type"], at(one), one["label"]) for one in some)
    uses = Counter(
        (one["user_id"], kind, name, at(one)) for one in some for kind, name in one.get("context", []) if kind in ("page", "feature")
    )
    return rows, uses


@given(entries, entries, st.sets(st.integers(0, 23)), st.integers(0, 86_400_000), st.integers(0, 86_400_000))
def test_hours_read_again_replace_what_was_known_of_them(
    before: list[dict[str, Any]], now: list[dict[str, Any]], again: set[int], start: int, end: int
) -> None:
    fresh = [one for one in now if one["occur_time"].hour in again]
    left = [one for one in before if one["occur_time"].hour not in again] + fresh
    columns = DayColumns.of(before).replaced(again, DayColumns.of(fresh))
    for some in (columns, DayColumns.from_document(columns.to_document())):
        assert told(some) == expected(left)
        within = [one for one in left if start <= (one["occur_time"] - DAY) / timedelta(milliseconds=1) < end]
        assert told(some.within(start, end)) == expected(within)


@given(entries, st.integers(0, 23))
def test_an_hour_is_stale_while_the_fold_counts_another_number(some: list[dict[str, Any]], hour: int) -> None:
    columns = DayColumns.of(some)
    counts = Counter(one["occur_time"].hour for one in some)
    assert columns.stale(counts) == []
    assert columns.stale(counts + Counter({hour: 1})) == [hour]
    assert DayColumns.empty().stale(counts) == sorted(counts)
