"""Thompson sampling: every candidate's worth is drawn from what is believed of it, and the draws decide the order.

The belief is a normal distribution around the candidate's worth, wide where little is known. It is drawn from at `LEVELS` equally likely
points. So the probability that a candidate comes to a position is a finite sum, and exact for the policy as it is carried out: over its
own points, of the probability that exactly so many others are drawn above it (a Poisson binomial distribution, summed up one by one).

W. R. Thompson, "On the likelihood that one unknown probability exceeds another in view of the evidence of two samples", Biometrika 1933.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ranker.exploration.exploration import Explored
from ranker.features.columns import Floats

LEVELS: Final = 16
"""Points of a belief."""

DEPTH: Final = 50
"""Candidates whose worth is drawn; further ones stand behind them, in order, and never come up by chance. Exact probabilities cost
LEVELS × DEPTH × the square of the positions."""

POINTS: Final[Floats] = ndtri((np.arange(LEVELS) + 0.5) / LEVELS)
"""(LEVELS,) float64: of the standard normal distribution, the middles of equally likely parts, ascending."""


def thompson(worth: Floats, deviation: Floats, count: int, rng: np.random.Generator, *, depth: int = DEPTH) -> Explored:
    """Shows `count` candidates by draws.

    Args:
        worth: (n,) float64, largest first; equal draws stand in this order.
        deviation: (n,) float64, at least 0, in units of worth.
        count: positions, at most n.
        rng: chance.
        depth: candidates whose worth is drawn: those that can be drawn highest.
    """
    pool = np.sort(np.argsort(-(worth + deviation * POINTS[-1]), kind="stable")[:depth])
    beliefs = worth[pool, None] + deviation[pool, None] * POINTS
    drawn = beliefs[np.arange(len(pool)), rng.integers(LEVELS, size=len(pool))]
    shown = np.argsort(-drawn, kind="stable")[:count]
    chances = probabilities(beliefs, shown)
    rest = np.setdiff1d(np.arange(len(worth)), pool)[: count - len(shown)]
    return Explored(
        places=np.concatenate((pool[shown], rest)), propensities=np.concatenate((chances, np.ones(len(rest)))), pool_size=len(pool)
    )


def probabilities(beliefs: Floats, shown: NDArray[np.int64]) -> Floats:
    """(k,) float64: the probability of each of (k,) shown candidates to come to its position, whatever stands elsewhere.

    `beliefs` is (n, LEVELS) float64, ascending in each row; equal draws stand in the order of rows.
    """
    count, levels = len(shown), beliefs.shape[1]
    if not count:
        return np.empty(0)
    own = beliefs[shown].ravel()
    owner = np.repeat(shown, levels)
    # above[:, c]: the probability that c of the others looked at so far are drawn above; more than count − 1 matter to nobody.
    above = np.zeros((len(own), count))
    above[:, 0] = 1.0
    for other, belief in enumerate(beliefs):
        behind = levels - np.searchsorted(belief, own, side="right")
        tied = levels - np.searchsorted(belief, own, side="left")
        share = np.where(other < owner, tied, behind) / levels
        share[owner == other] = 0.0
        if not share.any():
            continue
        up = share[:, None]
        above[:, 1:] += up * (above[:, :-1] - above[:, 1:])
        above[:, 0] *= 1.0 - share
    places = np.repeat(np.arange(count), levels)
    chances: Floats = above[np.arange(len(own)), places].reshape(count, levels).mean(axis=1)
    return np.minimum(chances, 1.0)
