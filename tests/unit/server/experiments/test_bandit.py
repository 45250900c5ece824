"""Weights that follow what was seen."""

from __future__ import annotations

import math

import pytest

from server.experiments.bandit import conversion_posterior, mean_posterior, thompson_weights
from server.inference.estimate import Estimate


def test_nothing_seen_is_everything_alike() -> None:
    assert thompson_weights({name: conversion_posterior(0, 0) for name in "abcd"}) == pytest.approx(dict.fromkeys("abcd", 0.25), abs=1e-4)


def test_weights_are_the_probabilities_above_the_floor() -> None:
    # P(Beta(2, 1) > Beta(1, 1)) = 2/3.
    found = thompson_weights({"a": conversion_posterior(0, 0), "b": conversion_posterior(1, 1)}, floor=0.1)
    assert found == pytest.approx({"a": 0.1 + 0.8 / 3, "b": 0.1 + 0.8 * 2 / 3}, abs=1e-5)
    assert math.fsum(found.values()) == pytest.approx(1.0, abs=1e-12)
    # A difference of one standard error of the difference: Φ(1).
    found = thompson_weights({"a": mean_posterior(Estimate(1.0, 0.5, 99)), "b": mean_posterior(Estimate(2.0, 0.5, 99))}, floor=0.0)
    assert found["b"] == pytest.approx(0.841344746, abs=3e-5)


def test_a_loser_keeps_the_floor() -> None:
    found = thompson_weights({"a": conversion_posterior(10_000, 100), "b": conversion_posterior(10_000, 1000)}, floor=0.05)
    assert found == pytest.approx({"a": 0.05, "b": 0.95}, abs=1e-9)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one variant"):
        thompson_weights({})
    with pytest.raises(ValueError, match="less than nothing"):
        thompson_weights({"a": conversion_posterior(0, 0), "b": conversion_posterior(0, 0)}, floor=0.6)
    with pytest.raises(ValueError, match="3 of 2 users"):
        conversion_posterior(2, 3)
