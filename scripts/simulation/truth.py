"""What an item is truly worth to a user, and how good an order truly is. None of it reaches the server."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.simulation.world import Floats, Integers, World

TYPE_SHARE = 0.30
TAG_SHARE = 0.25
PRICE_SHARE = 0.15
QUALITY_SHARE = 0.30
"""Shares of the variance of what an item is worth to a user; they add up to 1."""

GLIMPSE = 0.5
"""How much of an item's quality shows before it is opened."""

STEEPNESS = 1.2
OFFSET = 1.0
"""utility = sigmoid(STEEPNESS · worth − OFFSET): an average item has 0.27, one in forty more than 0.8."""

CUTOFF = 10
"""NDCG is taken at this position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The worth of every item to every user. Both arrays are (n_users, n_items)."""

    appeals: Floats
    """What a user sees in an item before opening it, in standard deviations of the worth."""
    utilities: Floats
    """What the item is worth to the user, 0 to 1: the true relevance."""


def sigmoid(x: Floats) -> Floats:
    """1 ÷ (1 + e^−x)."""
    return 1.0 / (1.0 + np.exp(-x))


def _standardised(values: Floats) -> Floats:
    """Mean 0 and variance 1 over the whole world; 0 where nothing varies."""
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def truth_of(world: World) -> Truth:
    """Tastes over types and tags, the fit of the price and the hidden quality, weighed by their shares."""
    catalogue, people = world.catalogue, world.people
    by_type = people.type_tastes[:, catalogue.types]
    by_tag = people.tag_tastes @ catalogue.tags.T / np.sqrt(catalogue.tags.sum(axis=1))
    by_price = -((np.log(catalogue.prices)[None, :] - people.log_budgets[:, None]) ** 2)
    taste = (
        np.sqrt(TYPE_SHARE) * _standardised(by_type)
        + np.sqrt(TAG_SHARE) * _standardised(by_tag)
        + np.sqrt(PRICE_SHARE) * _standardised(by_price)
    )
    quality = np.sqrt(QUALITY_SHARE) * _standardised(catalogue.qualities)[None, :]
    return Truth(appeals=taste + GLIMPSE * quality, utilities=sigmoid(STEEPNESS * (taste + quality) - OFFSET))


def gain(utilities: Floats) -> Floats:
    """2^(4·u) − 1: 0 for a worthless item, 15 for a perfect one."""
    return np.exp2(4.0 * utilities) - 1.0


def dcg(utilities: Floats, cutoff: int = CUTOFF) -> Floats:
    """Σ gain ÷ log2(position + 1) over the first `cutoff` of the last axis, which is an order, best first."""
    shown = utilities[..., :cutoff]
    discounts = 1.0 / np.log2(np.arange(2, shown.shape[-1] + 2))
    return np.asarray((gain(shown) * discounts).sum(axis=-1), dtype=np.float64)


def ndcg(served: Floats, offered: Floats, cutoff: int = CUTOFF) -> float:
    """The DCG of what was served, in its order, ÷ that of the best order of all that was offered; 1 is perfect.

    Args:
        served: (n_served,) utilities in the order of the slate.
        offered: (n_candidates,) utilities of all candidates of the request, in any order; not empty.
    """
    return float(dcg(served, cutoff) / dcg(np.sort(offered)[::-1], cutoff))


def expected_ndcg(utilities: Floats, scores: Floats, candidates: Integers, cutoff: int = CUTOFF) -> float:
    """The mean NDCG over many requests that are ordered by a score.

    Args:
        utilities: (n_requests, n_items) of each request's user.
        scores: (n_requests, n_items), larger is better.
        candidates: (n_requests, n_candidates) indexes of the items offered.
    """
    offered = np.take_along_axis(utilities, candidates, axis=1)
    order = np.argsort(-np.take_along_axis(scores, candidates, axis=1), axis=1, kind="stable")
    served = np.take_along_axis(offered, order, axis=1)
    ideal = np.sort(offered, axis=1)[:, ::-1]
    return float((dcg(served, cutoff) / dcg(ideal, cutoff)).mean())
