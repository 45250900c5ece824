"""How long a training takes from MongoDB to the champion, beside `lightgbm.train` alone, and how long a warm start takes on what is new."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.learnable import DAYS, write
from benchmarks.stack import running
from benchmarks.traffic import SLATE_ITEMS
from ranker.training.dataset import Progress, load
from ranker.training.lambdarank import fit
from ranker.training.settings import TrainerSettings
from ranker.training.split import split
from runtime.mongo import Mongo
from runtime.schema import migrate
from runtime.settings import MongoSettings

NEW_SHARE = 0.01
FIRST_DAYS = 70.0
"""How long ago the first slate was shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTimes:
    """What a training costs."""

    rows: int
    """Impressions in the database."""
    features: int
    rounds: int
    """Trees that the full training made, all of them kept: nothing stops it early."""
    full_seconds: float
    """`rankloop train` as a process, from its start to its end."""
    full_cpu_seconds: float
    """Processor time of that, all threads together: it says more than the clock where the machine does other work."""
    alone_seconds: float
    """`lightgbm.train` in a process of its own, on the same matrix in its memory, for the same rounds and the same validation slice."""
    warm_seconds: float
    """`rankloop train --mode warm-start` as a process, after so much was added."""
    warm_cpu_seconds: float
    """Processor time of that."""
    warm_new_rows: int
    """Impressions added."""
    warm_rounds: int
    """Trees that it tried."""
    peak_bytes: int
    """Largest resident memory of the full training."""
    matrix_bytes: int
    """Rows × features × 8."""

    @property
    def ratios(self) -> dict[str, float]:
        """Against the budgets: 1.6, 2.5 and 0.2."""
        return {
            "full_to_lightgbm_alone": self.full_seconds / self.alone_seconds,
            "peak_memory_to_matrix": self.peak_bytes / self.matrix_bytes,
            "warm_start_to_full": self.warm_seconds / self.full_seconds,
        }


class _Silent:
    def step(self, description: str, total: int | None = None) -> None:
        """Nobody watches."""

    def advance(self, count: int) -> None:
        """Nobody watches."""


async def bench(directory: Path, *, rows: int, features: int, rounds: int, progress: Progress) -> TrainingTimes:
    """Writes a ledger, trains from it in full, trains LightGBM alone on the same, adds 1 %, and goes on from the model."""
    slates = rows // SLATE_ITEMS
    new = max(round(NEW_SHARE * slates), 10)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=FIRST_DAYS)
    async with running(directory, server=False) as stack:
        mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
        try:
            await migrate(mongo)
            progress.step("writing the ledger")
            await write(mongo, first=0, slates=slates, feature_count=features, start=start, days=DAYS)
            progress.step("rankloop train")
            fixed = {"RANKLOOP_TRAINER_NUM_BOOST_ROUND": str(rounds), "RANKLOOP_TRAINER_EARLY_STOPPING_ROUNDS": str(rounds)}
            full = await asyncio.to_thread(_trained, directory / "full", stack.mongo_uri, [], fixed)
            if not full.report["promoted"]:
                raise RuntimeError(f"the trained model does not serve, so there is nothing to go on from: {full.report['decision']}")
            tried = full.report["rounds_added"] + full.report["rounds_removed"]
            progress.step("lightgbm.train alone")
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
                alone_seconds = await asyncio.get_running_loop().run_in_executor(alone, _alone, stack.mongo_uri, start, tried)
            progress.step("warm start")
            share = timedelta(days=DAYS * NEW_SHARE)
            await write(
                mongo, first=slates, slates=new, feature_count=features, start=start + timedelta(days=DAYS), days=share / timedelta(days=1)
            )
            warm = await asyncio.to_thread(_trained, directory / "warm", stack.mongo_uri, ["--mode", "warm-start"], {})
        finally:
            await mongo.close()
    return TrainingTimes(
        rows=slates * SLATE_ITEMS,
        features=features,
        rounds=tried,
        full_seconds=full.seconds,
        full_cpu_seconds=full.cpu_seconds,
        alone_seconds=alone_seconds,
        warm_seconds=warm.seconds,
        warm_cpu_seconds=warm.cpu_seconds,
        warm_new_rows=new * SLATE_ITEMS,
        warm_rounds=warm.report["rounds_added"] + warm.report["rounds_removed"],
        peak_bytes=full.peak_bytes,
        matrix_bytes=slates * SLATE_ITEMS * features * 8,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    report: dict[str, Any]
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def _trained(directory: Path, mongo_uri: str, words: list[str], variables: Mapping[str, str]) -> _Trained:
    """Runs `rankloop train` to its end. Its memory is the kernel's own figure, of this one process."""
    directory.mkdir()
    told = directory / "report.json"
    (directory / "rankloop.toml").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RANKLOOP_")}
    environment = {**kept, **variables, "RANKLOOP_MONGO_URI": mongo_uri, "RANKLOOP_CONFIG": str(directory / "rankloop.toml")}
    command = [sys.executable, "-P", "-m", "scripts.cli", "train", "--json", str(told), *words]
    with open(directory / "log", "wb") as log:
        begin = time.perf_counter()
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command[4:])} ended with {child.returncode}: {(directory / 'log').read_text()[-2000:]}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return _Trained(report=json.loads(told.read_text()), seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=usage.ru_maxrss * 1024)


def _alone(mongo_uri: str, start: datetime, rounds: int) -> float:
    """Seconds of `lightgbm.train`, with what is in memory by then: matrix, labels, groups."""
    settings = TrainerSettings(num_boost_round=rounds, early_stopping_rounds=rounds)

    async def read() -> Any:
        mongo = await Mongo.open(MongoSettings(uri=mongo_uri))
        try:
            return await load(mongo, start, start + timedelta(days=FIRST_DAYS), _Silent())
        finally:
            await mongo.close()

    data, _ = asyncio.run(read())
    parts = split(data, validation_split=settings.validation_split, min_slates=settings.min_slates, gap=timedelta(hours=settings.gap_hours))
    begin = time.perf_counter()
    fit(parts.train, parts.validation, settings, rounds=rounds)
    return time.perf_counter() - begin
