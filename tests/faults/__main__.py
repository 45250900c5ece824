"""The long form, as `make faults` runs it: every fault, many times, at random moments. Exit code 0: nothing is wrong."""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.faults.report import Enough, SceneReport, table, write_json
from tests.faults.scene import Scene, play
from tests.faults.small_disk import NoSmallDiskError, small_disk

ONE_NODE = {
    "server_killed": 14,
    "server_stopped": 4,
    "servers_killed_without_database": 4,
    "fold_killed": 12,
    "collector_killed": 4,
    "fold_stopped": 4,
    "fold_stopped_for_long": 2,
    "replies_of_inserts_cut": 6,
    "replies_of_commits_cut": 5,
    "answers_cut": 6,
    "mongod_killed": 6,
}
THREE_NODES = {
    "primary_killed": 4,
    "stepped_down": 4,
    "all_killed": 3,
    "majority_killed": 2,
    "majority_stopped": 3,
    "server_killed": 4,
    "fold_killed": 4,
}
SMALL_DISK = {"disk_full": 2}
"""How often each fault hits, at length 1."""


def _scene(name: str, nodes: int, counts: Mapping[str, int], length: float, random_: random.Random, mount: Path | None = None) -> Scene:
    faults = [fault for fault, count in counts.items() for _ in range(max(1, round(count * length)))]
    random_.shuffle(faults)
    enough = Enough(acknowledged=100 * len(faults), hits=len(faults), resent=20 * len(faults), met=len(faults) // 2)
    return Scene(name=name, nodes=nodes, faults=faults, enough=enough, mount=mount, recount_each=nodes == 1)


def _play(scene: Scene, folder: Path, seed: int) -> SceneReport:
    print(f"▸ {scene.name}: {len(scene.faults)} faults, seed {seed}", flush=True)
    folder.mkdir()
    report = asyncio.run(play(scene, folder, seed))
    print(f"  {report.seconds:.0f} s, {sum(report.verdict.acknowledged.values())} entries acknowledged", flush=True)
    return report


def main() -> int:
    """Plays every scene, prints the table, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument(
        "--length",
        type=float,
        default=1.0,
        help="times the default number of faults, which takes about 15 minutes on a machine of 2 cores",
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of payloads, of the faults' order and of their moments")
    parser.add_argument("--scene", choices=("one", "three", "disk"), action="append", help="only these; otherwise all")
    parser.add_argument("--json", type=Path, help="a file for the whole report")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of a run in which nothing was wrong")
    said = parser.parse_args()
    random_ = random.Random(said.seed)
    wanted = said.scene or ["one", "three", "disk"]
    folder = Path(tempfile.mkdtemp(prefix="rankloop-faults-"))
    print(f"▸ seed {said.seed}, below {folder}", flush=True)
    reports: list[SceneReport] = []
    skipped: dict[str, str] = {}
    if "disk" in wanted:
        try:
            with small_disk(folder / "mount") as mount:
                reports.append(_play(_scene("small disk", 1, SMALL_DISK, said.length, random_, mount), folder / "disk", said.seed))
        except NoSmallDiskError as error:
            skipped["disk full"] = str(error)
    if "one" in wanted:
        reports.append(_play(_scene("one node", 1, ONE_NODE, said.length, random_), folder / "one", said.seed))
    if "three" in wanted:
        reports.append(_play(_scene("three nodes", 3, THREE_NODES, said.length, random_), folder / "three", said.seed))
    print(table(reports, skipped))
    if said.json:
        write_json(said.json, reports, skipped)
    failures = [f"{report.name}: {failure}" for report in reports for failure in report.failures]
    for failure in failures:
        print(f"✗ {failure}", file=sys.stderr)
    if failures or said.keep:
        print(f"data and logs are below {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
