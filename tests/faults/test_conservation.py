"""The short form: a few faults of each sort. `make faults` runs the long one. FAULTS_SEED repeats a seed that was printed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.faults.report import Enough, table
from tests.faults.scene import Scene, play

ONE_NODE = (
    "server_killed",
    "replies_of_inserts_cut",
    "fold_killed",
    "replies_of_commits_cut",
    "answers_cut",
    "servers_killed_without_database",
    "mongod_killed",
    "fold_stopped",
)
THREE_NODES = ("primary_killed", "fold_killed")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "scene",
    [
        Scene(name="one node", nodes=1, faults=ONE_NODE, enough=Enough(acknowledged=500, hits=len(ONE_NODE), resent=100, met=4)),
        Scene(name="three nodes", nodes=3, faults=THREE_NODES, enough=Enough(acknowledged=200, hits=len(THREE_NODES), resent=50, met=1)),
    ],
    ids=["one-node", "three-nodes"],
)
async def test_nothing_acknowledged_is_lost_and_nothing_counts_twice(scene: Scene, tmp_path: Path) -> None:
    seed = int(os.environ.get("FAULTS_SEED") or secrets.randbelow(10**6))
    print(f"seed {seed}")
    report = await play(scene, tmp_path, seed)
    print(table([report]))
    assert report.failures == []
