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


def features(names: Iterable[str]) -> tuple[Feature, ...]:
    """The request features every deployment has, then the declared ones, each once."""
    built_in = tuple(Feature(name=name, family=FAMILY, default=float("nan"), meaning=meaning) for name, meaning in _BUILT_IN.items())
    return (*built_in, *declared(name for name in dict.fromkeys(names) if name not in _BUILT_IN))


def declared(names: Iterable[str]) -> tuple[Feature, ...]:
    """Request features that a configuration declares."""
    meaning = "declared by the configuration, set by the caller"
    return tuple(Feature(name=name, family=FAMILY, default=float("nan"), meaning=meaning) for name in names)


def fill(out: Floats, candidates: Candidates) -> None:
    """Writes (n_request_features, n_candidates): the catalogue's numbers and the candidates' priors. What was sent by name comes later.

    Features that only a model declares come last, and the catalogue's numbers are not held for them.
    """
    known = candidates.numbers.shape[1]
    out[:known] = candidates.numbers.T
    out[known:] = np.nan
    np.copyto(out[0], candidates.priors, where=~np.isnan(candidates.priors))
