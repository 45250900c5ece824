"""The same figures for parts of the test slates: where a model is better, and for whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.models.passport import Metric
from ranker.training.baselines import SlateFigures
from ranker.training.data import TrainingData
from ranker.training.evaluation import NDCG_AT_10
from ranker.training.measurement import measure
from ranker.training.split import Split

MOST_VALUES = 20
"""Item types and surfaces that are told apart, those with the most slates."""

SAMPLES = 200
"""Resamples behind a segment's intervals: enough to tell a difference from none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of the test slates."""

    dimension: str
    """`item_type`, `surface`, `user` or `item`."""
    value: str
    """Which part; of users and items `known` and `new`."""
    slate_count: int
    user_count: int
    metrics: tuple[Metric, ...]
    """NDCG@10 of each ranker on the segment's slates, and the model's difference from the champion."""

    def to_json(self) -> dict[str, Any]:
        """As the report has it; metrics by name."""
        return {
            "dimension": self.dimension,
            "value": self.value,
            "slate_count": self.slate_count,
            "user_count": self.user_count,
            "metrics": {one.name: {k: v for k, v in one.to_document().items() if k != "name"} for one in self.metrics},
        }


def segments(parts: Split, rankers: Mapping[str, SlateFigures], *, seed: int) -> tuple[Segment, ...]:
    """Every segment of the test slates that has any."""
    test, found = parts.test, list[Segment]()
    differences = [("model", "champion")] if {"model", "champion"} <= set(rankers) else []
    for dimension, value, mask in _masks(parts):
        users = test.users[mask]
        inside = {name: {NDCG_AT_10: figures[NDCG_AT_10][mask]} for name, figures in rankers.items()}
        metrics = measure("test", users, inside, differences=differences, samples=SAMPLES, seed=seed, names=(NDCG_AT_10,))
        counted = {"slate_count": int(mask.sum()), "user_count": int(np.unique(users).size)}
        found.append(Segment(dimension=dimension, value=value, metrics=metrics, **counted))
    return tuple(found)


def _masks(parts: Split) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Dimension, value, and which test slates; a slate may lie in several item types. Empty ones are left out.

    A slate is of the item types, and of new or known items, that its labelled impressions have: what was wanted, not what was offered.
    Known is what the model was trained on or stopped by.
    """
    test, before = parts.test, (parts.train, parts.validation)
    slates = np.repeat(np.arange(test.slate_count), test.group_sizes)
    wanted = test.labels > 0
    by_type = [(name, _of_slates(test, slates[wanted & (test.item_types == code)])) for code, name in enumerate(test.codebook.item_types)]
    by_surface = [(name, test.surfaces == code) for code, name in enumerate(test.codebook.surfaces)]
    for dimension, masks in (("item_type", by_type), ("surface", by_surface)):
        largest = sorted(masks, key=lambda one: -int(one[1].sum()))[:MOST_VALUES]
        yield from ((dimension, name, mask) for name, mask in largest if mask.any())
    known_users = np.isin(test.users, np.concatenate([part.users for part in before]))
    known_items = np.isin(test.items, np.unique(np.concatenate([part.items for part in before])))
    pairs = (
        ("user", "known", known_users),
        ("user", "new", ~known_users),
        ("item", "known", _of_slates(test, slates[wanted & known_items])),
        ("item", "new", _of_slates(test, slates[wanted & ~known_items])),
    )
    yield from (one for one in pairs if one[2].any())


def _of_slates(test: TrainingData, slates: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(test.slate_count, dtype=np.bool_)
    mask[slates] = True
    return mask
