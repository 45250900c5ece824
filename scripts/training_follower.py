"""`rankloop train --follow`: a trainer that stays, and trains whenever there is a reason to."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from ranker.models.runs import Mode
from ranker.training.follower import TrainingFollower
from ranker.training.report import TrainingReport
from ranker.training.settings import TrainerSettings
from runtime.errors import RankloopError, Unavailable
from runtime.logs import get_logger
from runtime.process import ground
from scripts.configuration import Configuration, masked_uri
from scripts.serving import serving_of
from scripts.steps import steps

log = get_logger("trainer")


async def follow(
    configuration: Configuration,
    settings: TrainerSettings,
    mode: Mode,
    *,
    ready_file: Path | None,
    told: Callable[[TrainingReport | RankloopError], None],
) -> None:
    """Follows until a signal says stop; `told` hears what every training came to.

    Raises:
        Unavailable: the database does not answer at the start.
    """
    console = Console(stderr=True)
    try:
        async with ground(
            "trainer",
            mongo=configuration.mongo,
            log_settings=configuration.log,
            metrics=configuration.metrics,
            metrics_port=settings.metrics_port,
        ) as on:
            follower = TrainingFollower(
                on.mongo,
                settings,
                mode=mode,
                serving=serving_of(configuration),
                new_id=lambda: f"run-{secrets.token_hex(8)}",
                clock=lambda: datetime.now(UTC),
                progress=lambda: steps(console),
                told=told,
            )
            on.tell_ready(ready_file, "")
            if console.is_terminal:
                console.print(f"following: training {' or '.join(reasons(settings))}; Ctrl-C stops", highlight=False)
            log.info("trainer ready", mode=mode, reasons=reasons(settings))
            await follower.follow(on.stop)
        log.info("trainer stopped")
    except Unavailable as error:
        raise Unavailable(f"no MongoDB answers at {masked_uri(configuration.mongo.uri)}: {error.message}") from None


def reasons(settings: TrainerSettings) -> list[str]:
    """When a following trainer trains, in words."""
    told = []
    if settings.follow_interactions:
        told.append(f"after {settings.follow_interactions} new labelled interactions")
    if settings.follow_schedule:
        told.append(f"at {settings.follow_schedule} (UTC)")
    return [*told, "on request"]
