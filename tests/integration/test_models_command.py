"""`rankloop models` against a running stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from tests.integration.stacks import Up, rankloop, running


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack without any model."""
    with running(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def forest(path: Path, seed: int) -> Path:
    """Writes a small LightGBM model of one column."""
    column = np.random.default_rng(seed).uniform(size=(200, 1))
    data = lightgbm.Dataset(column, label=(column[:, 0] > 0.5).astype(float))
    lightgbm.train({"objective": "regression", "verbose": -1, "num_threads": 1}, data, num_boost_round=3).save_model(path)
    return path


def models(up: Up, *arguments: str) -> Any:
    """What a command says as JSON."""
    done = rankloop("models", *arguments, "--server", up.ready["server"], "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(up: Up, *arguments: str) -> str:
    """The one sentence that a command fails with."""
    done = rankloop("models", *arguments, "--server", up.ready["server"])
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    return sentence


def test_from_import_to_rollback(up: Up, tmp_path: Path) -> None:
    assert models(up, "list") == []
    assert "no models yet" in rankloop("models", "list", "--server", up.ready["server"]).stdout
    names = tmp_path / "names.txt"
    names.write_text("prior_score\n")
    for seed, version in ((1, "mine-1"), (2, "mine-2")):
        made = models(up, "import", str(forest(tmp_path / f"{version}.txt", seed)), "--features", str(names), "--version", version)
        assert (made["model_version"], made["status"], made["feature_names"]) == (version, "MODEL_STATUS_CANDIDATE", ["prior_score"])
    for version in ("mine-1", "mine-2"):
        assert models(up, "promote", version)["status"] == "MODEL_STATUS_CHAMPION"
        assert models(up, "show")["model_version"] == version
    assert models(up, "rollback", "--leaving", "mine-2")["model_version"] == "mine-1"
    assert [(one["model_version"], one["status"]) for one in models(up, "list")] == [
        ("mine-2", "MODEL_STATUS_RETIRED"),
        ("mine-1", "MODEL_STATUS_CHAMPION"),
    ]
    assert len(models(up, "list", "--limit", "1")) == 1
    assert "ABORTED" in refused(up, "rollback", "--leaving", "mine-2")
    shown = rankloop("models", "show", "mine-2", "--server", up.ready["server"]).stdout
    assert "retired" in shown
    assert "3 trees, 1 features" in shown


def test_what_is_refused_says_why(up: Up, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text('["no_such_feature"]')
    assert "NOT_FOUND" in refused(up, "promote", "nowhere")
    features = ("--features", str(tmp_path / "names.json"))
    assert "INVALID_ARGUMENT: feature_names" in refused(up, "import", str(forest(tmp_path / "m.txt", 3)), *features)
    # Without names of its own, those in the model's text are meant, and LightGBM calls a column Column_0.
    assert "no feature 'Column_0'" in refused(up, "import", str(tmp_path / "m.txt"))
    (tmp_path / "names.json").write_text('["prior_score"')
    assert "is not a JSON list of feature names" in refused(up, "import", str(tmp_path / "m.txt"), *features)


def test_runs_are_asked_for_once_and_listed(up: Up) -> None:
    assert models(up, "runs") == []
    asked = models(up, "request", "--reason", "a new feature")
    assert (asked["status"], asked["trigger"]) == ("TRAINING_RUN_STATUS_REQUESTED", "request")
    assert models(up, "request")["run_id"] == asked["run_id"]
    assert [run["run_id"] for run in models(up, "runs")] == [asked["run_id"]]
    assert asked["run_id"] in rankloop("models", "runs", "--server", up.ready["server"]).stdout
