"""What CUPED gains, when the sample-ratio check speaks, and what happens to whoever takes impressions for users."""

from __future__ import annotations

import numpy as np
from scipy import stats

from scripts.experiments.draws import draw_pair
from scripts.experiments.populations import clicks
from scripts.experiments.table import Finding, percent
from scripts.experiments.trials import LOOKS, Trial, slack
from server.inference.difference import LEVEL, difference, welch
from server.inference.estimate import Kind, adjusted, estimate
from server.inference.moments import Moments
from server.inference.sample_ratio import ALARM, sample_ratio

CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.9)
CUPED_USERS = 500
EFFECT = 0.1
SPLITS = (0.5, 0.52)
USERS = (1_000, 10_000, 20_000, 100_000)


def cuped(trial: Trial) -> Finding:
    """Variance with what went before taken out, beside 1 − ρ²."""
    rows, failures = [], []
    runs = max(100, trial.runs // 2)
    for place, rho in enumerate(CORRELATIONS):
        rng = trial.rng(4, place)
        plain, freed, told, held = np.empty(runs), np.empty(runs), np.empty(runs), 0
        for run in range(runs):
            before = rng.normal(size=(2, CUPED_USERS))
            after = rho * before + np.sqrt(1 - rho**2) * rng.normal(size=(2, CUPED_USERS)) + np.array([[0.0], [EFFECT]])
            moments = [Moments.of(np.column_stack([after[side], before[side]])) for side in (0, 1)]
            found = adjusted(Kind.MEAN, moments)
            assert found is not None
            raw, (control, treatment) = [estimate(Kind.MEAN, one) for one in moments], found.estimates
            assert raw[0] is not None
            assert raw[1] is not None
            plain[run], freed[run], told[run] = raw[1].value - raw[0].value, treatment.value - control.value, found.variance_reduction
            over = difference(control, treatment)
            assert over is not None
            test = welch(over)
            held += test.low <= EFFECT <= test.high
        left, expected = freed.var(ddof=1) / plain.var(ddof=1), 1 - rho**2
        rows.append([f"{rho:g}", percent(expected), percent(left), percent(1 - told.mean()), percent(held / runs)])
        # The ratio of two variances of correlated draws: a relative standard error of at most √(4 ÷ runs).
        if abs(left - expected) > 3 * expected * np.sqrt(4 * rho**2 / runs) + 0.01:
            failures.append(f"CUPED at a correlation of {rho:g} leaves {percent(left)} of the variance instead of {percent(expected)}")
        if abs(told.mean() - rho**2) > 0.02:
            failures.append(f"CUPED at a correlation of {rho:g} says {percent(1 - told.mean())} instead of {percent(expected)}")
        if abs(held / runs - 0.95) > max(0.01, slack(LEVEL, runs)):
            failures.append(f"the interval of CUPED at a correlation of {rho:g} holds the truth in {percent(held / runs)}")
        trial.step()
    return Finding(
        "cuped",
        f"CUPED, {runs:,} runs of {CUPED_USERS} users per variant",
        "The variance of the difference that is left when values from before the exposure, correlated with the metric at ρ, are taken out: "
        "should be 1 − ρ² of what it was, and the readout should say so. Its 95 % intervals should hold the truth in 94 to 96 %.",
        ["ρ", "1 − ρ²", "variance left", "as the readout says", "coverage"],
        rows,
        failures,
    )


def splits(trial: Trial) -> Finding:
    """How often the sample-ratio check raises its alarm."""
    rows, failures = [], []
    for place, split in enumerate(SPLITS):
        for users in USERS:
            rng = trial.rng(5, place, users)
            per_look = np.full((trial.runs, LOOKS), users // LOOKS)
            per_look[:, -1] += users - per_look.sum(axis=1)
            first = rng.binomial(per_look, split).cumsum(axis=1)
            total = per_look.cumsum(axis=1)
            p_values = stats.chi2.sf((2 * first - total) ** 2 / total, 1)
            again = sample_ratio([int(first[0, -1]), int(total[0, -1] - first[0, -1])], [0.5, 0.5]).p_value
            if abs(again - float(p_values[0, -1])) > 1e-9:
                raise ArithmeticError("the sample-ratio check says something else of the same counts")
            once, ever = (p_values[:, -1] < ALARM).mean(), (p_values < ALARM).any(axis=1).mean()
            rows.append([f"{100 * split:g}:{100 - 100 * split:g}", f"{users:,}", percent(once), percent(ever)])
            if split == 0.5 and once > ALARM + slack(ALARM, trial.runs):
                failures.append(f"the sample-ratio check is loud on {percent(once)} of fair splits of {users:,} users")
            if split != 0.5 and users >= 20_000 and once < 0.95:
                failures.append(f"the sample-ratio check hears only {percent(once)} of splits of {split:.0%} at {users:,} users")
        trial.step()
    return Finding(
        "sample_ratio",
        f"Sample-ratio check at p < 0.001, {trial.runs:,} runs",
        "Share of runs with an alarm where 50:50 was planned: 0.1 % of fair splits at one look, nearly all at 52:48 from 20,000 users on. "
        f"Looked at {LOOKS} times, a fair split raises it somewhat more often.",
        ["true split", "users", "alarm at one look", f"alarm at any of {LOOKS} looks"],
        rows,
        failures,
    )


def clustering(trial: Trial) -> Finding:
    """The same clicks, tested per user and per impression."""
    rows, failures = [], []
    for place, base in enumerate((0.01, 0.05, 0.2)):
        same = clicks(base, 0.0)
        pair = draw_pair(same, same, runs=trial.runs, looks=1, users=10_000, rng=trial.rng(6, place))
        by_user = float((pair.fixed_p_values()[:, -1] < LEVEL).mean())
        (y_a, d_a), (y_b, d_b) = pair.control.sums[:, -1].T, pair.treatment.sums[:, -1].T
        share = (y_a + y_b) / (d_a + d_b)
        z = (y_b / d_b - y_a / d_a) / np.sqrt(share * (1 - share) * (1 / d_a + 1 / d_b))
        by_impression = float((2 * stats.norm.sf(np.abs(z)) < LEVEL).mean())
        rows.append([percent(base), percent(by_user), percent(by_impression)])
        if abs(by_user - LEVEL) > max(0.01, slack(LEVEL, trial.runs)):
            failures.append(f"the test per user is wrong in {percent(by_user)} at {percent(base)}")
        trial.step()
    return Finding(
        "clustering",
        f"Users or impressions, A/A, {trial.runs:,} runs of 10,000 users per variant",
        "False positives of the two tests on the same clicks. Impressions of one user resemble each other, so that there is less in them "
        "than their number says: a test that takes them one by one is wrong more often than the 5 % it promises. The readout tests users.",
        ["clicks by impressions", "per user (delta method)", "per impression (z test)"],
        rows,
        failures,
    )


ROW_COUNT = len(CORRELATIONS) + len(SPLITS) + 3
"""Steps of the three tables."""
