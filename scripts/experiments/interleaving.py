"""Interleaving against an A/B test, on the simulated people: how many users either needs to say which of two rankings is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from scripts.experiments.table import Finding, percent
from scripts.experiments.trials import Trial, slack
from scripts.simulation.behaviour import Habits, attention, click_chances
from scripts.simulation.truth import truth_of
from scripts.simulation.world import Floats, make_world
from server.experiments.design import MIN_CONVERSIONS
from server.experiments.interleaving import TUNING_USERS, Team, coin_of, preference, team_draft
from server.inference import power
from server.inference.difference import LEVEL, Difference, Scale, difference, welch
from server.inference.estimate import Kind, estimate
from server.inference.moments import Moments
from server.inference.sequential import p_values

PEOPLE, ITEMS = 300, 400
VISITS = 12
"""Users drawn of each person: the same taste, other slates."""
SLATES = 4
"""Slates that a user is shown in the experiment."""
CANDIDATES, LENGTH = 50, 10
NOISES = ((1.0, 0.6), (0.8, 0.6))
"""How far either ranking's guess is off the truth, in standard deviations of what items are worth: (control, treatment)."""
POWER = 0.8
CLICKS = (0.05, 0.2, 1.0, 3.0)
"""Of a user, on either ranking's picks, over all slates; mean."""
SPREAD = 1.0
"""Standard deviation of the logarithm of how much users click."""
LOOKED_AT = 2_000
"""Users of a run of the A/A test."""
COMPARED = 5
"""Runs whose last p-value is compared with that of the readout."""


@dataclass(frozen=True, slots=True, eq=False)
class Clicks:
    """What users did under either design. All arrays are (n_users,)."""

    control: Floats
    """Clicks by impressions of a user who only sees the control's slates."""
    treatment: Floats
    """Likewise."""
    credits: Floats
    """What the interleaved slates of a user say for the treatment."""


def interleaving(trial: Trial) -> Finding:
    """The users that either design needs, and whether they are enough."""
    rows, failures = [], []
    runs = max(200, trial.runs // 5)
    for place, (worse, better) in enumerate(NOISES):
        rng = trial.rng(9, place)
        clicks = _watch(worse, better, rng)
        apart, together = _users_needed(clicks)
        found = np.zeros(2)
        for _ in range(runs):
            found += [_ab_finds(clicks, apart, rng), _interleaving_finds(clicks, together, rng)]
        by_ab, by_interleaving = found / runs
        lift = clicks.treatment.mean() / clicks.control.mean() - 1
        rows.append(
            [
                f"{worse:g} against {better:g}",
                f"{lift:+.1%}",
                f"{2 * apart:,}",
                percent(by_ab),
                f"{together:,}",
                percent(by_interleaving),
                f"{2 * apart / together:.1f} ×",
            ]
        )
        if together >= 2 * apart:
            failures.append(f"interleaving needs {together} users, the A/B test {2 * apart}")
        for name, share in (("the A/B test", by_ab), ("interleaving", by_interleaving)):
            if share < POWER - 0.04 - slack(POWER, runs):
                failures.append(f"{name} finds the better ranking in {percent(share)} at the size planned for {percent(POWER)}")
        trial.step()
    return Finding(
        "interleaving",
        f"Interleaving against an A/B test, {runs:,} runs",
        f"Users needed, both variants together, to find the better of two rankings with a power of {POWER:.0%} at a level of 5 %, "
        f"each user with {SLATES} slates of {LENGTH} out of {CANDIDATES}; and the share of runs of that size which found it. A/B: "
        "clicks by impressions, means per user, Welch. Interleaving: team draft, credit per click, paired t test of users.",
        ["errors of the rankings", "true lift of CTR", "users, A/B", "found", "users, interleaved", "found", "fewer users"],
        rows,
        failures,
    )


def _watch(worse: float, better: float, rng: np.random.Generator) -> Clicks:
    """Lets users of the simulated world see the control's slates, the treatment's and interleaved ones."""
    world = make_world(seed=1, item_count=ITEMS, user_count=PEOPLE)
    truth = truth_of(world)
    chances = click_chances(truth.appeals, Habits())
    spread = float(truth.appeals.std())
    count = PEOPLE * VISITS
    seen = np.zeros((3, count))
    for user in range(count):
        person = user % PEOPLE
        looks = attention(np.arange(1.0, LENGTH + 1), float(world.people.attention_exponents[person]))
        for slate in range(SLATES):
            offered = rng.choice(ITEMS, CANDIDATES, replace=False)
            worth = truth.appeals[person, offered]
            orders = [offered[np.argsort(-(worth + spread * noise * rng.normal(size=CANDIDATES)))] for noise in (worse, better)]
            for column, order in enumerate(orders):
                seen[column, user] += (rng.random(LENGTH) < looks * chances[person, order[:LENGTH]]).sum()
            names = [[str(item) for item in order] for order in orders]
            picks = team_draft(names[0], names[1], LENGTH, coin_of(f"{user}/{slate}/{rng.integers(1 << 30)}"))
            shown = np.array([int(pick.item_id) for pick in picks])
            clicked = rng.random(LENGTH) < looks * chances[person, shown]
            seen[2, user] += sum((1 if pick.team is Team.TREATMENT else -1) for pick, did in zip(picks, clicked, strict=True) if did)
    return Clicks(seen[0] / (SLATES * LENGTH), seen[1] / (SLATES * LENGTH), seen[2])


def _users_needed(clicks: Clicks) -> tuple[int, int]:
    """Users per variant of the A/B test, and users of the interleaving."""
    apart = power.users_per_variant(
        float(clicks.control.var()), float(clicks.treatment.var()), float(clicks.treatment.mean() - clicks.control.mean()), power=POWER
    )
    return apart, power.users_per_variant(float(clicks.credits.var()), 0.0, float(clicks.credits.mean()), power=POWER)


def _ab_finds(clicks: Clicks, users: int, rng: np.random.Generator) -> bool:
    sides = [estimate(Kind.MEAN, Moments.of(rng.choice(values, users))) for values in (clicks.control, clicks.treatment)]
    assert sides[0] is not None
    assert sides[1] is not None
    found: Difference | None = difference(sides[0], sides[1], Scale.ABSOLUTE)
    return found is not None and found.value > 0 and welch(found).p_value < LEVEL


def _interleaving_finds(clicks: Clicks, users: int, rng: np.random.Generator) -> bool:
    credits = rng.choice(clicks.credits, users)
    found = preference(Moments.of(credits), int((credits > 0).sum()), int((credits < 0).sum()))
    return found is not None and found.paired.value > 0 and found.paired.p_value < LEVEL


def equal_rankings(trial: Trial) -> Finding:
    """How often a preference is called that is not there, by somebody who looks after every user."""
    rows, failures = [], []
    for place, rate in enumerate(CLICKS):
        rng = trial.rng(10, place)
        called = np.zeros(3)
        for run in range(trial.runs):
            activity = rate * np.exp(rng.normal(-0.5 * SPREAD**2, SPREAD, LOOKED_AT))
            credits = (rng.poisson(activity) - rng.poisson(activity)).astype(np.float64)
            fixed, always_valid = _after_every_user(credits)
            called += [(always_valid < LEVEL).any(), fixed[-1] < LEVEL, (fixed < LEVEL).any()]
            if run < COMPARED:
                found = preference(Moments.of(credits), int((credits > 0).sum()), int((credits < 0).sum()))
                if found is not None and abs(found.sequential.p_value - always_valid[-1]) > 1e-9:
                    failures.append(f"the readout says p {found.sequential.p_value} where the simulation has {always_valid[-1]}")
        shares = called / trial.runs
        rows.append([f"{rate:g}", *map(percent, shares)])
        if shares[0] > LEVEL + slack(LEVEL, trial.runs):
            failures.append(f"with {rate:g} clicks the always-valid test calls {percent(shares[0])} of preferences that are not there")
        trial.step()
    return Finding(
        "equal rankings",
        f"Interleaving, A/A, {trial.runs:,} runs",
        "Two rankings that are equally liked, and users who click unequally much. Share of runs in which a preference was called, by "
        f"somebody who looks after every user from {MIN_CONVERSIONS} users with a preference on, up to {LOOKED_AT:,} users: by the "
        "always-valid test that the verdict follows (at most 5 %), by the t test at its one look (about 5 %), and by the t test at every "
        "look.",
        ["clicks of a user on either side", "sequential", "fixed, one look", "fixed, at every look"],
        rows,
        failures,
    )


def _after_every_user(credits: Floats) -> tuple[Floats, Floats]:
    """(n_users,) p-values of the t test and of the always-valid one after each user; 1 where it is too early."""
    users, values = np.arange(1.0, len(credits) + 1), np.cumsum(credits)
    ready = (np.cumsum(credits != 0) >= MIN_CONVERSIONS) & (users > 2)
    variances = (np.cumsum(credits**2) - values**2 / users) / np.maximum(users - 1, 1)
    z = np.divide(values / users, np.sqrt(variances / users), out=np.zeros_like(users), where=ready & (variances > 0))
    fixed = np.where(ready, 2.0 * special.stdtr(np.maximum(users - 1, 1), -np.abs(z)), 1.0)
    return np.asarray(fixed, dtype=np.float64), np.where(ready, p_values(z, users, LEVEL, TUNING_USERS), 1.0)


ROW_COUNT = len(NOISES) + len(CLICKS)
"""Steps of the tables."""
