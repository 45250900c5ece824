"""Trying settings: within what may be learned from, no longer than allowed, never worse than what was set."""

from __future__ import annotations

import pytest

from ranker.training.lambdarank import Stopped
from ranker.training.settings import TrainerSettings
from ranker.training.tuning import SPACE, tune
from tests.unit.ranker.training.test_position_bias import clicked

pytest.importorskip("optuna")

QUICK = TrainerSettings(num_boost_round=15, early_stopping_rounds=5, num_threads=1, learning_rate=0.1)
TRAIN = clicked(1)[0]


def test_the_best_of_the_trials_is_chosen_within_the_space() -> None:
    heard: list[None] = []
    tuned = tune(TRAIN, QUICK, trials=5, seconds=600, on_trial=lambda: heard.append(None))
    assert tuned.trial_count == len(heard) == 5
    assert tuned.score >= tuned.score_before
    for name, (low, high) in SPACE.items():
        assert low <= tuned.chosen[name] <= high
        if tuned.score > tuned.score_before:
            assert getattr(tuned.settings, name) == tuned.chosen[name]
    untouched = set(TrainerSettings.model_fields) - set(SPACE)
    assert tuned.settings.model_dump(include=untouched) == QUICK.model_dump(include=untouched)


def test_the_same_seed_tries_the_same() -> None:
    first, again = (tune(TRAIN, QUICK, trials=4, seconds=600) for _ in range(2))
    assert (first.chosen, first.score) == (again.chosen, again.score)


def test_the_settings_in_force_are_tried_first_whatever_the_time() -> None:
    tuned = tune(TRAIN, QUICK, trials=1000, seconds=0)
    assert tuned.trial_count == 1
    assert tuned.settings == QUICK
    assert tuned.score == tuned.score_before


def test_it_stops_when_it_is_told_to() -> None:
    with pytest.raises(Stopped):
        tune(TRAIN, QUICK, trials=5, seconds=600, stopped=lambda: True)
