"""A model that scores: a LightGBM forest, on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Floats
from ranker.features.schema import FeatureSchema
from ranker.scoring.engine import ChosenEngine, choose_engine


class UnknownFeatures(ValueError):
    """A model reads features that the schema does not have."""

    def __init__(self, names: Sequence[str]) -> None:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        super().__init__(f"the model reads features that this ranker does not have: {shown}")
        self.names = tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureContribution:
    """What a feature did to one score."""

    feature: str
    """Its name."""
    value: float
    """Its value; NaN: missing."""
    contribution: float
    """What it added to the score (SHAP value)."""
    meaning: str
    """What the feature means."""


class ForestScorer:
    """A forest over the columns of a schema, whichever of them it reads and in whatever order."""

    def __init__(
        self,
        booster: lightgbm.Booster,
        feature_names: Sequence[str],
        schema: FeatureSchema,
        *,
        version: str,
        chosen: ChosenEngine | None = None,
    ) -> None:
        """`feature_names` are the forest's columns; without `chosen` LightGBM scores. Raises UnknownFeatures."""
        unknown = schema.unknown(feature_names)
        if unknown:
            raise UnknownFeatures(unknown)
        self._booster = booster
        self.chosen = chosen or choose_engine(booster, wanted="lightgbm")
        """What walks the trees."""
        self._engine = self.chosen.engine
        self._schema = schema
        self._names = tuple(feature_names)
        self._columns: NDArray[np.int64] | None = None
        if self._names != schema.names:
            self._columns = np.array([schema.index[name] for name in self._names], dtype=np.int64)
        self.version = version
        """The model's version."""

    def score(self, matrix: Floats) -> Floats:
        """(n,) float64, the raw scores of (n, n_features) float64 with the schema's columns."""
        return self._engine.score(self._read(matrix))

    def contributions(self, matrix: Floats) -> Floats:
        """(n, 1 + the model's features) float64: what each feature added to each score, and last what every score starts from.

        A row sums to its score. Lundberg et al., "Consistent individualized feature attribution for tree ensembles", 2018.
        """
        added: Floats = np.asarray(self._booster.predict(self._read(matrix), pred_contrib=True, num_threads=1), dtype=np.float64)
        return added

    def explain(self, matrix: Floats, *, limit: int = 5) -> list[list[FeatureContribution]]:
        """The `limit` largest contributions of each row by size, largest first; none that added nothing."""
        added = self.contributions(matrix)[:, :-1]
        values = self._read(matrix)
        order = np.argsort(-np.abs(added), axis=1, kind="stable")[:, :limit]
        meaning = {feature.name: feature.meaning for feature in self._schema.features}
        return [
            [
                FeatureContribution(
                    feature=self._names[column],
                    value=float(values[row, column]),
                    contribution=float(added[row, column]),
                    meaning=meaning[self._names[column]],
                )
                for column in columns
                if added[row, column] != 0.0
            ]
            for row, columns in enumerate(order.tolist())
        ]

    def _read(self, matrix: Floats) -> Floats:
        return matrix if self._columns is None else np.ascontiguousarray(matrix[:, self._columns])
