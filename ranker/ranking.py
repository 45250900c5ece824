"""From columns to a slate: features, scores, relevance, diversity. No input or output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ranker.arrangement import Chance, Manner, arrange
from ranker.diversity.diversifiers import Diversifier
from ranker.diversity.similarity import Similarities, diversity_score
from ranker.exploration.exploration import Exploration
from ranker.features.columns import Candidates, Floats, RequestColumns
from ranker.features.counters import ALL_TIME, IMPRESSIONS
from ranker.features.extraction import extract
from ranker.features.history import History
from ranker.features.schema import FeatureSchema
from ranker.prior import order_of
from ranker.rules.offered import OfferedCandidates
from ranker.rules.rule import NO_RULES, Rules
from ranker.rules.ruling import Effect
from ranker.scoring.explanation import FeatureContribution
from ranker.scoring.relevance import best_first, relevance
from ranker.state.items import ItemState

LAMBDARANK: Final = "lambdarank"
NO_MODEL: Final = "NO_MODEL"


class Scorer(Protocol):
    """A model that scores."""

    @property
    def version(self) -> str:
        """The model's version."""

    @property
    def schema(self) -> FeatureSchema:
        """The columns of the matrices it takes: those of the deployment, and perhaps more."""

    def score(self, matrix: Floats) -> Floats:
        """(n,) float64, finite, from (n, n_features) float64 with the schema's columns."""

    def explain(self, matrix: Floats, *, beside: Floats, limit: int) -> list[list[FeatureContribution]]:
        """What each row's score is made of; `beside` are the rows of all candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a slate shall be made."""

    count: int
    """Items wanted; 0: all. More than there are candidates: all."""

    balance: float
    """λ: relevance against diversity, 0 to 1; 1: relevance only."""

    diversifier: Diversifier = "mmr"
    """What makes the slate varied."""

    exploration: Exploration | None = None
    """How chance has a say; None: not at all."""

    seed: int = 0
    """What chance is drawn from."""

    rules: Rules = NO_RULES
    """What holds whatever a model says."""


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
    """(k,) float64, 0 to 1 within the request, before boosts."""

    propensities: Floats
    """(k,) float64: the probability with which each item came to its position."""

    features: Floats
    """(k, n_features) float64 with the schema's columns: the values that were used."""

    algorithm: str
    """`lambdarank`, `prior_score` or `caller_order`."""

    model_version: str
    """Empty: no model ranked."""

    diversity_score: float | None
    """1 − mean pairwise similarity; None for fewer than two items."""

    beside: Floats
    """(n, n_columns) float64: the feature values of all candidates, columns as the model takes them."""

    contributions: Sequence[Sequence[FeatureContribution]] = ()
    """Of the first items, adding up to their scores; empty if they were not wanted or no model ranked."""

    effects: Sequence[Effect] = ()
    """What rules did."""

    exploration: Exploration | None = None
    """How chance had a say; None: not at all."""

    seed: int = 0
    """What chance was drawn from."""

    pool_size: int = 0
    """How many candidates could come to a position by chance."""

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


SURE_IMPRESSIONS: Final = 20.0
"""Impressions after which doubt in an item's relevance has fallen by the root of 2."""


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
    are built all the same, because the first model learns from them. Rules hold and chance has its say either way.
    A model may read request features that the deployment no longer declares: then the columns of the request are those of its schema, and
    what is recorded is what the deployment declares.
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
    used = schema if scorer is None else scorer.schema
    matrix = extract(used, columns, candidates, history)
    stage("features")
    total = len(candidates.item_ids)
    count = min(wish.count, total) if wish.count else total
    if scorer is None:
        prior = order_of(columns.priors.tolist(), candidates.item_ids)
        algorithm, version, balance = prior.algorithm, "", 1.0
        order = np.array(prior.indexes, dtype=np.int64)
        raw, ordered = np.empty(total), np.array(prior.relevances)
        raw[order] = prior.scores
    else:
        algorithm, version, balance = LAMBDARANK, scorer.version, wish.balance
        raw = scorer.score(matrix)
        stage("score")
        order = best_first(raw, candidates.item_ids)
        ordered = relevance(raw)[order]
    similarities = Similarities(candidates, order, expected_rows=count)
    arranged = arrange(
        order,
        ordered,
        similarities,
        rules=wish.rules,
        offered=_offered(candidates, wish),
        manner=Manner(count=wish.count, balance=balance, diversifier=wish.diversifier, chance=_chance(candidates, wish)),
    )
    indexes = order[arranged.places]
    diversity = diversity_score(similarities.among(arranged.places))
    stage("diversify")
    features = matrix[indexes]
    if used is not schema:
        features = np.ascontiguousarray(features[:, [used.index[name] for name in schema.names]])
    places = indexes.tolist()
    return Slate(
        indexes=indexes,
        item_ids=[candidates.item_ids[place] for place in places],
        item_types=[candidates.item_types[place] for place in places],
        tiers=[candidates.tiers[place] for place in places],
        scores=raw[indexes],
        relevances=ordered[arranged.places],
        propensities=arranged.propensities,
        features=features,
        algorithm=algorithm,
        model_version=version,
        diversity_score=diversity,
        beside=matrix,
        effects=arranged.effects,
        exploration=wish.exploration,
        seed=wish.seed,
        pool_size=arranged.pool_size,
        stage_seconds=stages,
    )


def _offered(candidates: Candidates, wish: Wish) -> OfferedCandidates:
    """The candidates as rules look at them, catalogue included."""
    if not wish.rules:
        return OfferedCandidates((), (), ())
    names, ends = candidates.tag_names, np.cumsum(candidates.tag_counts).tolist()
    codes = candidates.tag_codes.tolist()
    starts = [0, *ends[:-1]]
    tags = [[names[code] for code in codes[start:end]] for start, end in zip(starts, ends, strict=True)]
    return OfferedCandidates(candidates.item_ids, candidates.item_types, tags)


def _chance(candidates: Candidates, wish: Wish) -> Chance | None:
    if wish.exploration is None:
        return None
    shown = candidates.item_tallies[:, ALL_TIME, IMPRESSIONS]
    doubt = 1.0 / np.sqrt(1.0 + np.maximum(shown, 0) / SURE_IMPRESSIONS)
    return Chance(exploration=wish.exploration, rng=np.random.default_rng(wish.seed), doubt=doubt)
