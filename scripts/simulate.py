"""`rankloop simulate`: people with known tastes use a running server."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from scripts.connection import DEFAULT_ADDRESS, Connection
from scripts.simulation.failure import Failed, check_writable
from scripts.simulation.player import Pace, Play, Player
from scripts.simulation.priors import make_priors
from scripts.simulation.progress import progress_bar
from scripts.simulation.report import as_json, figures_of
from scripts.simulation.table import figures_table
from scripts.simulation.truth import truth_of
from scripts.simulation.world import make_world


def simulate(
    server: Annotated[str, typer.Option(envvar="RANKLOOP_ADDRESS", help="The server, as host:port.")] = DEFAULT_ADDRESS,
    seed: Annotated[int, typer.Option(min=0, help="The world: the same seed gives the same items, people and draws.")] = 1,
    draw: Annotated[int, typer.Option(min=0, help="Another draw has the same items and people on other days.")] = 1,
    users: Annotated[int, typer.Option(min=1, help="How many people there are.")] = 300,
    slates: Annotated[int, typer.Option(min=1, help="How many slates are shown to them.")] = 3_000,
    items: Annotated[int, typer.Option(min=1, help="How many items the catalogue has.")] = 400,
    candidates: Annotated[int, typer.Option(min=1, max=1_000, help="How many items are offered per request.")] = 50,
    top_k: Annotated[int, typer.Option(min=1, max=1_000, help="How many items a slate has.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, max=1_000, help="Requests under way at once.")] = 16,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures as JSON.")] = None,
) -> None:
    """Lets people with known tastes use a running server.

    Says how good its slates truly were. All traffic goes through the public
    API; what the people truly like is never sent. The exit code is 0 only when
    every slate was served and every interaction stored.

    How the people behave: docs/explanation/simulation.md.

    Examples:

        rankloop simulate

        rankloop simulate --server 127.0.0.1:50051 --users 100 --slates 500

        rankloop simulate --seed 7 --slates 5000 --json simulation.json
    """
    console = Console()
    if json_file is not None:
        check_writable(json_file, "--json")
    play, report = asyncio.run(_simulate(server, seed, draw, users, slates, items, candidates, top_k, concurrency, console))
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    if play.rejected_count:
        raise Failed(f"the server rejected {play.rejected_count} interactions, the first for {play.first_rejection}")


async def _simulate(
    server: str,
    seed: int,
    draw: int,
    users: int,
    slates: int,
    items: int,
    candidates: int,
    top_k: int,
    concurrency: int,
    console: Console,
) -> tuple[Play, dict[str, Any]]:
    world = make_world(seed=seed, item_count=items, user_count=users)
    truth = truth_of(world)
    priors = make_priors(world, truth, candidate_count=candidates)
    pace = Pace(candidate_count=candidates, top_k=top_k, concurrency=concurrency)
    async with Connection(server) as connection:
        await connection.reach()
        player = Player(connection, world, truth, priors, run_id=f"sim-{secrets.token_hex(4)}", pace=pace)
        await player.publish()
        with progress_bar(console, "slates", slates) as advance:
            play = await player.play(f"draw-{draw}", slates, advance)
    figures = figures_of(play.visits, users, seed=seed)
    console.print(figures_table(f"{slates} slates for {users} people, {len(play.visits) / play.seconds:.0f} a second", {"value": figures}))
    for ranking, count in play.served.most_common():
        console.print(f"ranked by {ranking}: {count} slates", highlight=False)
    console.print(f"interactions: {play.accepted_count} stored, {play.rejected_count} rejected", highlight=False)
    return play, {
        "seed": seed,
        "draw": draw,
        "prior_ndcg_at_10": priors.ndcg,
        "figures": as_json(figures),
        "served": dict(play.served),
        "slate_count": len(play.visits),
        "interaction_count": play.accepted_count,
        "duplicate_count": play.duplicate_count,
        "rejected_count": play.rejected_count,
        "seconds": play.seconds,
    }
