"""`rankloop train` as a process: exit codes, sentences, the JSON file, a signal in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from ranker.models.registry import ModelRegistry
from ranker.models.runs import TrainingRuns
from runtime.mongo import Mongo
from runtime.settings import MongoSettings
from tests.integration.learnable import History

ROOT = Path(__file__).resolve().parents[2]


def environment(settings: MongoSettings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RANKLOOP_")}
    small = {"TRAINER_NUM_LEAVES": "8", "TRAINER_BOOTSTRAP_SAMPLES": "100", "TRAINER_NUM_THREADS": "1"}
    return {
        **kept,
        "RANKLOOP_MONGO_URI": settings.uri,
        "RANKLOOP_MONGO_DATABASE": settings.database,
        **{f"RANKLOOP_{name}": value for name, value in small.items()},
    }


async def command(settings: MongoSettings, tmp_path: Path, *arguments: str, place: tuple[str, ...]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *place,
        *arguments,
        env=environment(settings) | {"PYTHONPATH": str(ROOT)} if place[0] == "-m" else environment(settings),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


SCRIPT = (str(ROOT / "scripts" / "train.py"),)
MODULE = ("-m", "scripts.cli", "train")


async def test_the_script_and_the_command_are_one(mongo: Mongo, mongo_settings: MongoSettings, tmp_path: Path) -> None:
    await History(slates=300, now=datetime.now(UTC)).write(mongo)
    told = tmp_path / "report.json"
    page = tmp_path / "page.html"
    asked = ("--num-boost-round", "30", "--json", str(told), "--report", str(page))
    code, out, err = await command(mongo_settings, tmp_path, *asked, place=SCRIPT)
    assert code == 0, err
    report = json.loads(told.read_text())
    assert json.loads((tmp_path / "page.json").read_text()) == report
    assert page.read_text().count("<svg") == 5
    assert report["promoted"]
    assert await ModelRegistry(mongo).champion() == report["model_version"]
    for expected in ("this model", "prior_score", "as shown", "random", "item_quality", "slates used", report["model_version"]):
        assert expected in out
    code, out, err = await command(mongo_settings, tmp_path, "--evaluate-only", place=MODULE)
    assert code == 0, err
    assert f"measured {report['model_version']}" in out
    assert len(await ModelRegistry(mongo).list()) == 1


async def test_too_few_interactions_exit_1_and_say_how_many_are_missing(
    mongo: Mongo, mongo_settings: MongoSettings, tmp_path: Path
) -> None:
    found = len((await History(slates=30, now=datetime.now(UTC)).write(mongo)).documents()[1])
    told = tmp_path / "report.json"
    code, out, err = await command(mongo_settings, tmp_path, "--min-interactions", "5000", "--json", str(told), place=SCRIPT)
    assert code == 1
    assert out == ""
    assert f"rankloop train: {found} interactions in the last 90 days, 5000 asked for: {5000 - found} are missing" in err
    assert "Traceback" not in err
    assert json.loads(told.read_text())["reason"] == "TOO_FEW_INTERACTIONS"


async def test_a_page_that_cannot_be_written_is_said_before_training(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    code, _, err = await command(mongo_settings, tmp_path, "--report", str(tmp_path / "nowhere" / "page.html"), place=SCRIPT)
    assert code == 1
    assert "there is no folder" in err


async def test_a_setting_out_of_bounds_is_one_sentence(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    code, _, err = await command(mongo_settings, tmp_path, "--validation-split", "1.5", place=SCRIPT)
    assert code == 1
    assert "--validation-split" in err
    assert "Traceback" not in err


async def test_sigterm_in_the_middle_leaves_nothing_half_done(mongo: Mongo, mongo_settings: MongoSettings, tmp_path: Path) -> None:
    await History(slates=300, now=datetime.now(UTC)).write(mongo)
    slow = {"RANKLOOP_TRAINER_EARLY_STOPPING_ROUNDS": "20000", "RANKLOOP_TRAINER_NUM_BOOST_ROUND": "20000"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *SCRIPT, env=environment(mongo_settings) | slow, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    runs = TrainingRuns(mongo)
    while not (found := await runs.list()):
        assert process.returncode is None
    assert found[0].status == "running"
    process.send_signal(signal.SIGTERM)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert "the champion is untouched" in err.decode()
    assert (await runs.list())[0].status == "failed"
    assert await ModelRegistry(mongo).list() == []
