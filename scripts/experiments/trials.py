"""False positives, coverage and power of the readout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from scripts.experiments.draws import CHUNK, Pair, agreement, draw_pair
from scripts.experiments.populations import FIGURES, Population, clicks, conversion, revenue, users_per_variant
from scripts.experiments.table import Finding, percent, rate
from server.inference import power
from server.inference.difference import LEVEL
from server.inference.moments import Floats
from server.inference.sequential import half_widths

LOOKS = 30
LIFT = 0.1
AGREEMENT = 1e-6
"""How far p-values here may be from the product's, for rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How much is simulated."""

    runs: int
    seed: int
    step: Callable[[], None]
    """Called after each row, for a progress bar."""

    def rng(self, *key: int) -> np.random.Generator:
        """A stream of its own for every row."""
        return np.random.default_rng([self.seed, *key])


CASES = [(place, figure, base) for place, figure in enumerate(FIGURES) for base in figure.rates]


def slack(share: float, runs: int) -> float:
    """How far a share may be off by chance: three standard errors."""
    return 3 * math.sqrt(share * (1 - share) / runs)


def false_positives(trial: Trial) -> Finding:
    """A/A tests: how often a difference is called where there is none."""
    rows, failures = [], []
    for place, figure, base in CASES:
        same, users = figure.make(base, 0.0), users_per_variant(base)
        called = np.zeros(5)
        rng = trial.rng(1, place, round(base * 1e4))
        for pair in _chunks(trial.runs, same, same, LOOKS, users, rng):
            _agree(pair, rng, figure.name)
            enough = pair.enough
            fixed = pair.fixed_p_values()
            called += [
                *(
                    (enough & (pair.sequential_p_values(scale) < LEVEL)).any(axis=1).sum()
                    for scale in ("absolute", "log_ratio", "relative")
                ),
                (fixed[:, -1] < LEVEL).sum(),
                (enough & (fixed < LEVEL)).any(axis=1).sum(),
            ]
        absolute, log_ratio, relative, once, always = called / trial.runs
        rows.append([figure.name, rate(base), f"{users:,}", *map(percent, (absolute, log_ratio, once, always, relative))])
        if max(absolute, log_ratio) > LEVEL + (0 if trial.runs >= 5000 else slack(LEVEL, trial.runs)):
            failures.append(f"{figure.name} at {rate(base)}: the sequential readout is wrong in {percent(max(absolute, log_ratio))}")
        if abs(once - LEVEL) > max(0.01, 0 if trial.runs >= 5000 else slack(LEVEL, trial.runs)):
            failures.append(f"{figure.name} at {rate(base)}: the fixed test is wrong in {percent(once)}")
        trial.step()
    return Finding(
        "false_positives",
        f"A/A tests, {trial.runs:,} runs, {LOOKS} looks",
        "Share of runs in which a difference was called that is not there. The sequential readout should be at most 5 % over all looks "
        "together, the fixed test 4 to 6 % at its one look. The last two columns are what the readout does not do, and why.",
        [
            "metric",
            "base rate",
            "users per variant",
            "sequential, absolute",
            "sequential, log ratio",
            "fixed, one look",
            "fixed, at every look",
            "sequential, relative",
        ],
        rows,
        failures,
    )


def coverage(trial: Trial) -> Finding:
    """How often an interval holds the true difference."""
    rows, failures = [], []
    for place, figure, base in CASES:
        control, treatment, users = figure.make(base, 0.0), figure.make(base, LIFT), users_per_variant(base)
        truths = {
            "absolute": treatment.value - control.value,
            "relative": treatment.value / control.value - 1,
            "log_ratio": math.log(treatment.value / control.value),
        }
        held = np.zeros(4)
        rng = trial.rng(2, place, round(base * 1e4))
        for pair in _chunks(trial.runs, control, treatment, LOOKS, users, rng):
            held += [
                *(_holds(pair, scale, truths[scale], pair.fixed_half_widths(scale))[:, -1].sum() for scale in ("absolute", "relative")),
                *(
                    (_holds(pair, scale, truths[scale], _always_half_widths(pair, scale)) | ~pair.enough).all(axis=1).sum()
                    for scale in ("absolute", "log_ratio")
                ),
            ]
        absolute, relative, *always = held / trial.runs
        rows.append([figure.name, rate(base), f"{users:,}", *map(percent, (absolute, relative, *always))])
        for name, share in (("absolute", absolute), ("relative", relative)):
            if abs(share - 0.95) > max(0.01, 0 if trial.runs >= 5000 else slack(LEVEL, trial.runs)):
                failures.append(f"{figure.name} at {rate(base)}: the {name} interval holds the truth in {percent(share)}")
        if min(always) < 0.95 - (0 if trial.runs >= 5000 else slack(LEVEL, trial.runs)):
            failures.append(f"{figure.name} at {rate(base)}: the always-valid interval holds the truth in {percent(min(always))}")
        trial.step()
    return Finding(
        "coverage",
        f"Coverage of 95 % intervals, {trial.runs:,} runs, true lift {LIFT:.0%}",
        "Share of runs in which the interval held the true difference: fixed-horizon intervals at their one look (should be 94 to 96 %), "
        f"always-valid ones at all of {LOOKS} looks together (at least 95 %).",
        ["metric", "base rate", "users per variant", "fixed, absolute", "fixed, relative", "sequential, absolute", "sequential, log ratio"],
        rows,
        failures,
    )


def planned_power(trial: Trial) -> Finding:
    """Whether the planned size finds what it was planned for."""
    plans: list[tuple[str, Population, Population]] = [
        ("conversion 10 % → 11 %", conversion(0.1, 0.0), conversion(0.1, 0.1)),
        ("conversion 2 % → 2.4 %", conversion(0.02, 0.0), conversion(0.02, 0.2)),
        ("conversion 0.2 % → 0.3 %", conversion(0.002, 0.0), conversion(0.002, 0.5)),
        ("clicks by impressions 5 % → 5.25 %", clicks(0.05, 0.0), clicks(0.05, 0.05)),
        ("revenue per user + 20 %, 5 % buy", revenue(0.05, 0.0), revenue(0.05, 0.2)),
    ]
    rows, failures = [], []
    for place, (name, control, treatment) in enumerate(plans):
        for wanted in (0.8, 0.9):
            users = power.users_per_variant(control.variance, treatment.variance, treatment.value - control.value, power=wanted)
            found = np.zeros(2)
            for pair in _chunks(trial.runs, control, treatment, LOOKS, users, trial.rng(3, place, round(wanted * 10))):
                always = pair.enough & (pair.sequential_p_values("absolute") < LEVEL)
                found += [(pair.fixed_p_values()[:, -1] < LEVEL).sum(), always.any(axis=1).sum()]
            once, sequentially = found / trial.runs
            rows.append([name, percent(wanted), f"{users:,}", percent(once), percent(sequentially)])
            if abs(once - wanted) > max(0.02, slack(wanted, trial.runs)):
                failures.append(f"{name}: power {percent(once)} where {percent(wanted)} was planned")
            trial.step()
    return Finding(
        "power",
        f"Power at the planned size, {trial.runs:,} runs",
        "Share of runs in which the planned effect was found: by the fixed test at its one look (as planned), and by the sequential one "
        "at any look up to that size (less: the price of looking every day).",
        ["effect", "planned power", "users per variant", "fixed", "sequential"],
        rows,
        failures,
    )


ROW_COUNT = 2 * len(CASES) + 10
"""Rows of the three tables."""


def _chunks(runs: int, control: Population, treatment: Population, looks: int, users: int, rng: np.random.Generator) -> Iterator[Pair]:
    for start in range(0, runs, CHUNK):
        yield draw_pair(control, treatment, runs=min(CHUNK, runs - start), looks=looks, users=users, rng=rng)


def _always_half_widths(pair: Pair, scale: str) -> Floats:
    return half_widths(pair.differences(scale)[1], pair.control.users + pair.treatment.users)


def _holds(pair: Pair, scale: str, truth: float, widths: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.asarray(np.abs(pair.differences(scale)[0] - truth) <= widths)


def _agree(pair: Pair, rng: np.random.Generator, name: str) -> None:
    """Raises ArithmeticError where the product's readout says something else of the same sums."""
    worst = agreement(pair, rng, count=2)
    if worst > AGREEMENT:
        raise ArithmeticError(f"the readout's p-values of {name} are {worst:.2g} from those simulated")
