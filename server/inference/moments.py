"""What is kept of any number of users: how many, their means, and how their values vary together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over users of one or more values per user; adding two gives those of all their users.

    Kept around the mean, so that large values with a small spread lose nothing to rounding.
    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    count: int
    """Users."""
    mean: Floats
    """(n_values,) the mean of each value over users."""
    products: Floats
    """(n_values, n_values) sums over users of products of deviations from the means."""

    @classmethod
    def of(cls, values: ArrayLike) -> Moments:
        """Of users one by one.

        Args:
            values: (n_users,) or (n_users, n_values) finite.
        """
        rows = np.asarray(values, dtype=np.float64)
        rows = rows[:, None] if rows.ndim == 1 else rows
        mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
        deviations = rows - mean
        return cls(len(rows), mean, deviations.T @ deviations)

    @classmethod
    def from_sums(cls, count: int, sums: ArrayLike, products: ArrayLike) -> Moments:
        """Of plain sums, as a database adds them up.

        Args:
            sums: (n_values,) or a number: the sum of each value.
            products: (n_values, n_values) or a number: sums of products of values; on the diagonal sums of squares.
        """
        total = np.atleast_1d(np.asarray(sums, dtype=np.float64))
        raw = np.atleast_2d(np.asarray(products, dtype=np.float64))
        if count == 0:
            return cls.nothing(len(total))
        around = raw - np.outer(total, total) / count
        np.fill_diagonal(around, np.maximum(np.diag(around), 0.0))
        return cls(count, total / count, around)

    @classmethod
    def of_conversions(cls, count: int, converted: int) -> Moments:
        """Of users who converted or did not.

        Raises:
            ValueError: more converted than there are.
        """
        if not 0 <= converted <= count:
            raise ValueError(f"{converted} of {count} users cannot have converted")
        return cls.from_sums(count, converted, converted)

    @classmethod
    def nothing(cls, value_count: int) -> Moments:
        """Of nobody."""
        return cls(0, np.zeros(value_count), np.zeros((value_count, value_count)))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.products + other.products + np.outer(apart, apart) * (self.count * other.count / count),
        )

    @property
    def covariance(self) -> Floats:
        """(n_values, n_values) with n − 1 below the line; NaN for fewer than two users."""
        if self.count < 2:
            return np.full_like(self.products, np.nan)
        return np.asarray(self.products / (self.count - 1), dtype=np.float64)

    @property
    def sums(self) -> Floats:
        """(n_values,) the sum of each value over users."""
        return np.asarray(self.mean * self.count, dtype=np.float64)


def together(parts: Iterable[Moments], value_count: int) -> Moments:
    """The moments of the users of all parts."""
    return reduce(Moments.__add__, parts, Moments.nothing(value_count))
