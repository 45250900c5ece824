"""`rankloop train`, and `python scripts/train.py`: one run of the trainer, as a weekly job or by hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a file, Python looks for modules beside it; the rooms are one folder up.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

# LightGBM's threads meet thousands of times per tree, and by default they wait for each other spinning. Where something else wants the
# cores too (servers and rankers on the same machine), a spinning thread keeps the one it waits for from running: training then takes
# many times as long. OpenMP reads this when LightGBM is first loaded, so it stands before the imports.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import asyncio
import json
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from ranker.models.runs import Mode
from ranker.training.report import TrainingReport
from ranker.training.settings import TrainerSettings
from ranker.training.trainer import TrainingOptions
from ranker.training.trainer import train as run_training
from runtime.errors import Aborted, Misconfigured, RankloopError
from runtime.logs import configure_logs
from runtime.mongo import Mongo
from runtime.process import stop_on_signals
from runtime.schema import migrate
from scripts.configuration import Configuration
from scripts.running import load_with_database
from scripts.serving import serving_of
from scripts.steps import steps
from scripts.training_follower import follow as following
from scripts.training_page import require_drawing, write_page
from scripts.training_tables import print_report

OPTIONS = {"follow_interactions": "--new-interactions", "follow_schedule": "--schedule"}
"""What options are called whose settings have other names."""


class TrainingMode(StrEnum):
    """What a training begins from."""

    FULL = "full"
    WARM_START = "warm-start"


def train(
    min_interactions: Annotated[
        int | None, typer.Option(min=1, help="Interactions that must have occurred in the window; fewer: exit code 1 (default: 100).")
    ] = None,
    lookback_days: Annotated[float | None, typer.Option(min=0.001, help="How far back to look, in days (default: 90).")] = None,
    validation_split: Annotated[
        float | None,
        typer.Option(help="Share of the latest slates that is not learned from; one half stops training, one is reported (default: 0.2)."),
    ] = None,
    num_boost_round: Annotated[int | None, typer.Option(min=1, help="Trees at most (default: 500).")] = None,
    evaluate_only: Annotated[bool, typer.Option("--evaluate-only", help="Train nothing: measure the champion and the baselines.")] = False,
    mode: Annotated[
        TrainingMode | None,
        typer.Option(help="From nothing, or on from the champion's trees (default: full; with --follow as trainer.follow_mode says)."),
    ] = None,
    tune: Annotated[
        int, typer.Option(min=0, max=10_000, help="Try so many settings within the train slice first, and train with the best (0: none).")
    ] = 0,
    tune_seconds: Annotated[float, typer.Option(min=1, help="Longest to try them.")] = 600.0,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Stay, and train after new interactions, at --schedule, and on RequestTraining."),
    ] = False,
    new_interactions: Annotated[
        int | None, typer.Option(min=0, help="With --follow: train after so many new labelled interactions, 0: never (default: 50).")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="With --follow: train at the times of this cron line too, in UTC.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the report as JSON.")] = None,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Where to write the report as one HTML page with plots; its JSON goes beside it.")
    ] = None,
    ready_file: Annotated[Path | None, typer.Option(help="With --follow: a file to write as JSON when it follows.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="With --follow: the port Prometheus scrapes, 0: any free one.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The configuration; otherwise RANKLOOP_CONFIG or ./rankloop.toml.")] = None,
) -> None:
    """Trains a model on what happened, measures it beside the baselines and the champion, and lets it serve if it is not worse.

    Slates are split by time: the earliest are learned from, later ones stop the training, the latest are reported. Defaults come from
    the section `trainer` of the configuration. The exit code is 0 when a model was trained or measured, whatever the gate decided; 1
    when there was too little to learn from.

    Examples:

        rankloop train

        rankloop train --min-interactions 5000 --lookback-days 30 --json report.json

        rankloop train --mode warm-start --num-boost-round 100

        rankloop train --report report.html

        rankloop train --tune 30 --tune-seconds 1800

        rankloop train --evaluate-only

        rankloop train --follow --new-interactions 1000 --schedule "0 4 * * 1"

        0 4 * * 1  RANKLOOP_MONGO_URI=mongodb://db:27017/?replicaSet=rs0 rankloop train     (cron: Mondays at four)
    """
    asked = {
        "min_interactions": min_interactions,
        "lookback_days": lookback_days,
        "validation_split": validation_split,
        "num_boost_round": num_boost_round,
        "follow_interactions": new_interactions,
        "follow_schedule": schedule,
        "metrics_port": metrics_port,
    }
    configuration = load_with_database(config)
    configure_logs(configuration.log, process="trainer")
    settings = _settings(configuration.trainer, {name: value for name, value in asked.items() if value is not None})
    if evaluate_only and mode is TrainingMode.WARM_START:
        raise Misconfigured("--evaluate-only trains nothing, so it has no --mode warm-start; leave one of them out")
    if tune and (evaluate_only or follow or mode is TrainingMode.WARM_START):
        raise Misconfigured("--tune finds settings for a full training; leave out --evaluate-only, --follow and --mode warm-start")
    if report_file is not None:
        require_drawing(report_file)
    if follow:
        if report_file is not None:
            raise Misconfigured("--report is the page of one run; with --follow ask for --json, which every run writes anew")
        if evaluate_only:
            raise Misconfigured("--evaluate-only trains nothing, so there is nothing to --follow; leave one of them out")
        _follow(configuration, settings, settings.follow_mode if mode is None else mode.value, json_file, ready_file)
        return
    for option, value in {"--new-interactions": new_interactions, "--schedule": schedule, "--metrics-port": metrics_port}.items():
        if value is not None:
            raise Misconfigured(f"{option} says when to train again, which only a trainer does that stays: add --follow, or leave it out")
    wanted: Mode = "evaluate-only" if evaluate_only else "full" if mode is None else mode.value
    try:
        detailed, tuning = json_file is not None or report_file is not None, (tune, tune_seconds)
        report = asyncio.run(_run(configuration, settings, wanted, detailed=detailed, tuning=tuning))
    except RankloopError as failure:
        _write(json_file, _failed(failure))
        raise
    _write(json_file, report.to_json())
    if report_file is not None:
        write_page(report_file, report)
    print_report(Console(), report)


def _follow(configuration: Configuration, settings: TrainerSettings, mode: Mode, json_file: Path | None, ready_file: Path | None) -> None:
    console = Console()

    def told(outcome: TrainingReport | RankloopError) -> None:
        if isinstance(outcome, RankloopError):
            _write(json_file, _failed(outcome))
            return
        _write(json_file, outcome.to_json())
        if console.is_terminal:
            print_report(console, outcome)

    asyncio.run(following(configuration, settings, mode, ready_file=ready_file, told=told))


def _failed(failure: RankloopError) -> dict[str, Any]:
    return {"error": failure.message, "reason": failure.reason, "model_version": "", "promoted": False}


def _settings(configured: TrainerSettings, asked: dict[str, Any]) -> TrainerSettings:
    try:
        return TrainerSettings.model_validate({**configured.model_dump(), **asked})
    except ValidationError as error:
        faults = (f"{_option(str(fault['loc'][0]))}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors())
        raise Misconfigured("\n".join(faults)) from None


def _option(field: str) -> str:
    return OPTIONS.get(field, f"--{field.replace('_', '-')}")


async def _run(
    configuration: Configuration, settings: TrainerSettings, mode: Mode, *, detailed: bool, tuning: tuple[int, float]
) -> TrainingReport:
    stop = stop_on_signals()
    mongo = await Mongo.open(configuration.mongo)
    try:
        await migrate(mongo)
        options = TrainingOptions(
            settings=settings,
            run_id=f"run-{secrets.token_hex(8)}",
            clock=lambda: datetime.now(UTC),
            mode=mode,
            serving=serving_of(configuration),
            detailed=detailed,
            tune_trials=tuning[0],
            tune_seconds=tuning[1],
        )
        with steps(Console(stderr=True)) as progress:
            return await _unless_stopped(asyncio.create_task(run_training(mongo, options, progress)), stop)
    finally:
        await mongo.close()


async def _unless_stopped(training: asyncio.Task[TrainingReport], stop: asyncio.Event) -> TrainingReport:
    told = asyncio.create_task(stop.wait())
    await asyncio.wait({training, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if training.done():
        return training.result()
    training.cancel()
    await asyncio.wait({training})
    raise Aborted("stopped by a signal: nothing was published, the champion is untouched")


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        path.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise Misconfigured(f"the report {path} cannot be written ({error.strerror}); name another file with --json") from error


if __name__ == "__main__":
    from scripts.cli import main

    sys.argv.insert(1, "train")
    main()
