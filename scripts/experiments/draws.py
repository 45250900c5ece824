"""Many experiments at once: their users as sums, look after look, and the statistics of `server.inference` over arrays of them.

The formulas stand here a second time, over arrays, because the product's own work on one experiment at a time. `agreement` holds one
against the other on experiments picked at random, in every simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from scripts.experiments.populations import Population
from server.experiments.design import MIN_CONVERSIONS, Design, Metric, Role
from server.experiments.observed import Group, Observed
from server.experiments.readout import read
from server.inference.difference import LEVEL
from server.inference.estimate import Kind
from server.inference.moments import Floats, Moments
from server.inference.sequential import p_values

Integers = NDArray[np.int64]
CHUNK = 250
"""Experiments drawn at once, which bounds the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """A variant in many experiments, at every look. All arrays are (n_runs, n_looks, …)."""

    kind: Kind
    users: Integers
    converted: Integers
    sums: Floats
    """(n_runs, n_looks, width)."""
    products: Floats
    """(n_runs, n_looks, width, width) sums of products."""

    @property
    def values(self) -> Floats:
        """The metric."""
        above = self.sums[..., 0]
        return np.asarray(above / (self.sums[..., 1] if self.kind is Kind.RATIO else self.users), dtype=np.float64)

    @property
    def variances(self) -> Floats:
        """Of the metric."""
        n = self.users
        if self.kind is Kind.PROPORTION:
            return np.asarray(self.values * (1 - self.values) / n, dtype=np.float64)
        means = self.sums / n[..., None]
        around = (self.products - n[..., None, None] * means[..., :, None] * means[..., None, :]) / (n - 1)[..., None, None]
        if self.kind is Kind.MEAN:
            return np.asarray(around[..., 0, 0] / n, dtype=np.float64)
        ratio = self.values
        spread = around[..., 0, 0] - 2 * ratio * around[..., 0, 1] + ratio**2 * around[..., 1, 1]
        return np.asarray(spread / means[..., 1] ** 2 / n, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A control and a variant in many experiments."""

    control: Arm
    treatment: Arm

    @property
    def enough(self) -> NDArray[np.bool_]:
        """(n_runs, n_looks) whether there are conversions enough on both sides."""
        return np.minimum(self.control.converted, self.treatment.converted) >= MIN_CONVERSIONS

    def differences(self, scale: str) -> tuple[Floats, Floats]:
        """(n_runs, n_looks) each: differences and standard errors on a scale: absolute, relative or log_ratio."""
        a, b, va, vb = self.control.values, self.treatment.values, self.control.variances, self.treatment.variances
        with np.errstate(divide="ignore", invalid="ignore"):
            if scale == "absolute":
                return b - a, np.sqrt(va + vb)
            if scale == "relative":
                return (b - a) / a, np.sqrt(vb / a**2 + va * b**2 / a**4)
            return np.log(b / a), np.sqrt(vb / b**2 + va / a**2)

    def fixed_p_values(self, scale: str = "absolute") -> Floats:
        """(n_runs, n_looks) of Welch's test."""
        found, errors = self.differences(scale)
        with np.errstate(divide="ignore", invalid="ignore"):  # as long as nobody converted
            return np.asarray(2 * special.stdtr(self._freedom(), -np.abs(found) / errors), dtype=np.float64)

    def fixed_half_widths(self, scale: str) -> Floats:
        """(n_runs, n_looks) of Welch's interval."""
        _, errors = self.differences(scale)
        return np.asarray(special.stdtrit(self._freedom(), 1 - LEVEL / 2) * errors, dtype=np.float64)

    def sequential_p_values(self, scale: str) -> Floats:
        """(n_runs, n_looks) always valid."""
        found, errors = self.differences(scale)
        with np.errstate(divide="ignore", invalid="ignore"):
            return p_values(found / errors, self.control.users + self.treatment.users)

    def _freedom(self) -> Floats:
        va, vb = self.control.variances, self.treatment.variances
        return np.asarray((va + vb) ** 2 / (va**2 / (self.control.users - 1) + vb**2 / (self.treatment.users - 1)), dtype=np.float64)


def draw(population: Population, users: Integers, rng: np.random.Generator) -> Arm:
    """Users of a population.

    Args:
        users: (n_runs, n_looks) how many come between one look and the next.
    """
    counts = rng.multinomial(users, population.shares).cumsum(axis=1)
    columns, width = population.cells, population.kind.width
    squares = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), -1)
    return Arm(
        population.kind,
        users.cumsum(axis=1),
        counts[..., columns[:, 0] != 0].sum(axis=-1),
        counts @ columns,
        (counts @ squares).reshape(*users.shape, width, width),
    )


def draw_pair(control: Population, treatment: Population, *, runs: int, looks: int, users: int, rng: np.random.Generator) -> Pair:
    """Experiments whose users come evenly between looks, each to either side with probability 1/2; `users` per variant at the last look."""
    per_look: Integers = np.diff(np.linspace(0, 2 * users, looks + 1).round()).astype(np.int64)
    first = rng.binomial(np.broadcast_to(per_look, (runs, looks)), 0.5)
    return Pair(draw(control, first, rng), draw(treatment, per_look - first, rng))


def agreement(pair: Pair, rng: np.random.Generator, count: int = 20) -> float:
    """The largest difference between p-values here and in the product's readout, over experiments and looks picked at random."""
    metric = Metric(name="metric", kind=pair.control.kind, role=Role.PRIMARY)
    design = Design(control_id="a", weights={"a": 0.5, "b": 0.5}, metrics=[metric])
    mine = {"fixed": pair.fixed_p_values()} | {scale: pair.sequential_p_values(scale) for scale in ("absolute", "log_ratio")}
    worst = 0.0
    for run, look in zip(*(rng.integers(size, size=count) for size in pair.control.users.shape), strict=True):
        (found,) = read(design, [_group(name, arm, run, look) for name, arm in (("a", pair.control), ("b", pair.treatment))]).comparisons
        if found.absolute is None or found.relative is None:
            continue
        theirs = {
            "fixed": found.absolute.fixed_horizon.p_value,
            "absolute": found.absolute.sequential.p_value,
            "log_ratio": found.relative.sequential.p_value,
        }
        worst = max(worst, *(abs(theirs[name] - float(mine[name][run, look])) for name in theirs))
    return worst


def _group(name: str, arm: Arm, run: int, look: int) -> Group:
    users = int(arm.users[run, look])
    moments = Moments.from_sums(users, arm.sums[run, look], arm.products[run, look])
    return Group(variant_id=name, user_count=users, metrics={"metric": Observed(moments, int(arm.converted[run, look]))})
