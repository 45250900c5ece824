"""`rankloop experiments`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from scripts.experiments.managing import (
    create_experiment,
    list_experiments,
    show_assignment,
    show_experiment,
    show_results,
    start_experiment,
    stop_experiment,
)
from scripts.simulation.failure import Failed, check_writable
from scripts.simulation.progress import progress_bar
from server.inference import power as sizes
from server.inference.difference import LEVEL

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Where to write the figures as JSON.")]


@app.callback()
def experiments() -> None:
    """A/B tests of rankings: planned, run, read out, and their statistics held against data whose truth is known.

    Examples:

        rankloop experiments size --rate 0.10 --lift 0.10

        rankloop experiments create variety.json --start

        rankloop experiments results variety

        rankloop experiments simulate --runs 500
    """


app.command("create")(create_experiment)
app.command("list")(list_experiments)
app.command("show")(show_experiment)
app.command("start")(start_experiment)
app.command("stop")(stop_experiment)
app.command("assignment")(show_assignment)
app.command("results")(show_results)


@app.command("size")
def size(
    rate: Annotated[float | None, typer.Option(help="A share of users, as it is: 0.1 for 10 %. Or give --mean and --deviation.")] = None,
    mean: Annotated[float | None, typer.Option(help="A mean per user, as it is.")] = None,
    deviation: Annotated[float | None, typer.Option(min=0, help="The standard deviation of that value between users.")] = None,
    lift: Annotated[
        float, typer.Option(help="The smallest relative difference worth finding: 0.1 for a tenth more, −0.1 for a tenth less.")
    ] = 0.1,
    power: Annotated[float, typer.Option(help="The chance to find it if it is there.")] = sizes.POWER,
    level: Annotated[float, typer.Option(help="The chance to call one that is not there.")] = LEVEL,
    variants: Annotated[int, typer.Option(min=2, help="Variants, the control among them; the level is shared among the others.")] = 2,
    users_per_day: Annotated[float | None, typer.Option(min=0, help="Users exposed per day, to tell how long it takes.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Says how many users an experiment needs.

    Examples:

        rankloop experiments size --rate 0.10 --lift 0.10

        rankloop experiments size --mean 4.2 --deviation 11 --lift 0.05 --variants 3 --users-per-day 2500
    """
    if (rate is None) == (mean is None):
        raise Failed("give either --rate, for a share of users, or --mean and --deviation, for a mean per user")
    try:
        if rate is not None:
            users = sizes.users_per_variant_for_proportions(rate, rate * (1 + lift), level=level, power=power, comparisons=variants - 1)
        elif mean is not None and deviation is not None:
            users = sizes.users_per_variant(deviation**2, deviation**2, mean * lift, level=level, power=power, comparisons=variants - 1)
        else:
            raise Failed("a mean needs --deviation, its standard deviation between users")
    except ValueError as error:
        raise Failed(f"{error}") from error
    print(f"{users:,} users per variant, {users * variants:,} in all, for the fixed-horizon test at its one look")
    if users_per_day:
        print(f"{users * variants / users_per_day:,.1f} days at {users_per_day:,g} users a day")
    print(f"formula: {sizes.FORMULA}; level {level:g}, power {power:g}, {variants - 1} comparison{'s' if variants > 2 else ''}")
    _write(json_file, {"users_per_variant": users, "users": users * variants, "formula": sizes.FORMULA, "level": level, "power": power})


@app.command("simulate")
def simulate(
    runs: Annotated[int, typer.Option(min=100, help="Experiments per row of a table.")] = 5_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same tables.")] = 1,
    page: Annotated[Path | None, typer.Option(help="A page of the documentation that has room for the tables.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Runs thousands of experiments whose truth is known through the statistics, and holds what they say against it.

    A/A tests that are looked at 30 times, coverage of intervals, power at the planned size, CUPED, the sample-ratio check, users against
    impressions, guardrails, bandits, interleaving. The exit code is 0 only if all is as it should be. Needs no server.

    Examples:

        rankloop experiments simulate --runs 500

        rankloop experiments simulate --json experiments.json --page docs/explanation/experiments.md
    """
    from scripts.experiments.simulation import STEP_COUNT, write_page
    from scripts.experiments.simulation import simulate as simulate_all
    from scripts.experiments.trials import Trial

    console = Console()
    if json_file is not None:
        check_writable(json_file, "--json")
    with progress_bar(console, f"simulating {runs:,} runs per row", STEP_COUNT) as step:
        findings = simulate_all(Trial(runs=runs, seed=seed, step=step))
    for finding in findings:
        console.print(finding.shown())
        console.print()
    _write(json_file, {"runs": runs, "seed": seed, "tables": [asdict(finding) for finding in findings]})
    if page is not None:
        try:
            write_page(page, findings, f"rankloop experiments simulate --runs {runs} --seed {seed}")
        except (OSError, ValueError) as error:
            raise Failed(f"--page: {error}") from error
    failures = [failure for finding in findings for failure in finding.failures]
    if failures:
        raise Failed("\n".join(failures))
    print("all is as it should be")


def _write(path: Path | None, content: dict[str, object]) -> None:
    if path is not None:
        path.write_text(json.dumps(content, indent=2) + "\n")
