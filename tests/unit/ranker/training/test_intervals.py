"""Bootstrap intervals: known means, coverage, pairing."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.models.passport import Metric
from ranker.training.evaluation import bootstrap


def test_the_value_is_the_plain_mean_and_lies_inside() -> None:
    figure = bootstrap({"x": np.array([0.0, 0.5, 1.0, 0.1])}, samples=500, seed=1)["x"]
    assert figure.value == pytest.approx((0.0 + 0.5 + 1.0 + 0.1) / 4)
    assert figure.low is not None
    assert figure.high is not None
    assert 0.0 <= figure.low < figure.value < figure.high <= 1.0


def test_the_same_seed_gives_the_same_interval() -> None:
    values = {"x": np.random.default_rng(0).random(30)}
    assert bootstrap(values, samples=200, seed=4) == bootstrap(values, samples=200, seed=4)
    assert bootstrap(values, samples=200, seed=4) != bootstrap(values, samples=200, seed=5)


def test_the_width_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(size=400)
    figure = bootstrap({"x": values}, samples=4000, seed=1)["x"]
    assert figure.low is not None
    assert figure.high is not None
    assert figure.high - figure.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(400), rel=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random, covered = np.random.default_rng(7), 0
    for trial in range(300):
        figure = bootstrap({"x": random.normal(0.3, 1.0, 60)}, samples=300, seed=trial)["x"]
        assert figure.low is not None
        assert figure.high is not None
        covered += figure.low <= 0.3 <= figure.high
    # 0.95 less a little for 60 users, with three standard errors of 300 trials either way.
    assert 0.90 <= covered / 300 <= 0.985


def test_a_difference_is_paired() -> None:
    base = np.random.default_rng(0).random(50)
    figures = bootstrap({"a": base, "b": base + 0.01, "gap": (base + 0.01) - base}, samples=300, seed=1)
    assert figures["gap"].low == pytest.approx(0.01)
    assert figures["gap"].high == pytest.approx(0.01)
    assert figures["a"].high is not None
    assert figures["b"].low is not None
    assert figures["a"].high > figures["b"].low


def test_one_user_has_no_interval() -> None:
    figure = bootstrap({"x": np.array([0.4])}, samples=100, seed=1)["x"]
    assert (figure.value, figure.low, figure.high) == (0.4, None, None)
    assert Metric(name="x", value=0.4).to_document() == {"name": "x", "value": 0.4}


def test_nothing_has_no_figures() -> None:
    assert bootstrap({}, samples=100, seed=1) == {}
