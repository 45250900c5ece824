"""A model that scores: a LightGBM forest, on one thread."""

from __future__ import annotations

from collections.abc import Sequence

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Floats
from ranker.features.schema import FeatureSchema
from ranker.scoring.engine import ChosenEngine, choose_engine
from ranker.scoring.explanation import FeatureContribution, explanation


class UnknownFeatures(ValueError):
    """A model reads features that the schema does not have."""

    def __init__(self, names: Sequence[str]) -> None:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        super().__init__(f"the model reads features that this ranker does not have: {shown}")
        self.names = tuple(names)


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
        self.schema = schema
        """The columns of the matrices it takes."""
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

    def explain(self, matrix: Floats, *, beside: Floats, limit: int = 5) -> list[list[FeatureContribution]]:
        """What the score of each row of (k, n_features) float64 is made of: it adds up. See `explanation`.

        `beside` is (n, n_features) float64: all candidates of the request.
        """
        features = [self.schema.features[self.schema.index[name]] for name in self._names]
        return explanation(self.contributions(matrix), self._read(matrix), self._read(beside), features, limit=limit)

    def _read(self, matrix: Floats) -> Floats:
        return matrix if self._columns is None else np.ascontiguousarray(matrix[:, self._columns])
