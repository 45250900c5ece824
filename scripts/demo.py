"""`rankloop demo`: the whole loop on one machine, and what it brought."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from scripts.simulation.failure import check_writable
from scripts.simulation.loop import Loop, Plan


def demo(
    exit_when_done: Annotated[bool, typer.Option("--exit", help="Stop the stack when the table is printed.")] = False,
    report: Annotated[Path | None, typer.Option(help="Where to write before, after and lift as JSON.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The world: items, people and draws.")] = 1,
    users: Annotated[int, typer.Option(min=1, help="How many people there are.")] = 300,
    items: Annotated[int, typer.Option(min=1, help="How many items the catalogue has.")] = 400,
    slates: Annotated[int, typer.Option(min=1, help="How many slates are shown before training, and again after it.")] = 6_000,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="How often to train and simulate again.")] = 1,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The server's port; 0 takes a free one.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Where to keep the data; by default a new folder, removed at the end.")] = None,
) -> None:
    """Shows the whole loop: people use it, it learns, they use it again.

    Starts the stack, simulates without a model, trains, waits for the
    rankers to swap, and simulates again. Prints true NDCG@10, CTR,
    implementation rate and diversity before and after, each with its
    interval, and the lift. Without --exit the stack stays up until Ctrl-C.

    How the people behave: docs/explanation/simulation.md.

    Examples:

        rankloop demo

        rankloop demo --exit --report demo.json

        rankloop demo --exit --seed 7 --rounds 3
    """
    plan = Plan(
        seed=seed,
        users=users,
        items=items,
        slates=slates,
        rounds=rounds,
        port=port,
        data_dir=data_dir,
        report=report,
        exit_when_done=exit_when_done,
    )
    if report is not None:
        check_writable(report, "--report")
    with tempfile.TemporaryDirectory(prefix="rankloop-demo-", ignore_cleanup_errors=True) as scratch:
        code = asyncio.run(Loop(plan, Path(scratch), Console()).run())
    if code:
        raise typer.Exit(code)
