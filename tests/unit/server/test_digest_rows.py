"""Rows and parts of digests: days, slices and runs, with known answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runtime.timestamps import EPOCH
from server.experiments.digests import ROWS_AT_ONCE, RUNS, merged_runs, together
from server.experiments.rows import DAY, day_after, key_of


@pytest.mark.parametrize(
    ("moment", "midnight"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC)),
        (datetime(2024, 2, 29, 0, 0, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        (datetime(2024, 2, 29, 23, 59, 59, 999_000, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        (datetime(1969, 12, 31, 1, tzinfo=UTC), EPOCH),
    ],
)
def test_the_first_midnight_after_a_moment(moment: datetime, midnight: datetime) -> None:
    assert EPOCH + day_after(moment) * DAY == midnight
    assert timedelta(0) < midnight - moment <= DAY


def test_a_key_is_the_same_everywhere() -> None:
    # blake2b of 8 bytes, little-endian: what digests in databases were made by.
    assert key_of("u-1") == int.from_bytes(bytes.fromhex("2809d284fb93fe69"), "little")
    assert key_of("u-1") != key_of("u-2")


@pytest.mark.parametrize(
    ("row_counts", "merged"),
    [
        ([], 0),
        ([5] * RUNS, 0),
        ([5] * (RUNS + 1), RUNS + 1),
        # The newest few, as long as what is older is at most twice as large as all of them.
        ([10_000, 9_000, 1_000, 10, 10, 10, 10, 10, 10], 6),
        ([10_000, 120, 10, 10, 10, 10, 10, 10, 10], 8),
        # Always two, or there would be ever more.
        ([10_000, 9_000, 8_000, 7_000, 6_000, 5_000, 4_000, 1_000, 1], 2),
    ],
)
def test_runs_of_a_slice_are_merged_from_the_newest_on(row_counts: list[int], merged: int) -> None:
    assert merged_runs(row_counts) == merged


def test_small_slices_are_read_together_and_large_ones_alone() -> None:
    half = ROWS_AT_ONCE // 2
    assert together({}) == []
    assert together({0: half, 1: half, 2: 1, 5: 1, 9: ROWS_AT_ONCE, 10: 5 * ROWS_AT_ONCE}) == [
        range(2),
        range(2, 6),
        range(9, 10),
        range(10, 11),
    ]
