"""The simulations behind the documentation's tables, with few runs: what they check holds, and they can tell when it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scripts.experiments import adaptive, checks, guardrails, interleaving, trials
from scripts.experiments.command import app
from scripts.experiments.draws import agreement, draw_pair
from scripts.experiments.populations import FIGURES, clicks, conversion, revenue
from scripts.experiments.simulation import BEGIN, END, SIMULATIONS, write_page
from scripts.experiments.table import Finding
from scripts.experiments.trials import Trial
from server.experiments.design import MIN_CONVERSIONS
from server.inference.estimate import Kind

TRIAL = Trial(runs=200, seed=7, step=lambda: None)
PAGE = Path(__file__).parents[4] / "docs" / "explanation" / "experiments.md"


def share(text: str) -> float:
    return float(text.removesuffix(" %")) / 100


def test_a_a_tests_are_called_as_seldom_as_promised_and_peeking_is_not() -> None:
    found = trials.false_positives(TRIAL)
    assert found.failures == []
    assert len(found.rows) == 4 * 4 + 2
    peeking = [share(row[found.columns.index("fixed, at every look")]) for row in found.rows]
    assert min(peeking) > 0.12
    assert np.mean(peeking) > 0.2
    sequential = [share(row[found.columns.index("sequential, absolute")]) for row in found.rows]
    assert 0 < np.mean(sequential) < 0.03


@pytest.mark.parametrize("simulation", [trials.coverage, trials.planned_power, checks.cuped, checks.splits])
def test_intervals_sizes_covariates_and_splits(simulation: object) -> None:
    found = simulation(TRIAL)  # type: ignore[operator]
    assert isinstance(found, Finding)
    assert found.failures == []


def test_impressions_are_not_users() -> None:
    found = checks.clustering(TRIAL)
    assert found.failures == []
    assert share(found.rows[-1][2]) > 0.15


def test_a_bandit_loses_less_than_even_shares() -> None:
    found = adaptive.regret(TRIAL)
    assert found.failures == []


def test_equal_rankings_are_called_as_seldom_as_promised() -> None:
    found = interleaving.equal_rankings(TRIAL)
    assert found.failures == []
    assert min(share(row[3]) for row in found.rows[1:]) > 0.15  # peeking


def test_a_bandit_believes_what_is_so_whatever_the_base_rate_does() -> None:
    found = adaptive.believed(TRIAL)
    assert found.failures == []
    (pooled,) = (row for row in found.rows if row[:2] == ["+10%", "pooled"])
    assert share(pooled[3]) < 0.9


def test_guardrails_are_seldom_wrong_and_hear_soon() -> None:
    found = guardrails.guardrails(TRIAL)
    assert found.failures == []
    assert max(share(row[found.columns.index("if one side were enough")]) for row in found.rows) > 0.1
    assert [row[-1] for row in found.rows[:2]] == ["50", "500"]


def test_arrays_say_what_the_product_says() -> None:
    rng = np.random.default_rng(3)
    for figure in FIGURES:
        population = figure.make(figure.rates[-1], 0.0)
        pair = draw_pair(population, figure.make(figure.rates[-1], 0.1), runs=5, looks=4, users=900, rng=rng)
        assert agreement(pair, rng) < 1e-9, figure.name


def test_populations_are_what_they_are_said_to_be() -> None:
    assert conversion(0.1, 0.1).value == pytest.approx(0.11)
    assert conversion(0.1, 0.0).variance == pytest.approx(0.09)
    assert clicks(0.05, 0.0).value == pytest.approx(0.05)
    assert clicks(0.05, 0.2).value == pytest.approx(0.06)
    assert revenue(0.05, 0.2).value / revenue(0.05, 0.0).value == pytest.approx(1.2)
    for figure in FIGURES:
        for rate in figure.rates:
            population = figure.make(rate, 0.1)
            assert population.shares.sum() == pytest.approx(1.0)
            assert population.cells.shape[1] == (2 if population.kind is Kind.RATIO else 1)


def test_draws_add_up_and_wait_for_conversions() -> None:
    pair = draw_pair(conversion(0.01, 0.0), conversion(0.01, 0.0), runs=50, looks=10, users=5_000, rng=np.random.default_rng(1))
    assert (pair.control.users + pair.treatment.users)[:, -1].tolist() == [10_000] * 50
    assert (np.diff(pair.control.users, axis=1) > 0).all()
    assert (pair.control.sums[..., 0] == pair.control.converted).all()
    assert not pair.enough[:, 0].any()
    assert pair.enough[:, -1].all() == bool(
        (pair.control.converted[:, -1].clip(max=pair.treatment.converted[:, -1]) >= MIN_CONVERSIONS).all()
    )


def test_the_page_has_every_table() -> None:
    text = PAGE.read_text()
    begin, end = text.index(BEGIN), text.index(END)
    made = text[begin:end]
    assert made.count("\n**") == len(SIMULATIONS)
    assert "--runs 5000" in made


def test_tables_are_put_between_their_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(page, [Finding("key", "Title", "Should.", ["a", "b"], [["1", "2"]], [])], "command")
    assert (
        page.read_text()
        == f"before\n{BEGIN}\n\nMade by `command`.\n\n**Title.** Should.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n{END}\nafter\n"
    )
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no lines"):
        write_page(page, [], "command")


def test_sizes_on_the_command_line() -> None:
    found = CliRunner().invoke(app, ["size", "--rate", "0.10", "--lift", "0.10", "--users-per-day", "1000"])
    assert found.exit_code == 0
    assert "14,749 users per variant, 29,498 in all" in found.output
    assert "29.5 days" in found.output
    for wrong in ([], ["--rate", "0.1", "--mean", "1"], ["--mean", "1"], ["--rate", "1.5"], ["--rate", "0.1", "--power", "2"]):
        assert CliRunner().invoke(app, ["size", *wrong]).exit_code == 1
