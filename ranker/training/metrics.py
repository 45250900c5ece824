"""What a following trainer tells Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

TRIGGERS: Final = ("request", "schedule", "threshold")

RUNS = Counter("rankloop_trainer_runs", "Trainings ended, by what set them off and how they ended.", ("trigger", "result"))
SUCCEEDED = Gauge("rankloop_trainer_success_timestamp_seconds", "When a training last succeeded, in Unix seconds; 0: none did since start.")
SECONDS = Gauge("rankloop_trainer_last_training_seconds", "How long the last training that succeeded took.")
NEW_INTERACTIONS = Gauge("rankloop_trainer_new_interactions", "Labelled interactions that came in since the last training began.")

for _trigger in TRIGGERS:
    for _result in ("succeeded", "failed"):
        RUNS.labels(_trigger, _result)
