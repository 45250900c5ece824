"""What was decided before the first user came: metrics, the level, the size, and how a verdict is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from server.inference.difference import LEVEL
from server.inference.estimate import Kind
from server.inference.multiplicity import Correction
from server.inference.sequential import TUNING_USERS

MIN_CONVERSIONS = 25
"""Users per variant with a value other than 0, below which nothing is concluded."""


class Role(StrEnum):
    """What a metric is for."""

    PRIMARY = "primary"
    """Decides. There is one."""
    SECONDARY = "secondary"
    """Explains; corrected for their number."""
    GUARDRAIL = "guardrail"
    """Must not get worse; not corrected, so that harm is not overlooked."""


class Better(StrEnum):
    """Which way is good."""

    HIGHER = "higher"
    LOWER = "lower"

    @property
    def sign(self) -> float:
        """1 where higher is better, −1 where lower is."""
        return 1.0 if self is Better.HIGHER else -1.0


class DecideBy(StrEnum):
    """Which of the two results a verdict follows."""

    SEQUENTIAL = "sequential"
    """At any look."""
    FIXED_HORIZON = "fixed_horizon"
    """At the planned size, once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of an experiment."""

    name: str
    kind: Kind
    role: Role = Role.SECONDARY
    better: Better = Better.HIGHER
    margin: float = 0.0
    """Of a guardrail: how much worse than the control, as a share of its value, is still borne."""
    cap: float | None = None
    """Values of users above it count as this much; None: values are taken as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How an experiment is read."""

    control_id: str
    weights: Mapping[str, float]
    """Planned shares of the users, by variant, the control among them."""
    metrics: Sequence[Metric]
    """One of them is primary."""
    planned_users: int | None = None
    """Per variant, from a power calculation; None: not planned."""
    level: float = LEVEL
    tuning_users: int = TUNING_USERS
    correction: Correction = Correction.HOLM
    decide_by: DecideBy = DecideBy.SEQUENTIAL
    min_conversions: int = MIN_CONVERSIONS

    def __post_init__(self) -> None:
        if self.control_id not in self.weights:
            raise ValueError(f"the control {self.control_id} is not among the variants")
        if sum(metric.role is Role.PRIMARY for metric in self.metrics) != 1:
            raise ValueError("an experiment has one primary metric")

    @property
    def primary(self) -> Metric:
        """The metric that decides."""
        return next(metric for metric in self.metrics if metric.role is Role.PRIMARY)

    @property
    def treatment_ids(self) -> list[str]:
        """The variants that are held against the control."""
        return [name for name in self.weights if name != self.control_id]
