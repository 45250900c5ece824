"""All simulations, in the order of the documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scripts.experiments import adaptive, checks, guardrails, interleaving, trials
from scripts.experiments.table import Finding
from scripts.experiments.trials import Trial

SIMULATIONS: tuple[Callable[[Trial], Finding], ...] = (
    trials.false_positives,
    trials.coverage,
    trials.planned_power,
    checks.cuped,
    checks.splits,
    checks.clustering,
    guardrails.guardrails,
    adaptive.regret,
    adaptive.believed,
    adaptive.changing_shares,
    interleaving.equal_rankings,
    interleaving.interleaving,
)
STEP_COUNT = sum(module.ROW_COUNT for module in (trials, checks, guardrails, adaptive, interleaving))
"""How often `Trial.step` is called."""

BEGIN, END = "<!-- simulated: begin, by `rankloop experiments simulate --page` -->", "<!-- simulated: end -->"
"""Between these lines of a page stand the tables."""


def simulate(trial: Trial) -> list[Finding]:
    """Everything."""
    return [one(trial) for one in SIMULATIONS]


def write_page(page: Path, findings: list[Finding], command: str) -> None:
    """Puts the tables where the page has room for them.

    Raises:
        ValueError: it has none.
    """
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} has no lines `{BEGIN}` and `{END}` for the tables to stand between")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n\n".join(finding.markdown() for finding in findings)
    page.write_text(f"{before}{BEGIN}\n\nMade by `{command}`.\n\n{tables}\n\n{END}{after}")
