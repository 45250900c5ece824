"""Off-policy estimates: known arithmetic, a bandit whose value is known, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ranker.training import off_policy
from ranker.training.off_policy import LoggedImpressions, doubly_robust, effective_size, evaluate, ips, snips

Floats = NDArray[np.float64]


def test_the_estimates_are_what_their_formulas_say() -> None:
    rewards, weights = np.array([1.0, 0.0, 0.5, 0.0]), np.array([2.0, 0.0, 1.0, 1.0])
    alone = np.arange(4)
    assert ips(rewards, weights, alone).value == (2.0 * 1.0 + 1.0 * 0.5) / 4
    assert snips(rewards, weights, alone).value == (2.0 * 1.0 + 1.0 * 0.5) / (2.0 + 0.0 + 1.0 + 1.0)
    guesses, instead = np.array([0.5, 0.5, 0.5, 0.0]), np.array([0.5, 0.25, 0.5, 0.0])
    expected = ((0.5 + 2.0 * (1.0 - 0.5)) + 0.25 + (0.5 + 1.0 * (0.5 - 0.5)) + (0.0 + 1.0 * 0.0)) / 4
    assert doubly_robust(rewards, weights, guesses, instead, alone).value == pytest.approx(expected)
    assert effective_size(weights) == (2.0 + 1.0 + 1.0) ** 2 / (4.0 + 1.0 + 1.0)
    # The standard error of a mean, with n − 1.
    earned = weights * rewards
    assert ips(rewards, weights, alone).standard_error == pytest.approx(earned.std(ddof=1) / np.sqrt(4))


def test_impressions_of_one_slate_do_not_count_as_several_witnesses() -> None:
    rewards, weights = np.array([1.0, 0.0, 1.0, 0.0, 0.0]), np.ones(5)
    alone = ips(rewards, weights, np.arange(5))
    # Everything five times, in the slate it belongs to: the same value, no more certainty.
    five = ips(np.repeat(rewards, 5), np.ones(25), np.repeat(np.arange(5), 5))
    assert five.value == alone.value
    assert five.standard_error == pytest.approx(alone.standard_error)


def bandit(rng: np.random.Generator, count: int) -> tuple[LoggedImpressions, float]:
    """Two contexts, four arms, a logging policy that prefers wrong arms, a target that prefers right ones; and the target's true value."""
    worth = np.array([[0.05, 0.1, 0.2, 0.4], [0.4, 0.2, 0.1, 0.05]])
    logging = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])
    target = np.array([[0.1, 0.1, 0.2, 0.6], [0.6, 0.2, 0.1, 0.1]])
    context = rng.integers(2, size=count)
    arm = (rng.random(count)[:, None] > logging[context].cumsum(axis=1)).sum(axis=1)
    rewards = (rng.random(count) < worth[context, arm]).astype(np.float64)
    wrong_guess = 0.8 * worth + 0.03  # a model of rewards that is not quite right
    log = LoggedImpressions(
        rewards=rewards,
        propensities=logging[context, arm],
        targets=target[context, arm],
        clusters=np.arange(count),
        guesses=wrong_guess[context, arm],
        target_guesses=(target * wrong_guess).sum(axis=1)[context],
    )
    return log, float((target * worth).sum(axis=1).mean())


def test_intervals_cover_the_truth_of_a_bandit_as_often_as_they_say() -> None:
    rng, runs = np.random.default_rng(7), 400
    covered = dict.fromkeys(("ips", "snips", "dr"), 0)
    errors: dict[str, list[float]] = {name: [] for name in covered}
    for _ in range(runs):
        log, truth = bandit(rng, 1500)
        estimates = evaluate(log).estimates
        for name in covered:
            covered[name] += estimates[name].low <= truth <= estimates[name].high
            errors[name].append(estimates[name].value - truth)
    for name, count in covered.items():
        # 0.95 within four standard errors of 400 runs, 0.011 each.
        assert 0.906 <= count / runs <= 0.994, name
        assert abs(np.mean(errors[name])) < 4 * np.std(errors[name]) / np.sqrt(runs), name
    # What the other estimates are there for.
    assert np.std(errors["dr"]) < np.std(errors["ips"])


def test_clipping_bounds_the_weights_and_the_value_from_above() -> None:
    log, _ = bandit(np.random.default_rng(3), 2000)
    loose, tight = evaluate(log, cap=1e9).estimates, evaluate(log, cap=1.5).estimates
    assert loose["clipped_ips"] == loose["ips"]
    assert tight["clipped_ips"].value < tight["ips"].value
    assert evaluate(log).largest_weight == pytest.approx(6.0)  # 0.6 ÷ 0.1
    assert evaluate(log).mean_weight == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("propensities", "targets", "rewards", "reason"),
    [
        (np.full(1000, np.nan), np.ones(1000), np.ones(1000), "NO_PROPENSITIES"),
        (np.ones(1000), np.ones(1000), np.ones(1000), "NO_RANDOMNESS"),
        (np.full(1000, 0.5), np.zeros(1000), np.ones(1000), "NO_OVERLAP"),
        (np.full(1000, 0.5), (np.arange(1000) < 199).astype(float), np.ones(1000), "FEW_EFFECTIVE_IMPRESSIONS"),
        (np.full(1000, 0.5), np.full(1000, 0.5), (np.arange(1000) < 29).astype(float), "FEW_EFFECTIVE_CONVERSIONS"),
        (np.full(1000, 0.5), (np.arange(1000) < 200).astype(float), (np.arange(1000) < 30).astype(float), None),
    ],
)
def test_what_cannot_be_told_is_refused(propensities: Floats, targets: Floats, rewards: Floats, reason: str | None) -> None:
    value = evaluate(LoggedImpressions(rewards=rewards, propensities=propensities, targets=targets, clusters=np.arange(1000)))
    assert value.refusal == reason
    assert bool(value.refusal_text) is (reason is not None)
    assert sorted(value.estimates) == ([] if reason else ["clipped_ips", "ips", "snips"])


def test_impressions_without_a_propensity_are_left_out() -> None:
    log, _ = bandit(np.random.default_rng(5), 2000)
    gaps = log.propensities.copy()
    gaps[::2] = np.nan
    half = LoggedImpressions(rewards=log.rewards, propensities=gaps, targets=log.targets, clusters=log.clusters)
    kept = slice(1, None, 2)
    alone = LoggedImpressions(
        rewards=log.rewards[kept], propensities=log.propensities[kept], targets=log.targets[kept], clusters=log.clusters[kept]
    )
    assert evaluate(half) == evaluate(alone)


@pytest.mark.parametrize(
    ("changed", "value"), [("propensities", 0.0), ("propensities", 1.5), ("targets", -0.1), ("targets", np.nan), ("rewards", -1.0)]
)
def test_what_is_no_probability_is_a_bug_of_the_caller(changed: str, value: float) -> None:
    columns = {name: np.full(3, 0.5) for name in ("propensities", "targets", "rewards")}
    columns[changed] = np.full(3, value)
    with pytest.raises(ValueError, match=r"lie above 0|are finite"):
        evaluate(LoggedImpressions(**columns, clusters=np.arange(3)))


def test_the_bounds_are_those_that_are_documented() -> None:
    assert (off_policy.MIN_EFFECTIVE_SAMPLE, off_policy.MIN_EFFECTIVE_CONVERSIONS) == (200, 30)
