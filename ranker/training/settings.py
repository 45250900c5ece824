"""Settings of the trainer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, field_validator

from ranker.training.schedule import Schedule
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

    gap_hours: float = Field(1.0, ge=0, le=24 * 365)
    """Slates shown less than so long before a later slice begins are left out, so that what was learned from had come to its end; at most a
    fiftieth of the time that all slates span. In hours."""

    replay: bool = True
    """Whether slates recorded without features, or with some that callers brought, get them from the ledger as it was then."""

    max_slates_per_user: int = Field(1000, ge=0)
    """Slates of one user that are used at most, evenly spread over the window: a robot is not a crowd. 0: all."""

    negatives_per_positive: float = Field(0.0, ge=0, le=1000)
    """Impressions without a label that are learned from per one with a label, in each slate, 1 at least; 0: all. The slices that stop the
    training and that are reported keep all of theirs, so their figures and intervals are what they would be without sampling."""

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

    feature_fraction: float = Field(0.8, gt=0, le=1)
    """Share of the features, drawn anew, that each tree may use."""

    lambda_l2: float = Field(1.0, ge=0, le=1000)
    """How strongly leaves that stand on little are drawn towards 0."""

    position_bias: bool = False
    """Whether training takes out of the labels what a position does for whatever stands there (LightGBM's `position`). For surfaces where
    people look at the top first and clicks are all there is; where views are tracked, `untouched` does it without a model of positions.
    The model without this is trained too, and reported beside it."""

    seed: int = Field(1, ge=0, le=2**31 - 1)
    """Seed of everything random: the same data, settings and seed give the same model on the same machine."""

    num_threads: int = Field(0, ge=0, le=256)
    """Threads that train; 0: one per core. Part of what makes a model the same again."""

    follow: bool = False
    """Whether `rankloop up` runs a trainer that follows the traffic (`rankloop train --follow`)."""

    follow_mode: Literal["full", "warm-start"] = "full"
    """What a following trainer begins from: nothing, or the champion's forest where that can be continued."""

    follow_interactions: int = Field(50, ge=0)
    """New labelled interactions after which a following trainer trains; 0: their number is no reason to."""

    follow_schedule: str = ""
    """When a following trainer trains besides: a cron line in UTC, as in `0 4 * * 1` for Mondays at four; empty: at no fixed time."""

    follow_poll_seconds: float = Field(5.0, gt=0, le=3600)
    """How often a following trainer looks whether there is a reason to train."""

    metrics_port: int = Field(0, ge=0, le=65535)
    """The port Prometheus scrapes of a following trainer; 0: any free one."""

    bootstrap_samples: int = Field(1000, ge=100, le=100_000)
    """Resamples of the users behind every interval."""

    max_model_bytes: int = Field(64 * 2**20, ge=1024)
    """Largest packed model; a larger one is refused."""

    may_become_constant: tuple[str, ...] = ()
    """Features that a new model may have seen one value of only, although the champion saw several; other ones are taken for a fault in the
    data, and the model is refused. `*`: all."""

    @field_validator("follow_schedule")
    @classmethod
    def _cron_line(cls, line: str) -> str:
        if line:
            Schedule(line, datetime(2026, 1, 1, tzinfo=UTC))
        return line
