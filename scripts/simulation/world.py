"""The world: a catalogue of items and the people who are shown them, with what is hidden of both.

Everything in it follows from its seed. The hidden part (qualities and tastes) stays here and in `truth`; `player` sends the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.simulation.seeds import generator

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

TYPES = ("backup", "cloud", "energy", "hardware", "licensing", "network", "process", "security", "storage", "training")
TIERS = ("basic", "standard", "premium")
DEVICES = ("desktop", "phone", "tablet")
TAG_COUNT = 40
TAGS_PER_TYPE = 8
MEDIAN_PRICE = 20.0
"""Thousands of the caller's currency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What can be recommended. Arrays have one entry (or row) per item."""

    ids: tuple[str, ...]
    types: Integers
    """Indexes into `TYPES`."""
    tags: Flags
    """(n_items, TAG_COUNT): which tags an item has, 2 to 4 each."""
    prices: Floats
    """Thousands; log-normal around `MEDIAN_PRICE`."""
    tiers: Integers
    """Indexes into `TIERS`: terciles of the price."""
    ages_days: Floats
    """Days since the item came into being, 0 to 365."""
    appraisals: Floats
    """The caller's own estimate of what an item returns; correlates with the hidden quality at about 0.5."""
    qualities: Floats
    """Hidden. Standard normal."""

    def __len__(self) -> int:
        return len(self.ids)

    def tag_names(self, index: int) -> list[str]:
        """The tags of one item, as the caller writes them."""
        return [f"topic-{tag + 1:02d}" for tag in np.flatnonzero(self.tags[index])]


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Who is shown it. Arrays have one entry (or row) per user."""

    ids: tuple[str, ...]
    devices: Integers
    """Indexes into `DEVICES`."""
    stated_budgets: Floats
    """Thousands: what the caller knows of a user's budget, which is the hidden one give or take 30 %."""
    activities: Floats
    """How often a user comes, as a share of all visits; adds up to 1. Seen by the server only through the visits."""
    type_tastes: Floats
    """Hidden. (n_users, n_types), standard normal."""
    tag_tastes: Floats
    """Hidden. (n_users, TAG_COUNT), standard normal."""
    log_budgets: Floats
    """Hidden. Natural logarithm of the price a user feels at ease with, thousands."""
    attention_exponents: Floats
    """Hidden. 0.3 (reads to the end) to 0.9 (reads the top): see `behaviour.attention`."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A catalogue and its people."""

    seed: int
    catalogue: Catalogue
    people: People


def _catalogue(rng: np.random.Generator, seed: int, count: int) -> Catalogue:
    types = rng.integers(len(TYPES), size=count)
    usual = np.array([rng.choice(TAG_COUNT, TAGS_PER_TYPE, replace=False) for _ in TYPES])
    tags = np.zeros((count, TAG_COUNT), dtype=np.bool_)
    for item in range(count):
        wanted = int(rng.integers(2, 5))
        while int(tags[item].sum()) < wanted:
            own = rng.random() < 0.7
            tags[item, rng.choice(usual[types[item]]) if own else rng.integers(TAG_COUNT)] = True
    type_levels = rng.normal(0.0, 0.4, size=len(TYPES))
    prices = MEDIAN_PRICE * np.exp(type_levels[types] + rng.normal(0.0, 0.7, size=count))
    qualities = rng.normal(size=count)
    return Catalogue(
        ids=tuple(f"item-{seed}-{index + 1:04d}" for index in range(count)),
        types=types,
        tags=tags,
        prices=prices,
        tiers=np.searchsorted(np.quantile(prices, [1 / 3, 2 / 3]), prices).astype(np.int64),
        ages_days=rng.uniform(0.0, 365.0, size=count),
        appraisals=0.5 * qualities + np.sqrt(0.75) * rng.normal(size=count),
        qualities=qualities,
    )


def _people(rng: np.random.Generator, seed: int, count: int) -> People:
    log_budgets = rng.normal(np.log(MEDIAN_PRICE), 0.6, size=count)
    activities = np.exp(rng.normal(0.0, 0.6, size=count))
    return People(
        ids=tuple(f"user-{seed}-{index + 1:05d}" for index in range(count)),
        devices=rng.choice(len(DEVICES), size=count, p=[0.6, 0.3, 0.1]),
        stated_budgets=np.exp(log_budgets + rng.normal(0.0, 0.3, size=count)),
        activities=activities / activities.sum(),
        type_tastes=rng.normal(size=(count, len(TYPES))),
        tag_tastes=rng.normal(size=(count, TAG_COUNT)),
        log_budgets=log_budgets,
        attention_exponents=rng.uniform(0.3, 0.9, size=count),
    )


def make_world(*, seed: int, item_count: int, user_count: int) -> World:
    """The world of a seed. ValueError without items or users."""
    if item_count < 1 or user_count < 1:
        raise ValueError("a world needs at least one item and one user")
    rng = generator(seed, "world")
    return World(seed=seed, catalogue=_catalogue(rng, seed, item_count), people=_people(rng, seed, user_count))
