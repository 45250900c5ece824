"""What diversity costs: the model's order after MMR, beside its own.

MMR is the one that serves, over what was shown: candidates that were offered and not shown are not recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.diversity.mmr import mmr
from ranker.diversity.similarity import Similarities, diversity_score
from ranker.features.columns import Candidates
from ranker.features.schema import default_schema
from ranker.scoring.relevance import best_first, relevance
from ranker.state.items import ItemState
from ranker.training.data import TrainingData
from ranker.training.replay import columns_of

MOST_ITEMS = 50
"""Places of a slate that MMR fills; what stands further down keeps the order of relevance."""

SHOWN_FIRST = 10
"""Items whose diversity is reported."""

BALANCES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The λ that are compared."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Diversified:
    """Slates after MMR."""

    scores: NDArray[np.float64]
    """(rows,) float64 that order each slate as MMR does."""
    diversity: NDArray[np.float64]
    """(slates,) float64: 1 − mean pairwise similarity of the first ten; NaN for a slate of one."""


def candidates_of(data: TrainingData, slates: Mapping[str, Mapping[str, object]], items: ItemState) -> list[Candidates]:
    """Each slate's impressions as candidates.

    `slates` are the recorded ones by ranking id, with items and their tags; `items` holds the catalogue. Impressions that are not in
    `data` are left out.
    """
    schema, names = default_schema(), data.codebook.items
    found: list[Candidates] = []
    for slate, ranking_id in enumerate(data.ranking_ids):
        kept = [names[code] for code in data.items[data.offsets[slate] : data.offsets[slate + 1]]]
        recorded = dict(slates[ranking_id])
        by_id = {item["item_id"]: item for item in recorded["items"]}  # type: ignore[attr-defined]
        recorded["items"] = [by_id[item_id] for item_id in kept]
        recorded.pop("features", None)
        found.append(items.join(columns_of(recorded, (), schema)))
    return found


def diversified(data: TrainingData, scores: NDArray[np.float64], candidates: Sequence[Candidates], *, balance: float) -> Diversified:
    """The slates of `data` in the order of MMR with λ `balance` over `scores` ((rows,) float64); `candidates` one per slate."""
    after, diversity = np.empty(data.row_count), np.full(data.slate_count, np.nan)
    for slate, mine in enumerate(candidates):
        rows = slice(int(data.offsets[slate]), int(data.offsets[slate + 1]))
        order = best_first(scores[rows], mine.item_ids)
        ordered = relevance(scores[rows])[order]
        count = min(len(order), MOST_ITEMS)
        alike = Similarities(mine, order, expected_rows=count)
        chosen = mmr(ordered, alike, count=count, balance=balance).places
        rest = np.setdiff1d(np.arange(len(order)), chosen)
        places = np.empty(len(order))
        places[order[np.concatenate((chosen, rest))]] = np.arange(len(order))
        after[rows] = -places
        varied = diversity_score(alike.among(chosen[:SHOWN_FIRST]))
        diversity[slate] = np.nan if varied is None else varied
    return Diversified(scores=after, diversity=diversity)
