"""Figures of a phase, and of one phase against another, with 95 % bootstrap intervals over users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scripts.simulation.seeds import generator
from scripts.simulation.visits import Visit
from scripts.simulation.world import Floats

FIGURES: Mapping[str, tuple[str, str]] = {
    "ndcg_at_10": ("ndcg", "slates"),
    "ctr": ("clicked_impressions", "impressions"),
    "implementation_rate": ("implements", "clicks"),
    "diversity_score": ("diversity", "diversity_slates"),
}
"""Every figure is a sum ÷ a sum: true NDCG@10 and diversity per slate, clicked impressions ÷ impressions, implements ÷ clicks."""

SUMS = ("slates", "ndcg", "diversity", "diversity_slates", "impressions", "clicked_impressions", "clicks", "implements")
LEVEL = 0.95
DRAWS = 2_000
NOTHING = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value and its interval; all None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, float | None]:
        """`{"value": …, "low": …, "high": …}`."""
        return {"value": self.value, "low": self.low, "high": self.high}


Figures = dict[str, Figure]


def sums_per_user(visits: Sequence[Visit], user_count: int) -> dict[str, Floats]:
    """For each of `SUMS` an array (n_users,)."""
    users = np.array([visit.user for visit in visits], dtype=np.int64)

    def summed(values: list[float]) -> Floats:
        return np.bincount(users, weights=np.array(values, dtype=np.float64), minlength=user_count).astype(np.float64)

    columns: dict[str, list[float]] = {
        "slates": [1.0 for _ in visits],
        "ndcg": [visit.ndcg for visit in visits],
        "diversity": [visit.diversity or 0.0 for visit in visits],
        "diversity_slates": [float(visit.diversity is not None) for visit in visits],
        "impressions": [visit.impression_count for visit in visits],
        "clicked_impressions": [visit.clicked_impression_count for visit in visits],
        "clicks": [visit.click_count for visit in visits],
        "implements": [visit.implement_count for visit in visits],
    }
    return {name: summed(columns[name]) for name in SUMS}


def _resamples(user_count: int, seed: int, draws: int) -> Floats:
    """(draws, n_users): how often each user is in each bootstrap sample."""
    rng = generator(seed, "bootstrap")
    return rng.multinomial(user_count, np.full(user_count, 1.0 / user_count), size=draws).astype(np.float64)


def _ratio(over: Floats, under: Floats) -> Floats:
    """over ÷ under, NaN where there is nothing below the line."""
    return np.divide(over, under, out=np.full_like(over, NOTHING), where=under > 0)


def _figure(value: float, sampled: Floats) -> Figure:
    sampled = sampled[np.isfinite(sampled)]
    if not np.isfinite(value) or sampled.size == 0:
        return Figure(value=None, low=None, high=None)
    low, high = np.quantile(sampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(value=float(value), low=float(low), high=float(high))


def _active(*phases: dict[str, Floats]) -> list[dict[str, Floats]]:
    """The phases cut down to the users who were there in any of them."""
    there = np.logical_or.reduce([phase["slates"] > 0 for phase in phases])
    return [{name: values[there] for name, values in phase.items()} for phase in phases]


def figures_of(visits: Sequence[Visit], user_count: int, *, seed: int, draws: int = DRAWS) -> Figures:
    """The figures of a phase. A bootstrap sample draws as many users as came, with replacement, each with all of their slates."""
    (sums,) = _active(sums_per_user(visits, user_count))
    resamples = _resamples(len(sums["slates"]), seed, draws) if visits else np.empty((0, 0))
    figures: Figures = {}
    for name, (over, under) in FIGURES.items():
        value = _ratio(sums[over].sum(keepdims=True), sums[under].sum(keepdims=True))[0]
        figures[name] = _figure(float(value), _ratio(resamples @ sums[over], resamples @ sums[under]))
    return figures


def lift_of(before: Sequence[Visit], after: Sequence[Visit], user_count: int, *, seed: int, draws: int = DRAWS) -> Figures:
    """(after − before) ÷ before for each figure. The same people are in both, so a bootstrap sample draws a user with both phases."""
    if not before or not after:
        return {name: Figure(value=None, low=None, high=None) for name in FIGURES}
    first, second = _active(sums_per_user(before, user_count), sums_per_user(after, user_count))
    resamples = _resamples(len(first["slates"]), seed, draws)
    lifts: Figures = {}
    for name, (over, under) in FIGURES.items():

        def change(weights: Floats, over: str = over, under: str = under) -> Floats:
            was, became = _ratio(weights @ first[over], weights @ first[under]), _ratio(weights @ second[over], weights @ second[under])
            return _ratio(became - was, was)

        lifts[name] = _figure(float(change(np.ones((1, resamples.shape[1])))[0]), change(resamples))
    return lifts


def as_json(figures: Figures) -> dict[str, dict[str, float | None]]:
    """The figures by name, as a program reads them."""
    return {name: figure.as_json() for name, figure in figures.items()}
