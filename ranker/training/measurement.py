"""Rankers measured on the same slates, each beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ranker.models.passport import Metric
from ranker.training.baselines import SlateFigures
from ranker.training.data import TrainingData
from ranker.training.evaluation import CUTOFFS, bootstrap, user_means


def metric_name(part: str, ranker: str, cutoff: int) -> str:
    """As in `test.model.ndcg_at_10`."""
    return f"{part}.{ranker}.ndcg_at_{cutoff}"


def difference(ranker: str, other: str) -> str:
    """The name under which the difference of two rankers is reported."""
    return f"{ranker}_minus_{other}"


def measure(
    part: str,
    data: TrainingData,
    rankers: Mapping[str, SlateFigures],
    *,
    differences: Sequence[tuple[str, str]] = (),
    samples: int,
    seed: int,
) -> tuple[Metric, ...]:
    """NDCG@5 and @10 of each ranker on the slates of `data`, and paired differences, with intervals over users."""
    columns = {
        metric_name(part, name, cutoff): user_means(figures[cutoff], data.users) for name, figures in rankers.items() for cutoff in CUTOFFS
    }
    for name, other in differences:
        for cutoff in CUTOFFS:
            pair = columns[metric_name(part, name, cutoff)] - columns[metric_name(part, other, cutoff)]
            columns[metric_name(part, difference(name, other), cutoff)] = pair
    measured = bootstrap(columns, samples=samples, seed=seed)
    return tuple(Metric(name=name, value=one.value, low=one.low, high=one.high) for name, one in measured.items())


def sample_slates(data: TrainingData, count: int) -> TrainingData:
    """At most `count` slates of `data`, evenly spread over its time."""
    if data.slate_count <= count:
        return data
    return data.chosen(np.linspace(0, data.slate_count - 1, count).round().astype(np.int64))
