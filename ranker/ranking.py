"""From columns to a slate: features, scores, relevance, diversity. No input or output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ranker.diversity.diversifiers import DIVERSIFIERS, Diversifier
from ranker.diversity.similarity import Similarities, diversity_score
from ranker.features.columns import Floats, RequestColumns
from ranker.features.extraction import extract
from ranker.features.history import History
from ranker.features.schema import FeatureSchema
from ranker.prior import order_of
from ranker.scoring.relevance import best_first, relevance
from ranker.scoring.scorer import FeatureContribution
from ranker.state.items import ItemState

LAMBDARANK: Final = "lambdarank"
NO_MODEL: Final = "NO_MODEL"


class Scorer(Protocol):
    """A model that scores."""

    @property
    def version(self) -> str:
        """The model's version."""

    def score(self, matrix: Floats) -> Floats:
        """(n,) float64, finite, from (n, n_features) float64 with the schema's columns."""

    def explain(self, matrix: Floats, *, limit: int) -> list[list[FeatureContribution]]:
        """The largest contributions to each row's score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a slate shall be made."""

    count: int
    """Items wanted; 0: all. More than there are candidates: all."""

    balance: float
    """λ: relevance against diversity, 0 to 1; 1: relevance only."""

    diversifier: Diversifier = "mmr"
    """What makes the slate varied."""

    explain_limit: int = 0
    """Contributions wanted per item; 0: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slate:
    """What was chosen, best first; sequences run in parallel unless said otherwise."""

    indexes: NDArray[np.int64]
    """(k,) int64, places in the request's list of candidates."""

    item_ids: Sequence[str]
    """The items."""

    item_types: Sequence[str]
    """Their types, catalogue included."""

    tiers: Sequence[str]
    """Their tiers, catalogue included."""

    scores: Floats
    """(k,) float64: the model's, or the priors."""

    relevances: Floats
    """(k,) float64, 0 to 1 within the request."""

    features: Floats
    """(k, n_features) float64 with the schema's columns: the values that were used."""

    algorithm: str
    """`lambdarank`, `prior_score` or `caller_order`."""

    model_version: str
    """Empty: no model ranked."""

    diversity_score: float | None
    """1 − mean pairwise similarity; None for fewer than two items."""

    contributions: Sequence[Sequence[FeatureContribution]]
    """Per item, largest first; empty if they were not wanted or no model ranked."""

    stage_seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage took."""

    @property
    def ml_ranking_applied(self) -> bool:
        """Whether a model ranked."""
        return bool(self.model_version)

    @property
    def fallback_reason(self) -> str:
        """Why no model ranked; empty: one did."""
        return "" if self.model_version else NO_MODEL


def rank(
    columns: RequestColumns,
    *,
    schema: FeatureSchema,
    items: ItemState,
    history: History,
    scorer: Scorer | None,
    wish: Wish,
    clock: Callable[[], float],
) -> Slate:
    """Ranks the candidates of one request.

    With a scorer by its scores, diversified by MMR. Without one by prior, or in the caller's order, and not diversified: the features
    are built all the same, because the first model learns from them.
    Items that the catalogue calls unavailable, or that the user dismissed, stay in: the caller offers them, so the caller decides.
    """
    stages: dict[str, float] = {}
    began = clock()

    def stage(name: str) -> None:
        nonlocal began
        now = clock()
        stages[name] = now - began
        began = now

    candidates = items.join(columns)
    stage("join")
    matrix = extract(schema, columns, candidates, history)
    stage("features")
    total = len(candidates.item_ids)
    count = min(wish.count, total) if wish.count else total
    if scorer is None:
        prior = order_of(columns.priors.tolist(), candidates.item_ids)
        algorithm, version = prior.algorithm, ""
        indexes = np.array(prior.indexes, dtype=np.int64)[:count]
        scores, relevances = np.array(prior.scores)[:count], np.array(prior.relevances)[:count]
        similarities = Similarities(candidates, indexes, expected_rows=count)
        chosen = np.arange(count)
    else:
        algorithm, version = LAMBDARANK, scorer.version
        raw = scorer.score(matrix)
        stage("score")
        order = best_first(raw, candidates.item_ids)
        ordered = relevance(raw)[order]
        similarities = Similarities(candidates, order, expected_rows=count)
        chosen = DIVERSIFIERS[wish.diversifier](ordered, similarities, count=count, balance=wish.balance).places
        indexes, relevances = order[chosen], ordered[chosen]
        scores = raw[indexes]
    diversity = diversity_score(similarities.among(chosen))
    stage("diversify")
    features = matrix[indexes]
    contributions = scorer.explain(features, limit=wish.explain_limit) if scorer is not None and wish.explain_limit else ()
    stage("explain")
    places = indexes.tolist()
    return Slate(
        indexes=indexes,
        item_ids=[candidates.item_ids[place] for place in places],
        item_types=[candidates.item_types[place] for place in places],
        tiers=[candidates.tiers[place] for place in places],
        scores=scores,
        relevances=relevances,
        features=features,
        algorithm=algorithm,
        model_version=version,
        diversity_score=diversity,
        contributions=contributions,
        stage_seconds=stages,
    )
