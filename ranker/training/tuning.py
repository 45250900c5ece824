"""Which settings learn best, found by trying.

Everything happens within the train slice, which is divided by time once more: the earliest slates are learned from, later ones stop each
trial, the latest judge it. So the validation and test slices stay unseen, and what is reported of the tuned model is as honest as of any
other. The settings in force are the first trial: what is chosen is never worse than they are, on the slates that judge.

The search is that of Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranker.training import lambdarank
from ranker.training.data import TrainingData
from ranker.training.evaluation import slate_ndcg, user_means
from ranker.training.lambdarank import EVALUATED_AT, Stopped
from ranker.training.settings import TrainerSettings
from ranker.training.split import split
from runtime.errors import Misconfigured

HELD_OUT = 0.3
"""Share of the train slice that stops trials (its earlier half) and judges them (its later half)."""

SPACE: dict[str, tuple[float, float]] = {
    "num_leaves": (4, 63),
    "learning_rate": (0.02, 0.2),
    "min_data_in_leaf": (5, 300),
    "feature_fraction": (0.4, 1.0),
    "lambda_l2": (0.01, 30.0),
}
"""What is tried: settings of the trainer, with the least and the largest value."""

WHOLE = ("num_leaves", "min_data_in_leaf")
EVEN = ("feature_fraction",)
"""Drawn evenly; all others on a logarithmic scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What the search found."""

    settings: TrainerSettings
    """Those in force, with the best values found."""
    chosen: dict[str, float]
    """The best values, by setting."""
    score: float
    """Their mean NDCG@10 over users, on the slates that judge."""
    score_before: float
    """That of the settings in force."""
    trial_count: int
    """Trials that were finished."""
    seconds: float


def tune(
    train: TrainingData,
    settings: TrainerSettings,
    *,
    trials: int,
    seconds: float,
    on_trial: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Tuned:
    """Tries settings on the train slice, `trials` times at most and no longer than about `seconds`; the first trial is always finished.

    With the same data, settings and seed it tries the same, as far as the time lets it.

    Raises:
        CannotTrain: the slice has too few slates to be divided.
        Misconfigured: Optuna is not installed.
        Stopped: `stopped` said so.
    """
    try:
        import optuna
    except ImportError:
        raise Misconfigured("--tune needs Optuna: pip install 'rankloop-server[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parts, began = split(train, validation_split=HELD_OUT, min_slates=settings.min_slates), time.monotonic()
    finished = 0

    def out_of_time() -> bool:
        return finished > 0 and time.monotonic() - began > seconds

    def score(trial: optuna.Trial) -> float:
        nonlocal finished
        tried = settings.model_copy(update=_drawn(trial))
        fitted = lambdarank.fit(parts.train, parts.validation, tried, stopped=lambda: stopped() or out_of_time())
        said = lambdarank.scores(fitted.forest, parts.test, train.feature_names, num_threads=settings.num_threads)
        ndcg = slate_ndcg(said, parts.test.labels, parts.test.offsets, EVALUATED_AT)
        finished += 1
        on_trial()
        return float(user_means(ndcg, parts.test.users).mean())

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=settings.seed))
    present = _present(settings, parts.train.row_count)
    study.enqueue_trial(present)
    try:
        study.optimize(score, n_trials=trials, timeout=max(seconds, 0.001))
    except Stopped:
        if stopped() or not finished:
            raise
    best, first = study.best_trial, study.trials[0]
    values = {name: float(value) for name, value in (present if best.number == 0 else best.params).items()}
    # The settings in force stay exactly as they are where nothing beat them: a 0 that means "by the data" stays a 0.
    chosen = settings if best.number == 0 else settings.model_copy(update={name: _typed(name, value) for name, value in values.items()})
    assert best.value is not None
    assert first.value is not None
    return Tuned(
        settings=chosen,
        chosen=values,
        score=best.value,
        score_before=first.value,
        trial_count=finished,
        seconds=time.monotonic() - began,
    )


def _drawn(trial: Any) -> dict[str, float]:
    drawn: dict[str, float] = {}
    for name, (low, high) in SPACE.items():
        if name in WHOLE:
            drawn[name] = trial.suggest_int(name, int(low), int(high), log=True)
        else:
            drawn[name] = trial.suggest_float(name, low, high, log=name not in EVEN)
    return drawn


def _present(settings: TrainerSettings, row_count: int) -> dict[str, float]:
    """The settings in force, within the space."""
    present = lambdarank.parameters(settings, row_count)
    return {name: _typed(name, float(np.clip(present[name], low, high))) for name, (low, high) in SPACE.items()}


def _typed(name: str, value: float) -> float:
    return int(value) if name in WHOLE else float(value)
