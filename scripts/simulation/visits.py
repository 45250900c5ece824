"""Visits: who comes when, what the caller offers, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.simulation.seeds import generator
from scripts.simulation.world import Floats, Integers, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One slate as it was served, and what the user did with it."""

    user: int
    """Index into the world's people."""
    ndcg: float
    """The true NDCG@10 of the slate among all candidates of its request."""
    diversity: float | None
    """1 − mean pairwise similarity of the slate; None for fewer than two items."""
    impression_count: int
    clicked_impression_count: int
    click_count: int
    implement_count: int
    interaction_count: int
    """Everything the user did, of whatever type."""
    model_version: str
    """Empty: no model ranked."""
    fallback_reason: str
    """Empty: a model ranked."""


def arrivals(world: World, count: int, phase: str) -> Integers:
    """(count,) the users of the visits of a phase in the order of their coming, drawn by activity."""
    people = world.people
    return generator(world.seed, "arrivals", phase).choice(len(people), size=count, p=people.activities).astype(np.int64)


def offer(item_count: int, count: int, rng: np.random.Generator) -> Integers:
    """The candidates of a request: `count` of all items, or all if there are fewer, drawn uniformly.

    What a user has implemented is offered again, so that a phase has the same requests however well the phase before it went.
    """
    return rng.permutation(item_count)[:count].astype(np.int64)


def diversity(world: World, served: Integers) -> float | None:
    """1 − mean pairwise similarity of a slate; None below two items.

    Similarity is (shared tags + e) ÷ (tags of either + e), where e is 1 for an equal type and else 0.
    """
    if len(served) < 2:
        return None
    tags = world.catalogue.tags[served].astype(np.float64)
    types = world.catalogue.types[served]
    equal = (types[:, None] == types[None, :]).astype(np.float64)
    shared, counts = tags @ tags.T, tags.sum(axis=1)
    similar: Floats = (shared + equal) / (counts[:, None] + counts[None, :] - shared + equal)
    return float(1.0 - similar[np.triu_indices(len(served), 1)].mean())
