"""A bandit that learns, what its weights follow from, and what may be concluded from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scripts.experiments.table import Finding, percent
from scripts.experiments.trials import Trial, slack
from server.experiments.bandit import FLOOR, mean_posterior, thompson_weights
from server.experiments.design import Design, Metric, Role
from server.experiments.evening import evened
from server.experiments.observed import Group, Observed, Period
from server.experiments.readout import read, read_periods
from server.inference.difference import LEVEL
from server.inference.estimate import Estimate, Kind
from server.inference.moments import Moments, together

PERIODS = 10
USERS_PER_PERIOD = 2_000
TRUE_RATES = {"a": 0.10, "b": 0.12, "c": 0.09}
BASE_RATES = np.linspace(0.20, 0.10, PERIODS)
"""A season that ends, the same for all variants: what makes pooled periods lie."""
WIDTH = 1.959963984540054
"""Of a 95 % interval, in standard errors."""
METRIC = Metric(name="conversion", kind=Kind.PROPORTION, role=Role.PRIMARY)


def regret(trial: Trial) -> Finding:
    """Conversions lost to variants that are not the best."""
    runs = max(20, trial.runs // 50)
    lost = {"uniform": np.zeros(runs), "bandit": np.zeros(runs)}
    on_best = np.zeros(PERIODS)
    best = max(TRUE_RATES.values())
    rng = trial.rng(7)
    for run in range(runs):
        history = _play([TRUE_RATES] * PERIODS, rng, _evened)
        for number, period in enumerate(history):
            users = {group.variant_id: group.user_count for group in period.groups}
            lost["bandit"][run] += sum(count * (best - TRUE_RATES[name]) for name, count in users.items())
            on_best[number] += period.weights["b"] / runs
        lost["uniform"][run] = PERIODS * USERS_PER_PERIOD * (best - math.fsum(TRUE_RATES.values()) / len(TRUE_RATES))
    rows = [[name, f"{amounts.mean():,.0f}", f"{np.quantile(amounts, 0.95):,.0f}"] for name, amounts in lost.items()]
    failures = []
    if lost["bandit"].mean() > 0.5 * lost["uniform"].mean():
        failures.append("the bandit loses more than half of what uniform shares lose")
    trial.step()
    told = ", ".join(f"{name} {percent(rate)}" for name, rate in TRUE_RATES.items())
    weights = ", ".join(percent(on_best[number]) for number in (0, 1, 2, 4, PERIODS - 1))
    return Finding(
        "regret",
        f"Bandit, {runs:,} runs of {PERIODS} periods with {USERS_PER_PERIOD:,} users each",
        f"Conversions lost against showing everybody the best variant; true rates {told}, floor {FLOOR:.0%}. The mean weight of the best "
        f"variant in periods 1, 2, 3, 5 and {PERIODS}: {weights}.",
        ["shares", "conversions lost, mean", "95 % quantile"],
        rows,
        failures,
    )


def believed(trial: Trial) -> Finding:
    """What a bandit's posteriors are worth when the base rate changes: pooled over periods, and as the product makes them."""
    rows, failures = [], []
    runs = max(100, trial.runs // 5)
    for place, lift in enumerate((0.0, 0.1)):
        for column, (name, believe) in enumerate((("pooled", _pooled), ("evened", _evened))):
            rng = trial.rng(9, place, column)
            off, held, weight = np.zeros(runs), 0, 0.0
            for run in range(runs):
                rates = [{"a": base, "b": base * (1 + lift)} for base in BASE_RATES]
                history = _play(rates, rng, believe)
                a, b = (_known(one) for one in believe(history).values())
                truth = lift * BASE_RATES.mean()
                error = math.hypot(a.standard_error, b.standard_error)
                off[run] = (b.value - a.value - truth) / BASE_RATES.mean()
                held += abs(b.value - a.value - truth) < WIDTH * error
                weight += history[-1].weights["b"] / runs
            rows.append([f"{lift:+.0%}", name, f"{100 * off.mean():+.1f} %", percent(held / runs), percent(weight)])
            if believe is _evened and abs(off.mean()) > 3 * off.std() / math.sqrt(runs):
                failures.append(f"at a lift of {lift:+.0%} the posteriors are off by {off.mean():+.2%} of the base rate on average")
            if believe is _evened and held / runs < 0.95 - max(0.01, slack(LEVEL, runs)):
                failures.append(f"at a lift of {lift:+.0%} the 95 % interval of the posteriors holds the truth in {percent(held / runs)}")
        trial.step()
    return Finding(
        "believed",
        f"What a bandit's weights follow from, {runs:,} runs of {PERIODS} periods with {USERS_PER_PERIOD:,} users each",
        f"Two variants under a base rate that falls from {BASE_RATES[0]:.0%} to {BASE_RATES[-1]:.0%} for both, b better by the lift. "
        "Pooled, a variant's posterior is made of all its users; evened, each period counts as much as it had users of both (what the "
        "server does). The difference of the posteriors should not be off on average, and their 95 % interval should hold the truth in at "
        "least 94 %: in more where nothing is, since the error they know of grows when chance takes a variant's users away.",
        ["true lift", "posteriors", "mean error, of the base rate", "interval holds the truth", f"weight of b in period {PERIODS}, mean"],
        rows,
        failures,
    )


def changing_shares(trial: Trial) -> Finding:
    """What pooling does to a bandit's periods, and what comparing within them does."""
    rows, failures = [], []
    runs = max(50, trial.runs // 5)
    for place, lift in enumerate((0.0, 0.1)):
        rng = trial.rng(8, place)
        counts = np.zeros(5)
        off = np.zeros((runs, 2))
        for run in range(runs):
            rates = [{"a": base, "b": base * (1 + lift)} for base in BASE_RATES]
            history = _play(rates, rng, _evened)
            design = Design(control_id="a", weights={"a": 0.5, "b": 0.5}, metrics=[METRIC])
            groups = [sum((period.groups[side] for period in history), Group(variant_id=name)) for side, name in enumerate("ab")]
            for column, readout in enumerate((read(design, groups), read_periods(design, history))):
                (found,) = readout.comparisons
                assert found.relative is not None
                assert found.absolute is not None
                test = found.relative.fixed_horizon
                off[run, column] = test.value - lift
                counts[column] += found.absolute.fixed_horizon.p_value < LEVEL
                counts[2 + column] += test.low <= lift <= test.high
                if column:
                    counts[4] += found.absolute.sequential.p_value < LEVEL
        called, held, always = counts[:2] / runs, counts[2:4] / runs, counts[4] / runs
        for column, name in enumerate(("pooled", "within periods")):
            rows.append(
                [
                    f"{lift:+.0%}",
                    name,
                    percent(called[column]),
                    percent(held[column]),
                    f"{100 * off[:, column].mean():+.1f} %",
                    percent(always) if column else "–",
                ]
            )
        if abs(held[1] - 0.95) > max(0.01, slack(LEVEL, runs)):
            failures.append(f"within periods the interval holds a lift of {lift:+.0%} in {percent(held[1])}")
        if not lift and abs(called[1] - LEVEL) > max(0.01, slack(LEVEL, runs)):
            failures.append(f"within periods the fixed test is wrong in {percent(called[1])}")
        trial.step()
    return Finding(
        "changing_shares",
        f"Reading a bandit out, {runs:,} runs of {PERIODS} periods with {USERS_PER_PERIOD:,} users each",
        f"Two variants under a base rate that falls from {BASE_RATES[0]:.0%} to {BASE_RATES[-1]:.0%} for both. Pooled, whichever "
        "variant had more users in good periods looks better. Compared within periods, 95 % intervals of the relative difference "
        "should hold the truth in 94 to 96 %, and a difference that is not there should be called in 5 % by the fixed test, in at "
        "most that by the sequential one.",
        ["true lift", "readout", "called, fixed", "interval holds the truth", "mean error of the lift", "called, sequential"],
        rows,
        failures,
    )


Believe = Callable[[Sequence[Period]], dict[str, Moments]]
"""From what was seen to the users that a bandit believes each variant to have had."""


def _play(rates: Sequence[Mapping[str, float]], rng: np.random.Generator, believe: Believe) -> list[Period]:
    """Periods of a bandit that starts evenly and is given everything seen before each period.

    Its posteriors are those of the product in their normal form, which is quicker where thousands are wanted.
    """
    history: list[Period] = []
    names = list(rates[0])
    weights = dict.fromkeys(names, 1 / len(names))
    for truth in rates:
        users = rng.multinomial(USERS_PER_PERIOD, [weights[name] for name in names])
        groups = []
        for name, count in zip(names, users, strict=True):
            converted = int(rng.binomial(count, truth[name]))
            groups.append(Group(variant_id=name, user_count=int(count), metrics={METRIC.name: Observed.conversions(int(count), converted)}))
        history.append(Period(weights=weights, groups=groups))
        weights = thompson_weights({name: mean_posterior(_known(one)) for name, one in believe(history).items()})
    return history


def _evened(history: Sequence[Period]) -> dict[str, Moments]:
    """As the server does."""
    return evened(METRIC, list(history[0].weights), history)


def _pooled(history: Sequence[Period]) -> dict[str, Moments]:
    """As a bandit that knows nothing of time."""
    variants = zip(*(period.groups for period in history), strict=True)
    return {groups[0].variant_id: together([group.metrics[METRIC.name].moments for group in groups], 1) for groups in variants}


def _known(one: Moments) -> Estimate:
    """The normal form of Beta(1 + converted, 1 + others)."""
    share = (1 + one.sums[0]) / (2 + one.count)
    return Estimate(float(share), float(share * (1 - share) / (3 + one.count)), one.count)


ROW_COUNT = 5
"""Steps of the three tables."""
