"""What the caller says of a candidate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from ranker.features.columns import Candidates, Floats
from ranker.features.feature import Feature

FAMILY: Final = "request"

_BUILT_IN: Final = {
    "prior_score": "the caller's own confidence, on the caller's scale",
    "roi_potential": "what acting on it is expected to return, relative to its cost",
    "cost": "what acting on it costs",
    "price": "its price",
    "salary_increase": "by how much pay is expected to rise",
    "duration": "how long it takes, in the caller's unit",
    "match_score": "how well the caller thinks it fits the user",
    "quality": "how good the caller thinks it is in itself",
}


def features(declared: Iterable[str]) -> tuple[Feature, ...]:
    """The request features every deployment has, then the declared ones, each once."""
    names = dict(_BUILT_IN)
    for name in declared:
        names.setdefault(name, "declared by the configuration, set by the caller")
    return tuple(Feature(name=name, family=FAMILY, default=float("nan"), meaning=meaning) for name, meaning in names.items())


def fill(out: Floats, candidates: Candidates) -> None:
    """Writes (n_request_features, n_candidates): the catalogue's numbers and the candidates' priors. What was sent by name comes later."""
    out[:] = candidates.numbers.T
    np.copyto(out[0], candidates.priors, where=~np.isnan(candidates.priors))
