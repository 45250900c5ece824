"""Windows over tallies: whatever comes in whatever order, they hold what a plain sum says."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.features.counters import COUNTERS, WINDOW_DAYS
from ranker.state.daybook import Daybook, keys_of
from ranker.state.rows import Rows
from ranker.state.tallies import WindowedTallies

TODAY = 20_000
COUNT = len(COUNTERS)

entries = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(TODAY - 70, TODAY + 3), st.integers(0, 10**12)), min_size=1, max_size=12)
steps = st.lists(st.one_of(entries, st.integers(1, 40)), max_size=12)


def naive(known: dict[tuple[str, int], int], key: str, today: int) -> list[list[int]]:
    """(windows, counters): counter j of a day was recorded as value + j."""

    def total(days: range | None) -> list[int]:
        values = [value for (one, day), value in known.items() if one == key and (days is None or day in days)]
        return [sum(value + counter for value in values) for counter in range(COUNT)]

    return [total(range(today - length + 1, today + 1)) for length in WINDOW_DAYS] + [total(None)]


@settings(max_examples=150, deadline=None)
@given(steps)
def test_windows_are_plain_sums_whatever_the_order_of_counts_and_days(done: list[list[tuple[str, int, int]] | int]) -> None:
    rows = Rows(100)
    tallies = WindowedTallies(rows, TODAY)
    known: dict[tuple[str, int], int] = {}
    today = TODAY
    for step in done:
        if isinstance(step, int):
            today += step
            tallies.advance(today)
        else:
            keys, days, values = zip(*step, strict=True)
            tallies.replace(keys, days, [[value + counter for counter in range(COUNT)] for value in values])
            known |= {(key, day): value for key, day, value in step}
    for key in "abcd":
        assert tallies.at(rows.find([key], 1))[0].tolist() == naive(known, key, today)


def test_saying_it_again_changes_nothing() -> None:
    rows = Rows(10)
    tallies = WindowedTallies(rows, TODAY)
    for _ in range(3):
        tallies.replace(["a"], [TODAY], [[5] * COUNT])
    assert tallies.at(rows.find(["a"], 1))[0].tolist() == [[5] * COUNT] * 4


def test_a_day_ends_at_midnight() -> None:
    rows = Rows(10)
    tallies = WindowedTallies(rows, TODAY)
    tallies.replace(["a", "a"], [TODAY, TODAY - 29], [[1] * COUNT, [10] * COUNT])
    assert tallies.at(rows.find(["a"], 1))[0, :, 0].tolist() == [1, 1, 11, 11]
    tallies.advance(TODAY + 1)
    assert tallies.at(rows.find(["a"], 1))[0, :, 0].tolist() == [0, 1, 1, 11]
    tallies.advance(TODAY)  # a clock that goes back changes nothing
    assert tallies.today == TODAY + 1


def test_what_nobody_counted_is_zero() -> None:
    rows = Rows(10)
    tallies = WindowedTallies(rows, TODAY)
    rows.add("known to the catalogue only")
    assert not tallies.at(rows.find(["known to the catalogue only", "unknown"], 2)).any()


def test_over_capacity_new_keys_are_passed_over_and_known_ones_go_on() -> None:
    rows = Rows(1)
    tallies = WindowedTallies(rows, TODAY)
    tallies.replace(["a", "b"], [TODAY, TODAY], [[1] * COUNT, [2] * COUNT])
    tallies.replace(["a"], [TODAY], [[3] * COUNT])
    assert rows.refused_count == 1
    assert tallies.at(rows.find(["a", "b"], 2))[:, 0, 0].tolist() == [3, 0]


def test_a_daybook_finds_entries_on_both_of_its_levels() -> None:
    book = Daybook(1, fresh_limit=2)
    rows = np.arange(1, 4)
    day = np.full(3, TODAY)
    assert book.replace(keys_of(day, rows), np.array([[1], [2], [3]])).tolist() == [[1], [2], [3]]  # merged: more than two
    assert book.replace(keys_of(day[:1], rows[:1] + 9), np.array([[7]])).tolist() == [[7]]  # fresh
    assert book.replace(keys_of(day[:2], np.array([2, 10])), np.array([[5], [5]])).tolist() == [[3], [-2]]
    found, values = book.on(TODAY)
    assert dict(zip(found.tolist(), values[:, 0].tolist(), strict=True)) == {1: 1, 2: 5, 3: 3, 10: 5}
    assert len(book) == 4


counts = st.lists(st.tuples(st.integers(1, 3), st.integers(-5, 2**33), st.integers(-5, 2**62)), min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(counts, max_size=6))
def test_a_daybook_in_less_room_keeps_what_one_in_full_room_keeps(done: list[list[tuple[int, int, int]]]) -> None:
    packed, plain = Daybook(2, halved=1, fresh_limit=2), Daybook(2, fresh_limit=2)
    for step in done:
        latest = {row: (count, label) for row, count, label in step}
        keys = keys_of(np.full(len(latest), TODAY), np.array(sorted(latest)))
        values = np.array([latest[row] for row in sorted(latest)], dtype=np.int64)
        assert packed.replace(keys, values).tolist() == plain.replace(keys, values).tolist()
    for ours, theirs in zip(packed.on(TODAY), plain.on(TODAY), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_a_daybook_takes_half_the_room_until_a_count_does_not_fit() -> None:
    book = Daybook(8, halved=5)
    book.replace(keys_of(np.array([TODAY]), np.array([1])), np.array([[2**31 - 1] * 5 + [2**61] + [7, 7]]))
    assert book.entry_bytes == 8 + 9 * 4
    assert book.on(TODAY)[1].tolist() == [[2**31 - 1] * 5 + [2**61] + [7, 7]]
    book.replace(keys_of(np.array([TODAY]), np.array([2])), np.array([[2**31] * 8]))
    assert book.entry_bytes == 8 + 8 * 8
    assert book.on(TODAY)[1].tolist() == [[2**31 - 1] * 5 + [2**61] + [7, 7], [2**31] * 8]


def test_a_leap_over_days_equals_going_day_by_day() -> None:
    rows = Rows(100)
    leaping, walking = WindowedTallies(rows, TODAY), WindowedTallies(rows, TODAY)
    for tallies in (leaping, walking):
        tallies.replace(["a"] * 60, range(TODAY - 56, TODAY + 4), [[1 << min(day, 50)] * COUNT for day in range(60)])
    for days in (2, 3, 10, 40):
        leaping.advance(leaping.today + days)
        for _ in range(days):
            walking.advance(walking.today + 1)
        assert leaping.at(rows.find(["a"], 1)).tolist() == walking.at(rows.find(["a"], 1)).tolist()
