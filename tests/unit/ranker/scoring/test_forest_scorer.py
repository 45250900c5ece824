"""The compiled scorer gives LightGBM's bits, whatever the forest and whatever the rows.

`FORESTS=5000 make test TEST_ARGS="tests/unit/ranker/scoring --timeout 3600"` tries thousands instead of some hundreds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ranker.scoring import engine
from ranker.scoring.engine import NOT_EQUAL, choose_engine, layout_of
from ranker.scoring.probes import probes
from ranker.scoring.quickscorer import QuickScorer
from ranker.scoring.trees import AVERAGED_OUTPUT, LARGE_TREES, LINEAR_TREES, SEVERAL_OUTPUTS
from tests.forests import ODD_VALUES, Floats, Plan, around, make, rows, thresholds_of

FORESTS = int(os.environ.get("FORESTS", "200"))

plans = st.builds(
    Plan,
    seed=st.integers(0, 2**32),
    trees=st.one_of(st.integers(1, 6), st.sampled_from([127, 128, 129, 260])),
    max_leaves=st.sampled_from([1, 2, 5, 31, 32, 33, 63, 64]),
    features=st.integers(1, 8),
    categorical=st.booleans(),
    missing_types=st.sampled_from([(0,), (1,), (2,), (0, 1, 2)]),
)
row_counts = st.one_of(st.integers(1, 14), st.sampled_from([63, 64, 65, 76, 77, 100, 128, 200]))


def assert_same_bits(booster: lightgbm.Booster, matrix: Floats) -> None:
    expected = np.asarray(booster.predict(matrix, raw_score=True, num_threads=1), dtype=np.float64)
    found = QuickScorer(layout_of(booster), booster.num_feature()).score(matrix)
    differing = np.flatnonzero(found.view(np.int64) != expected.view(np.int64))
    assert not len(differing), f"rows {differing[:5]}: {found[differing[:5]]} instead of {expected[differing[:5]]}"


@settings(max_examples=FORESTS)
@given(plan=plans, count=row_counts)
@example(plan=Plan(seed=0, trees=3, max_leaves=64, features=2, categorical=True, missing_types=(0, 1, 2)), count=1000)
def test_made_up_forests(plan: Plan, count: int) -> None:
    booster = make(plan)
    assert_same_bits(booster, rows(plan, count, booster))


@settings(max_examples=max(10, FORESTS // 10))
@given(
    seed=st.integers(0, 2**16),
    parameters=st.fixed_dictionaries(
        {
            "objective": st.sampled_from(["regression", "lambdarank", "binary", "poisson"]),
            "boosting": st.sampled_from(["gbdt", "dart"]),
            "num_leaves": st.sampled_from([2, 7, 31, 32, 33, 64]),
            "max_bin": st.sampled_from([3, 63, 255]),
            "min_data_in_leaf": st.sampled_from([1, 20]),
            "use_missing": st.booleans(),
            "zero_as_missing": st.booleans(),
            "feature_fraction": st.sampled_from([0.5, 1.0]),
            "extra_trees": st.booleans(),
            "cat_smooth": st.sampled_from([1.0, 10.0]),
            "monotone_constraints": st.sampled_from([None, "1,0,0,0,0,0"]),
        }
    ),
    categorical=st.booleans(),
    count=row_counts,
)
def test_trained_forests(seed: int, parameters: dict[str, Any], categorical: bool, count: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(300, 6))
    matrix[:, 1] = np.round(matrix[:, 1])
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    matrix[rng.random(matrix.shape) < 0.1] = 0.0
    matrix[:, 4:] = rng.integers(0, 40, (300, 2))
    labels = (np.nan_to_num(matrix[:, 0]) + matrix[:, 4] % 3 > 1).astype(float)
    if parameters["monotone_constraints"] is None or categorical:
        parameters = {name: value for name, value in parameters.items() if name != "monotone_constraints"}
    data = lightgbm.Dataset(
        matrix,
        labels,
        group=[20] * 15 if parameters["objective"] == "lambdarank" else None,
        categorical_feature=[4, 5] if categorical else [],
        params={"verbosity": -1},
    )
    booster = lightgbm.train({**parameters, "verbosity": -1, "num_threads": 1, "seed": seed}, data, 12)
    pool = np.concatenate((ODD_VALUES, *around(thresholds_of(booster)), np.arange(45.0)))
    asked = np.where(rng.random((count, 6)) < 0.5, rng.choice(pool, (count, 6)), matrix[rng.integers(0, 300, count)])
    assert_same_bits(booster, asked)


@settings(max_examples=30)
@given(plan=plans)
def test_batch_equals_one_by_one(plan: Plan) -> None:
    booster = make(plan)
    scorer, matrix = QuickScorer(layout_of(booster), plan.features), rows(plan, 70, booster)
    assert scorer.score(matrix).tolist() == [float(scorer.score(row[None])[0]) for row in matrix]


def test_no_rows_have_no_scores() -> None:
    scorer = QuickScorer(layout_of(trained()), 4)
    assert scorer.score(np.empty((0, 4))).tolist() == []


def test_rows_of_another_width_or_layout() -> None:
    booster = trained()
    scorer, matrix = QuickScorer(layout_of(booster), 4), np.random.default_rng(0).normal(size=(30, 4))
    expected = booster.predict(matrix, raw_score=True).tolist()
    assert scorer.score(np.asfortranarray(matrix)).tolist() == expected
    read_only = np.frombuffer(matrix.tobytes()).reshape(matrix.shape)
    assert scorer.score(read_only).tolist() == expected
    with pytest.raises(ValueError, match=r"rows of 4 values; the matrix is \(30, 3\)"):
        scorer.score(matrix[:, :3])


def trained(rounds: int = 5, **parameters: Any) -> lightgbm.Booster:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(400, 4))
    labels = rng.integers(0, 3, 400)
    settings = {"objective": "regression", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 1, **parameters}
    return lightgbm.train(settings, lightgbm.Dataset(matrix, labels, params={"linear_tree": "linear_tree" in parameters}), rounds)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"num_leaves": 65}, LARGE_TREES),
        ({"linear_tree": True}, LINEAR_TREES),
        ({"objective": "multiclass", "num_class": 3}, SEVERAL_OUTPUTS),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, AVERAGED_OUTPUT),
    ],
)
def test_what_cannot_be_represented_is_left_to_lightgbm(parameters: dict[str, Any], reason: str) -> None:
    booster = trained(**parameters)
    chosen = choose_engine(booster)
    assert (chosen.name, chosen.fallback) == ("lightgbm", reason)
    matrix = np.random.default_rng(1).normal(size=(20, 4))
    assert chosen.engine.score(matrix).tolist() == booster.predict(matrix, raw_score=True, num_threads=1).tolist()


def test_the_compiled_scorer_is_taken_where_it_can_be() -> None:
    assert (choose_engine(trained()).name, choose_engine(trained(), wanted="forest").name) == ("forest", "forest")
    unwanted = choose_engine(trained(), wanted="lightgbm")
    assert (unwanted.name, unwanted.fallback) == ("lightgbm", "")


def test_a_scorer_with_other_bits_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine.layout_of

    def one_bit_off(booster: lightgbm.Booster) -> Any:
        layout = real(booster)
        layout.leaf_values[:, 0] = np.nextafter(layout.leaf_values[:, 0], np.inf)
        return layout

    monkeypatch.setattr(engine, "layout_of", one_bit_off)
    chosen = choose_engine(trained())
    assert (chosen.name, chosen.fallback) == ("lightgbm", NOT_EQUAL)


def test_probes_meet_every_threshold_of_a_small_forest() -> None:
    booster = trained(rounds=2, num_leaves=4)
    layout = layout_of(booster)
    found = probes(layout, 4, count=2000)
    for threshold in thresholds_of(booster):
        for value in around(threshold):
            assert (found == value).any()
    assert np.isnan(found).any()
    assert np.isinf(found).any()


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None  # an import of it fails
import lightgbm, numpy as np
from ranker.scoring.engine import choose_engine
chosen = choose_engine(lightgbm.Booster(model_file=sys.argv[1]))
print(chosen.name, chosen.fallback)
"""

WITHOUT_A_CACHE = """
import sys
import lightgbm, numpy as np
from ranker.scoring.engine import choose_engine
print(choose_engine(lightgbm.Booster(model_file=sys.argv[1])).name)
"""


def said(script: str, booster: lightgbm.Booster, directory: Path, **environment: str) -> str:
    model = directory / "forest.txt"
    booster.save_model(model)
    command = [sys.executable, "-c", script, str(model)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_numba_lightgbm_scores(tmp_path: Path) -> None:
    assert said(WITHOUT_NUMBA, trained(), tmp_path) == "lightgbm no_compiler"


def test_where_nothing_can_be_kept_the_kernel_is_compiled_anyway(tmp_path: Path) -> None:
    nowhere = tmp_path / "a file"
    nowhere.write_text("")
    assert said(WITHOUT_A_CACHE, trained(), tmp_path, NUMBA_CACHE_DIR=str(nowhere / "below")) == "forest"
