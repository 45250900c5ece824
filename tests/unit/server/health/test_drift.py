"""The population stability index: known answers and laws."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from server.health.drift import FLOOR, LEAST, stability_index

UNIFORM = np.arange(1000) / 1000


def test_two_groups_that_change_places() -> None:
    # A quarter of ones before, half of them now; the one edge that the reference's deciles have is at 0.
    before, now = np.repeat([0.0, 1.0], [750, 250]), np.repeat([0.0, 1.0], [200, 200])
    # The edges are 0 and 1, so ones lie up to the second edge.
    expected = (0.5 - 0.75) * log(0.5 / 0.75) + (0.5 - 0.25) * log(0.5 / 0.25)
    assert stability_index(before, now) == pytest.approx(expected)


def test_the_same_distribution_has_not_moved() -> None:
    assert stability_index(UNIFORM, UNIFORM) == pytest.approx(0.0, abs=1e-3)


def test_all_in_one_decile_is_far() -> None:
    found = stability_index(UNIFORM, np.full(500, 0.05))
    # One bin goes from 0.1 to 1, nine go from 0.1 to nothing.
    assert found == pytest.approx(0.9 * log(1 / 0.1) + 9 * (FLOOR - 0.1) * log(FLOOR / 0.1), rel=0.01)


def test_values_that_go_missing_are_a_move() -> None:
    gone = UNIFORM.copy()
    gone[::2] = np.nan
    assert (stability_index(UNIFORM, gone) or 0) > 1
    assert stability_index(gone, gone) == pytest.approx(0.0, abs=1e-3)
    assert stability_index(np.full(LEAST, np.nan), np.full(LEAST, np.nan)) == 0.0


def test_a_few_values_say_nothing() -> None:
    assert stability_index(UNIFORM, UNIFORM[: LEAST - 1]) is None
    assert stability_index(UNIFORM[: LEAST - 1], UNIFORM) is None


VALUES = arrays(np.float64, st.integers(LEAST, 300), elements=st.floats(allow_nan=True, allow_infinity=True, width=32))


@given(VALUES, VALUES)
def test_it_is_finite_and_never_negative(before: np.ndarray, now: np.ndarray) -> None:
    found = stability_index(before, now)
    assert found is not None
    assert np.isfinite(found)
    assert found >= 0
