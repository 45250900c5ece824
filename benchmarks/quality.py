"""What training brings people, over several worlds: the true NDCG@10 of the trained model beside that of the caller's own scores.

Each seed is a world of its own (items, people, tastes), played by `rankloop demo` on a stack of its own: a phase in the order of
`prior_score`, a training, a phase in the model's order. True relevance is known there and nowhere else; see docs/explanation/simulation.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

DEMO_SECONDS = 1_800.0
"""Longest a world may take; beyond it the world counts as failed."""

FIGURE = "ndcg_at_10"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One seed's outcome."""

    seed: int
    before: dict[str, float | None]
    """True NDCG@10 in the order of `prior_score`: `value`, `low`, `high`."""
    after: dict[str, float | None]
    """True NDCG@10 in the trained model's order, diversified."""
    error: str = ""
    """Why there are no figures; empty: there are."""

    @property
    def gain(self) -> float | None:
        """after − before; None: one of them is not known."""
        first, second = self.before.get("value"), self.after.get("value")
        return None if first is None or second is None else second - first


async def bench(
    directory: Path, *, seeds: int, first_seed: int, users: int, slates: int, each: Callable[[World], None] = lambda _: None
) -> list[World]:
    """Plays the worlds one after the other; `each` hears of every one. A world that fails says so, and the next one is played."""
    worlds = []
    for seed in range(first_seed, first_seed + seeds):
        world = await _play(directory / f"seed-{seed}", seed, users, slates)
        worlds.append(world)
        each(world)
    return worlds


def summary(worlds: list[World]) -> dict[str, Any]:
    """Mean and spread (standard deviation over worlds) of before, after and gain, and how many worlds gained."""
    played = [world for world in worlds if world.gain is not None]
    columns = {
        "before": [world.before["value"] or 0.0 for world in played],
        "after": [world.after["value"] or 0.0 for world in played],
        "gain": [world.gain or 0.0 for world in played],
    }
    told: dict[str, Any] = {
        name: {"mean": mean(values), "spread": stdev(values) if len(values) > 1 else None} for name, values in columns.items() if values
    }
    return {**told, "worlds": len(worlds), "won": sum(1 for world in played if (world.gain or 0.0) > 0)}


def rows(worlds: list[World]) -> list[str]:
    """The table of docs/explanation/quality.md, in Markdown."""
    told = ["| seed | `prior_score` | trained | gain |", "| --- | --- | --- | --- |"]
    for world in worlds:
        gain = "–" if world.gain is None else f"{world.gain:+.3f}"
        told.append(f"| {world.seed} | {_plain(world.before)} | {world.error or _plain(world.after)} | {gain} |")
    total = summary(worlds)
    if "gain" in total:
        for name, form in (("mean", "{:.3f}"), ("spread", "{:.3f}")):
            cells = [form.format(total[column][name]) if total[column][name] is not None else "–" for column in ("before", "after", "gain")]
            told.append(f"| {name} | {' | '.join(cells)} |")
    return told


def _plain(figure: dict[str, float | None]) -> str:
    value, low, high = (figure.get(name) for name in ("value", "low", "high"))
    return "–" if value is None or low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


async def _play(directory: Path, seed: int, users: int, slates: int) -> World:
    directory.mkdir(parents=True)
    report = directory / "demo.json"
    words = ["demo", "--exit", "--seed", str(seed), "--users", str(users), "--slates", str(slates), "--report", str(report)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.cli", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(DEMO_SECONDS):
            said, _ = await child.communicate()
    except TimeoutError:
        said = f"it was not done within {DEMO_SECONDS:.0f} s".encode()
    finally:
        if child.returncode is None:
            child.terminate()
            await child.wait()
    if child.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        return World(seed=seed, before={}, after={}, error=lines[-1] if lines else f"exit code {child.returncode}")
    told = json.loads(report.read_text())
    return World(seed=seed, before=told["before"][FIGURE], after=told["after"][FIGURE])
