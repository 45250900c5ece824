"""Settings of the trainer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.configuration import Section

Untouched = Literal["auto", "negative", "unseen"]


class TrainerSettings(Section):
    """How models are trained, and when one is good enough to try."""

    min_interactions: int = Field(100, ge=1)
    """Interactions that must have occurred in the look-back window; with fewer, nothing is trained."""

    lookback_days: float = Field(90.0, gt=0, le=3650)
    """How far back slates and interactions are looked at, in days."""

    validation_split: float = Field(0.2, ge=0.02, le=0.8)
    """Share of the slates, the latest ones, that is not learned from: its earlier half stops the training, its later half is reported."""

    min_slates: int = Field(20, ge=4)
    """Slates to learn from and evaluate on that there must be at least."""

    untouched: Untouched = "auto"
    """What an impression means that nobody interacted with. `negative`: it was seen and passed over, its label is 0. `unseen`: nothing, and
    it is left out; where views are tracked, this takes most of the position's influence out of what is learned. `auto`: `unseen` where most
    impressions that had an interaction had a view, else `negative`."""

    num_boost_round: int = Field(500, ge=1, le=20_000)
    """Trees at most; early stopping keeps fewer."""

    early_stopping_rounds: int = Field(50, ge=1)
    """Rounds without a better NDCG@10 on the validation slice after which training stops."""

    warm_start_max_trees: int = Field(2_000, ge=1, le=100_000)
    """Trees of a champion from which on it is not continued any more: every tree costs time at each ranking."""

    learning_rate: float = Field(0.05, gt=0, le=1)
    """What a tree's correction is multiplied by."""

    num_leaves: int = Field(15, ge=2, le=64)
    """Leaves of a tree at most; the fast scorer takes no more than 64."""

    min_data_in_leaf: int = Field(0, ge=0)
    """Impressions that a leaf must stand on; 0: one in 150 of those learned from, 5 at least and 100 at most."""

    seed: int = Field(1, ge=0, le=2**31 - 1)
    """Seed of everything random: the same data, settings and seed give the same model on the same machine."""

    num_threads: int = Field(0, ge=0, le=256)
    """Threads that train; 0: one per core. Part of what makes a model the same again."""

    bootstrap_samples: int = Field(1000, ge=100, le=100_000)
    """Resamples of the users behind every interval."""
