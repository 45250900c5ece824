"""What the gate lets through, and what it says."""

from __future__ import annotations

import pytest

from ranker.models.passport import Metric
from ranker.training.gate import judge

Row = tuple[float, float | None, float | None] | float


def metrics(**rows: Row) -> list[Metric]:
    found = []
    for name, row in rows.items():
        value, low, high = row if isinstance(row, tuple) else (row, None, None)
        found.append(Metric(name=f"test.{name}.ndcg_at_10", value=value, low=low, high=high))
    return found


def test_a_first_model_that_keeps_up_with_the_prior_passes() -> None:
    verdict = judge(metrics(model=0.60, random=0.4, prior_score=0.61, model_minus_prior_score=(-0.01, -0.03, 0.01)))
    assert verdict.passed
    assert "not worse than prior_score (0.6000 beside 0.6100, difference -0.0100 in [-0.0300, +0.0100])" in verdict.reason


def test_a_first_model_that_is_surely_worse_than_the_prior_does_not() -> None:
    verdict = judge(metrics(model=0.5, random=0.4, prior_score=0.61, model_minus_prior_score=(-0.11, -0.13, -0.09)))
    assert not verdict.passed
    assert "it is worse than prior_score" in verdict.reason


def test_beside_a_champion_the_prior_must_be_beaten() -> None:
    gap: Row = (0.02, 0.01, 0.03)
    rows: dict[str, Row] = {
        "model": 0.60,
        "random": 0.4,
        "champion": 0.58,
        "model_minus_champion": gap,
        "model_minus_prior_score": (-0.01, -0.03, 0.01),
    }
    assert not judge(metrics(**rows, prior_score=0.61)).passed
    assert "it is not better than prior_score" in judge(metrics(**rows, prior_score=0.61)).reason
    assert judge(metrics(**rows, prior_score=0.59)).passed


@pytest.mark.parametrize(
    ("gap", "passed"),
    [((0.02, 0.01, 0.03), True), ((-0.01, -0.03, 0.01), True), ((-0.02, -0.04, 0.0), True), ((-0.02, -0.04, -0.001), False)],
)
def test_the_interval_beside_the_champion_must_not_lie_wholly_below_0(gap: tuple[float, float, float], passed: bool) -> None:
    verdict = judge(metrics(model=0.60, random=0.4, champion=0.60 - gap[0], model_minus_champion=gap))
    assert verdict.passed is passed
    assert ("not worse than the champion" if passed else "it is worse than the champion") in verdict.reason


def test_without_an_interval_the_difference_itself_decides() -> None:
    assert judge(metrics(model=0.6, random=0.4, champion=0.6, model_minus_champion=0.0)).passed
    assert not judge(metrics(model=0.6, random=0.4, champion=0.61, model_minus_champion=-0.01)).passed


def test_chance_must_be_beaten_by_anyone() -> None:
    assert not judge(metrics(model=0.4, random=0.4)).passed
    assert judge(metrics(model=0.41, random=0.4)).passed


def test_every_fault_is_told() -> None:
    verdict = judge(metrics(model=0.3, random=0.4, champion=0.6, prior_score=0.5, model_minus_champion=(-0.3, -0.4, -0.2)))
    for fault in ("not better than chance", "worse than the champion", "not better than prior_score"):
        assert fault in verdict.reason


def test_the_order_as_shown_does_not_decide() -> None:
    assert judge(metrics(model=0.6, random=0.4, as_shown=0.9)).passed


def test_an_unmeasured_model_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="not measured"):
        judge(metrics(random=0.4))


def test_popularity_must_be_beaten() -> None:
    assert not judge(metrics(model=0.5, random=0.4, popularity=0.5)).passed
    assert "it is not better than popularity" in judge(metrics(model=0.5, random=0.4, popularity=0.5)).reason
    assert judge(metrics(model=0.51, random=0.4, popularity=0.5)).passed


def test_what_is_unfit_is_refused_however_good_it_is() -> None:
    verdict = judge(metrics(model=0.9, random=0.4), ["its bundle has 9 bytes"])
    assert not verdict.passed
    assert verdict.reason == "refused, its bundle has 9 bytes"
    both = judge(metrics(model=0.3, random=0.4), ["its bundle has 9 bytes"])
    assert "not better than chance" in both.reason
    assert "its bundle has 9 bytes" in both.reason
