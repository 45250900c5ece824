"""The order in which candidates stand when no model ranks them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

PRIOR_SCORE: Final = "prior_score"
CALLER_ORDER: Final = "caller_order"


class HasPrior(Protocol):
    """A candidate, as far as this reads it."""

    @property
    def item_id(self) -> str:
        """The item."""

    @property
    def prior_score(self) -> float:
        """The caller's own confidence; 0 where there is none."""

    def HasField(self, field_name: str, /) -> bool:  # noqa: N802 - protobuf names it
        """Whether there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorOrder:
    """An order of candidates by what the caller thinks of them; lists run in parallel, best first."""

    indexes: Sequence[int]
    """Places in the caller's list."""

    scores: Sequence[float]
    """Prior scores; 0 without one."""

    relevances: Sequence[float]
    """0 to 1: least to largest prior of the request; 1 where all priors are equal or there is none at all; 0 without one beside others."""

    algorithm: str
    """PRIOR_SCORE, or CALLER_ORDER where no candidate has a prior."""


def prior_order(candidates: Sequence[HasPrior]) -> PriorOrder:
    """By prior, the largest first and equal ones by item id; those without one after them, in the caller's order.

    Pure and without arrays: it also serves where nothing else does.
    """
    priors = [candidate.prior_score if candidate.HasField("prior_score") else math.nan for candidate in candidates]
    return order_of(priors, [candidate.item_id for candidate in candidates])


def order_of(priors: Sequence[float], item_ids: Sequence[str]) -> PriorOrder:
    """The same for priors taken out already; NaN: none."""
    places = range(len(priors))
    known = [place for place in places if not math.isnan(priors[place])]
    if not known:
        count = len(priors)
        return PriorOrder(indexes=places, scores=[0.0] * count, relevances=[1.0] * count, algorithm=CALLER_ORDER)
    known.sort(key=lambda place: (-priors[place], item_ids[place]))
    unknown = [place for place in places if math.isnan(priors[place])]
    scores = [priors[place] for place in known]
    largest, least = scores[0], scores[-1]
    # Halved, so that the span of huge priors stays finite.
    span = largest / 2 - least / 2
    relevances = [min(1.0, (score / 2 - least / 2) / span) for score in scores] if span > 0.0 else [1.0] * len(scores)
    return PriorOrder(
        indexes=known + unknown,
        scores=scores + [0.0] * len(unknown),
        relevances=relevances + [0.0] * len(unknown),
        algorithm=PRIOR_SCORE,
    )
