"""Rankers measured on the same slates, each beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ranker.models.passport import Metric
from ranker.training.baselines import SlateFigures
from ranker.training.data import TrainingData
from ranker.training.evaluation import FIGURES, bootstrap, user_means


def metric_name(part: str, ranker: str, figure: str) -> str:
    """As in `test.model.ndcg_at_10`."""
    return f"{part}.{ranker}.{figure}"


def difference(ranker: str, other: str) -> str:
    """The name under which the difference of two rankers is reported."""
    return f"{ranker}_minus_{other}"


def measure(
    part: str,
    users: NDArray[np.int64],
    rankers: Mapping[str, SlateFigures],
    *,
    differences: Sequence[tuple[str, str]] = (),
    samples: int,
    seed: int,
    names: Sequence[str] = FIGURES,
) -> tuple[Metric, ...]:
    """The figures `names` of each ranker on slates of `users` ((slates,) int64), and paired differences, with intervals over users.

    A figure that some slates do not have (average precision without a relevant item) is measured on the others, and left out where none
    has it.
    """
    together: dict[bytes, tuple[NDArray[np.bool_], list[str]]] = {}
    for figure in names:
        there = np.ones(users.size, dtype=bool)
        for figures in rankers.values():
            there &= ~np.isnan(figures[figure])
        if there.any():
            # Figures that the same slates have share their resamples.
            together.setdefault(there.tobytes(), (there, []))[1].append(figure)
    measured: dict[str, Metric] = {}
    for there, sharing in together.values():
        columns: dict[str, NDArray[np.float64]] = {}
        for figure in sharing:
            for name, figures in rankers.items():
                columns[metric_name(part, name, figure)] = user_means(figures[figure][there], users[there])
            for name, other in differences:
                gap = columns[metric_name(part, name, figure)] - columns[metric_name(part, other, figure)]
                columns[metric_name(part, difference(name, other), figure)] = gap
        for name, one in bootstrap(columns, samples=samples, seed=seed).items():
            measured[name] = Metric(name=name, value=one.value, low=one.low, high=one.high)
    order = (metric_name(part, name, figure) for name in (*rankers, *(difference(*pair) for pair in differences)) for figure in names)
    return tuple(measured[name] for name in order if name in measured)


def sample_slates(data: TrainingData, count: int) -> TrainingData:
    """At most `count` slates of `data`, evenly spread over its time."""
    return data if data.slate_count <= count else data.chosen(sampled(data, count))


def sampled(data: TrainingData, count: int) -> NDArray[np.int64]:
    """Places of at most `count` slates, evenly spread over its time, rising; (n,) int64."""
    if data.slate_count <= count:
        return np.arange(data.slate_count)
    return np.asarray(np.linspace(0, data.slate_count - 1, count).round().astype(np.int64))
