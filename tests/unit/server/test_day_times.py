"""Times of a day: columns that stand for what was read, hour by hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.statistics.day_times import NAMES, DayTimes, marks_of
from server.statistics.kept_days import stretches

DAY = datetime(2026, 3, 1, tzinfo=UTC)

impressions = st.lists(
    st.fixed_dictionaries(
        {"shown": st.integers(0, 24 * 3600 - 1).map(lambda seconds: DAY + timedelta(seconds=seconds)), "type": st.sampled_from("abc")},
        optional={"action": st.none() | st.integers(0, 2**40), "completion": st.integers(0, 10**6)},
    ),
    max_size=40,
)


def listed(timed: list[dict[str, Any]], name: str, hours: range) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for one in timed:
        if one.get(name) is not None and one["shown"].hour in hours:
            found.setdefault(one["type"], []).append(one[name])
    return {item_type: sorted(values) for item_type, values in found.items()}


def held(times: DayTimes, name: str, hours: range) -> dict[str, list[int]]:
    return {item_type: sorted(values.tolist()) for item_type, values in times.values(name, hours).items()}


@given(impressions, impressions, st.sets(st.integers(0, 23)), st.integers(0, 23), st.integers(1, 24))
def test_hours_read_again_replace_what_was_known_of_them(
    before: list[dict[str, Any]], now: list[dict[str, Any]], again: set[int], start: int, end: int
) -> None:
    marks = {one["shown"].hour: b"old" for one in before}
    fresh = [one for one in now if one["shown"].hour in again]
    known = DayTimes.of(marks, before).replaced(again, DayTimes.of({one["shown"].hour: b"new" for one in fresh}, fresh))
    packed = DayTimes.from_document(known.to_document())
    left = [one for one in before if one["shown"].hour not in again] + fresh
    for times in (known, packed):
        for name in NAMES:
            assert held(times, name, range(start, end)) == listed(left, name, range(start, end))
        assert times.stale({hour: mark for hour, mark in marks.items() if hour not in again}) == sorted(
            {one["shown"].hour for one in fresh}
        )
    assert packed.marks == known.marks


def test_a_mark_changes_with_what_is_counted_in_its_hour_and_with_nothing_else() -> None:
    def tally(item_type: str, hours: dict[str, dict[str, int]]) -> dict[str, Any]:
        return {"_id": {"scope": "type", "start": DAY, "key": item_type}, "hours": hours}

    counted = {"acted": 2, "action_milliseconds": 900, "impressions": 9}
    marks = marks_of([tally("a", {"3": counted, "4": {"impressions": 5}}), tally("b", {"3": {"completed": 1}})])
    assert marks.keys() == {3}
    assert marks == marks_of([tally("b", {"3": {"completed": 1}}), tally("a", {"3": counted | {"impressions": 10}})])
    for change in ({"acted": 3}, {"action_milliseconds": 800}, {"completed": 1}, {"completion_milliseconds": 7}):
        assert marks != marks_of([tally("a", {"3": counted | change}), tally("b", {"3": {"completed": 1}})])
    assert marks != marks_of([tally("b", {"3": counted}), tally("a", {"3": {"completed": 1}})])


def test_hours_side_by_side_are_one_stretch() -> None:
    assert stretches([5, 3, 4, 9]) == [(3, 6), (9, 10)]
    assert stretches([]) == []
