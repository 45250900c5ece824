"""What a readout starts from: sums over the users of each variant, whatever number of users they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from server.inference.moments import Moments


@dataclass(frozen=True, slots=True)
class Observed:
    """A metric over the users of a variant."""

    moments: Moments
    """Columns as `Kind` says, then those of covariates from before the exposure, if any."""
    converted_count: int
    """Users with a value other than 0."""

    @classmethod
    def conversions(cls, count: int, converted: int) -> Observed:
        """Of users who did it or did not."""
        return cls(Moments.of_conversions(count, converted), converted)

    @classmethod
    def of(cls, rows: ArrayLike) -> Observed:
        """Of users one by one.

        Args:
            rows: (n_users, n_columns) finite, columns as `moments`.
        """
        values = np.asarray(rows, dtype=np.float64)
        return cls(Moments.of(values), int(np.count_nonzero(values[:, 0])))

    def __add__(self, other: Observed) -> Observed:
        return Observed(self.moments + other.moments, self.converted_count + other.converted_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A variant's users: all, those of a segment, or those up to a day."""

    variant_id: str
    user_count: int = 0
    exposure_count: int = 0
    """Slates they were shown."""
    metrics: Mapping[str, Observed] = field(default_factory=dict)
    """By name; one that is not there was not measured."""

    def __add__(self, other: Group) -> Group:
        metrics = dict(self.metrics)
        for name, one in other.metrics.items():
            metrics[name] = metrics[name] + one if name in metrics else one
        return Group(
            variant_id=self.variant_id,
            user_count=self.user_count + other.user_count,
            exposure_count=self.exposure_count + other.exposure_count,
            metrics=metrics,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Users first exposed while the shares stood still, and what they did until the shares changed."""

    weights: Mapping[str, float]
    """By variant."""
    groups: Sequence[Group]


def in_order(variant_ids: Sequence[str], groups: Sequence[Group]) -> list[Group]:
    """One group per variant; one without users for a variant that is not there."""
    by_id = {group.variant_id: group for group in groups}
    return [by_id.get(name) or Group(variant_id=name) for name in variant_ids]
