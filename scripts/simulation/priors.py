"""The caller's own guess: `prior_score`. It knows the worth of an item to a user only through noise.

The noise is found from the world alone: it is as large as makes the guess's expected true NDCG@10 equal to `TARGET_NDCG`. No
server and no model takes part in that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.simulation.seeds import generator
from scripts.simulation.truth import OFFSET, STEEPNESS, Truth, expected_ndcg
from scripts.simulation.world import Floats, World

TARGET_NDCG = 0.62
ITEM_SHARE = 0.5
"""Share of the noise's variance that is a misjudgement of the item, the same for everybody; the rest is drawn per user and item."""

REQUESTS = 2_000
"""Requests over which the expectation is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """The guess for every user and item, which is the same at every request."""

    scores: Floats
    """(n_users, n_items), 0 to 1, larger is better."""
    noise: float
    """Standard deviation of the noise, in standard deviations of the worth."""
    ndcg: float
    """The expected true NDCG@10 of the guess."""


def make_priors(world: World, truth: Truth, *, candidate_count: int, target: float = TARGET_NDCG) -> Priors:
    """The guess whose expected true NDCG@10 over requests of `candidate_count` uniformly drawn candidates is the target.

    The target may be out of reach: few candidates are in a good order whatever the noise. Then the guess is as noisy as the search
    goes (32 standard deviations), and `ndcg` says what it reaches.
    """
    rng = generator(world.seed, "priors")
    user_count, item_count = truth.utilities.shape
    worth = (np.log(truth.utilities / (1.0 - truth.utilities)) + OFFSET) / STEEPNESS
    of_items, of_pairs = rng.normal(size=(1, item_count)), rng.normal(size=worth.shape)
    errors = np.sqrt(ITEM_SHARE) * of_items + np.sqrt(1 - ITEM_SHARE) * of_pairs
    users = rng.integers(user_count, size=REQUESTS)
    offered = min(candidate_count, item_count)
    candidates = np.argsort(rng.random((REQUESTS, item_count)), axis=1)[:, :offered].astype(np.int64)

    def reached(noise: float) -> float:
        return expected_ndcg(truth.utilities[users], (worth + noise * errors)[users], candidates)

    low, high = 0.0, 32.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) > target else (low, middle)
    noise = (low + high) / 2
    guess = worth + noise * errors
    return Priors(scores=1.0 / (1.0 + np.exp(-guess / np.sqrt(1.0 + noise**2))), noise=noise, ndcg=reached(noise))
