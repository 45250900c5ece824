"""How often a guardrail is called breached where nothing is wrong, and how soon where everything is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scripts.experiments.draws import CHUNK, Arm, Pair, draw
from scripts.experiments.populations import conversion
from scripts.experiments.table import Finding, percent, rate
from scripts.experiments.trials import LOOKS, Trial, slack
from server.experiments.design import MIN_CONVERSIONS, Better, Design, Metric, Role
from server.experiments.observed import Group, Observed
from server.experiments.readout import read
from server.inference.difference import LEVEL
from server.inference.estimate import Kind
from server.inference.sequential import p_values

CASES = ((0.002, 100_000), (0.01, 30_000), (0.05, 12_000), (0.2, 12_000))
"""Rates of failure, and users of both variants at the last look."""
SHARES = (0.5, 0.05)
"""Of the users, those of the variant: as in a test of halves, and at a bandit's floor."""
CHECKED = 5
"""Looks of each chunk whose answer is compared with the readout's own."""
FAILURES = Metric(name="failures", kind=Kind.PROPORTION, role=Role.GUARDRAIL, better=Better.LOWER)
DESIGN = Design(
    control_id="a", weights={"a": 0.5, "b": 0.5}, metrics=[Metric(name="any", kind=Kind.PROPORTION, role=Role.PRIMARY), FAILURES]
)


def guardrails(trial: Trial) -> Finding:
    """A/A tests looked at again and again, and a variant that always fails."""
    rows, failures = [], []
    for place, (base, users) in enumerate(CASES):
        for column, share in enumerate(SHARES):
            rng = trial.rng(10, place, column)
            called, naive, done = 0, 0, 0
            while done < trial.runs:
                runs = min(CHUNK, trial.runs - done)
                pair = _drawn(base, users, share, runs, rng)
                found = _breached(pair)
                called, naive, done = called + int(found.any(axis=1).sum()), naive + int(_naively(pair).any(axis=1).sum()), done + runs
                for run, look in zip(*(rng.integers(size, size=CHECKED) for size in found.shape), strict=True):
                    if _as_read(pair, run, look) != found[run, look]:
                        failures.append(f"the simulation and the readout differ on a guardrail at {rate(base)}")
            soon = _noticed(share)
            rows.append([rate(base), percent(share), percent(called / trial.runs), percent(naive / trial.runs), f"{soon:,}"])
            if called / trial.runs > LEVEL / 2 + slack(LEVEL / 2, trial.runs):
                failures.append(
                    f"a guardrail at {rate(base)}, {percent(share)} of the users in the variant: wrong in {percent(called / trial.runs)}"
                )
            trial.step()
    return Finding(
        "guardrails",
        f"Guardrails, A/A, {trial.runs:,} runs, {LOOKS} looks",
        "Share of runs in which a variant was called to fail more often that fails as often as the control: at most 2.5 % over all looks "
        f"together. Beside it, what would happen if {MIN_CONVERSIONS} failures on one side were enough and each side's own variation were "
        "believed. At last, how many users of the variant it takes to notice one that always fails beside a control that never does.",
        ["failures", "users in the variant", "called", "if one side were enough", "users until noticed"],
        rows,
        failures,
    )


def _drawn(base: float, users: int, share: float, runs: int, rng: np.random.Generator) -> Pair:
    per_look = np.broadcast_to(np.diff(np.linspace(0, users, LOOKS + 1).round()).astype(np.int64), (runs, LOOKS))
    first = rng.binomial(per_look, 1.0 - share)
    same = conversion(base, 0.0)
    return Pair(draw(same, first, rng), draw(same, per_look - first, rng))


def _breached(pair: Pair) -> NDArray[np.bool_]:
    """(n_runs, n_looks) as the readout: both sides' own errors where both have conversions enough, else that of users who are all alike."""
    a, b = pair.control, pair.treatment
    whole = Arm(a.kind, a.users + b.users, a.converted + b.converted, a.sums + b.sums, a.products + b.products)
    expected = whole.converted * np.minimum(a.users, b.users) / whole.users
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(whole.variances * whole.users * (1 / a.users + 1 / b.users))
        alike = p_values((b.values - a.values) / error, whole.users)
    p = np.where(pair.enough, pair.sequential_p_values("log_ratio"), alike)
    return np.asarray((pair.enough | (expected >= MIN_CONVERSIONS)) & (p < LEVEL) & (b.values > a.values), dtype=np.bool_)


def _naively(pair: Pair) -> NDArray[np.bool_]:
    """(n_runs, n_looks) as soon as one side has conversions enough, in either direction, by each side's own variation."""
    enough = np.maximum(pair.control.converted, pair.treatment.converted) >= MIN_CONVERSIONS
    both = (pair.control.converted > 0) & (pair.treatment.converted > 0)
    p = np.where(both, pair.sequential_p_values("log_ratio"), pair.sequential_p_values("absolute"))
    return np.asarray(enough & (p < LEVEL), dtype=np.bool_)


def _as_read(pair: Pair, run: int, look: int) -> bool:
    sides = [(int(arm.users[run, look]), int(arm.converted[run, look])) for arm in (pair.control, pair.treatment)]
    return _read(*sides)


def _noticed(share: float) -> int:
    """Users of a variant that always fails until it is called, the control never failing and having the other users."""
    count = 1
    while not _read((round(count * (1 - share) / share), 0), (count, count)):
        count += 1
    return count


def _read(control: tuple[int, int], treatment: tuple[int, int]) -> bool:
    groups = [
        Group(variant_id=name, user_count=users, metrics={FAILURES.name: Observed.conversions(users, failed)})
        for name, (users, failed) in zip("ab", (control, treatment), strict=True)
    ]
    return read(DESIGN, groups).of(FAILURES.name).comparisons[0].breached


ROW_COUNT = len(CASES) * len(SHARES)
"""Steps of the table."""
