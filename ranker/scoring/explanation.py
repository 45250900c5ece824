"""What a score is made of.

The contributions of a forest's features (Lundberg et al., "Consistent individualized feature attribution for tree ensembles", 2018) add
up to its score, together with what every score starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ranker.features.columns import Floats
from ranker.features.feature import Feature
from ranker.features.words import words

OTHERS: Final = "(others)"
"""Stands for all features that are not listed. No feature can be called so."""

BASE: Final = "(base)"
"""Stands for what every score of the model starts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureContribution:
    """What a feature did to one score."""

    feature: str
    """Its name, OTHERS or BASE."""
    value: float
    """Its value; NaN: missing, or not one feature."""
    contribution: float
    """What it added to the score (SHAP value)."""
    meaning: str
    """What the feature means."""
    words: str
    """The contribution in words."""


def explanation(
    added: Floats, values: Floats, beside: Floats, features: Sequence[Feature], *, limit: int
) -> list[list[FeatureContribution]]:
    """The contributions to each of k scores: the `limit` largest by size, then OTHERS where there are some, then BASE. They add up.

    Args:
        added: (k, 1 + m) float64: what each of m features added to each score, and last what every score starts from.
        values: (k, m) float64, the values of the features; NaN is missing.
        beside: (n, m) float64, those of all candidates of the request, to tell much from little.
        features: the m.
        limit: features listed by name, at most.
    """
    of_features = added[:, :-1]
    order = np.argsort(-np.abs(of_features), axis=1, kind="stable")
    explained: list[list[FeatureContribution]] = []
    for row, columns in enumerate(order.tolist()):
        listed = [column for column in columns[:limit] if of_features[row, column] != 0.0]
        rest = [column for column in columns[len(listed) :] if of_features[row, column] != 0.0]
        told = [
            _of_feature(features[column], float(of_features[row, column]), float(values[row, column]), beside[:, column])
            for column in listed
        ]
        if rest:
            told.append(_sum_of(OTHERS, float(of_features[row, rest].sum()), f"{len(rest)} further features"))
        told.append(_sum_of(BASE, float(added[row, -1]), "what every score of the model starts from"))
        explained.append(told)
    return explained


def _of_feature(feature: Feature, contribution: float, value: float, column: Floats) -> FeatureContribution:
    return FeatureContribution(
        feature=feature.name,
        value=value,
        contribution=contribution,
        meaning=feature.meaning,
        words=words(feature, value, column, contribution),
    )


def _sum_of(name: str, contribution: float, meaning: str) -> FeatureContribution:
    return FeatureContribution(
        feature=name, value=float("nan"), contribution=contribution, meaning=meaning, words=f"{meaning} ({contribution:+.2f})"
    )
