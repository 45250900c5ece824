"""What keeps a model from serving besides its figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from ranker.models.bundle import CANNED, FOREST, Bundle
from ranker.models.passport import Passport
from ranker.training.fitness import Limits, constant_features, faults, newly_constant
from tests.integration.bundles import with_files

NAMES = ("a", "b", "c")
GENEROUS = Limits(score_seconds=1.0, byte_count=2**20)


def passport(constant: tuple[str, ...] | None) -> Passport:
    return Passport(model_version="m", source="train", feature_names=NAMES, schema_hash="s", tree_count=3, constant_features=constant)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    matrix = np.random.default_rng(1).random((200, 3))
    data = lightgbm.Dataset(matrix, label=matrix[:, 0])
    booster = lightgbm.train({"objective": "regression", "verbose": -1, "num_threads": 1}, data, num_boost_round=3)
    return Bundle.make(passport(("c",)), booster.model_to_string().encode(), matrix[:10])


def clock_of(seconds: float) -> Callable[[], float]:
    """A clock on which everything takes so long."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += seconds
        return now

    return clock


def test_one_value_is_constant_and_missing_is_a_value() -> None:
    matrix = np.random.default_rng(1).random((3000, 5))
    matrix[:, 0] = 7.0
    matrix[:, 1] = np.nan
    # These two vary, but late, or by being missing only.
    matrix[:, 2] = 7.0
    matrix[2500, 2] = 8.0
    matrix[:, 3] = 7.0
    matrix[2999, 3] = np.nan
    assert constant_features(matrix, ("same", "missing", "late", "gone", "random")) == ("same", "missing")
    assert constant_features(matrix[:0], ("x",)) == ("x",)


def test_a_fit_model_has_no_faults(bundle: Bundle) -> None:
    assert faults(bundle, None, GENEROUS, clock=clock_of(0.001)) == []


def test_each_fault_is_told_with_its_limit(bundle: Bundle) -> None:
    limits = Limits(score_seconds=0.001, byte_count=100)
    found = faults(bundle, passport(()), limits, clock=clock_of(0.002))
    assert "trainer.max_model_bytes allows 100" in found[0]
    assert "takes 2 ms, and ranker.model_budget_seconds allows 1 ms" in found[1]
    assert "no longer do: c;" in found[2]


def test_what_rankers_would_refuse_is_a_fault(bundle: Bundle) -> None:
    text = re.sub(rb"leaf_value=\S+", b"leaf_value=1e400", bundle.forest, count=1)
    (fault,) = faults(with_files(bundle, {FOREST: text}), None, GENEROUS)
    assert "leaf_value has a value that is not finite" in fault


def test_a_canned_slate_that_is_not_reproduced_is_a_fault(bundle: Bundle) -> None:
    other = Bundle.make(bundle.passport, bundle.forest, bundle.canned.matrix + 1.0)
    mixed = Bundle({**bundle.files, CANNED: other.files[CANNED]})
    (fault,) = faults(mixed, None, GENEROUS)
    assert "canned.npz is not what the manifest says" in fault


def test_only_what_varied_for_the_champion_can_become_constant() -> None:
    mine = passport(("a", "b"))
    assert newly_constant(mine, passport(("a",)), ()) == ("b",)
    assert newly_constant(mine, passport(("a",)), ("b",)) == ()
    assert newly_constant(mine, passport(()), ("*",)) == ()
    # Nothing is known of the champion's data; or it never had the feature.
    assert newly_constant(mine, passport(None), ()) == ()
    assert newly_constant(mine, replace(passport(()), feature_names=("c",)), ()) == ()
    assert newly_constant(mine, None, ()) == ()


def test_the_passport_keeps_what_is_constant() -> None:
    for constant in (("a",), (), None):
        assert Passport.from_json(passport(constant).to_json()).constant_features == constant
