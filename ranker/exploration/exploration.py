"""How chance has a say in a slate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Floats

Policy = Literal["epsilon_greedy", "thompson"]

DEFAULT_EPSILON: Final = 0.1
DEFAULT_SPREAD: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """What is done."""

    policy: Policy
    epsilon: float = DEFAULT_EPSILON
    """For `epsilon_greedy`: the probability, at each position, to take any candidate left; 0 to 1."""
    spread: float = DEFAULT_SPREAD
    """For `thompson`: the standard deviation of a never-shown item's relevance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What came out."""

    places: NDArray[np.int64]
    """(k,) int64, places in the order that was explored, as they are shown."""

    propensities: Floats
    """(k,) float64, above 0, at most 1: the probability with which this item came to this position."""

    pool_size: int
    """How many could come to a position by chance."""


def seed_of(ranking_id: str) -> int:
    """What chance is drawn from for a slate: 63 bits, the same wherever the slate is made, and unknown before its id is."""
    return int.from_bytes(hashlib.blake2b(ranking_id.encode(), digest_size=8, person=b"exploration").digest()) >> 1
