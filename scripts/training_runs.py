"""`rankloop models runs` and `rankloop models request`: what the trainer did, and asking it for more."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

from rankloop.v1 import model_pb2
from scripts.connection import DEFAULT_ADDRESS, Connection
from scripts.model_calls import PAGE_SIZE, Json, Server, Stub, ask, figure, moment


def list_runs(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20, server: Server = DEFAULT_ADDRESS, as_json: Json = False
) -> None:
    """Lists runs of the trainer, the newest first: what set them off, what came of them.

    Examples:

        rankloop models runs

        rankloop models runs --limit 100 --json
    """
    found = ask(server, lambda connection, stub: _runs(connection, stub, limit))
    if as_json:
        print(json.dumps([json_format.MessageToDict(run, preserving_proto_field_name=True) for run in found], indent=2))
        return
    table = Table(
        "run", "status", "trigger", "mode", "began", "seconds", "impressions", "model", "NDCG@10", "result", box=None, pad_edge=False
    )
    for run in found:
        table.add_row(
            run.run_id,
            model_pb2.TrainingRunStatus.Name(run.status).removeprefix("TRAINING_RUN_STATUS_").lower(),
            run.trigger,
            run.mode,
            moment(run.create_time),
            f"{run.duration.ToTimedelta().total_seconds():.1f}" if run.HasField("duration") else "",
            f"{run.row_count:,}",
            f"{run.model_version}{' (serves since)' if run.promoted else ''}",
            next((figure(metric) for metric in run.metrics if metric.name == "test.model.ndcg_at_10"), ""),
            run.result,
        )
    Console().print(table if found else "no runs yet; `rankloop train` makes one")


def request_training(
    reason: Annotated[str, typer.Option(help="Why, for the history; at most 1,024 bytes.")] = "",
    server: Server = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Asks the trainer for a run. Whoever trains next takes it up; one that waits already stays the only one.

    Examples:

        rankloop models request

        rankloop models request --reason "new price feature"
    """

    async def question(connection: Connection, stub: Stub) -> model_pb2.TrainingRun:
        return (await connection.call(stub.RequestTraining, model_pb2.RequestTrainingRequest(reason=reason))).run

    run = ask(server, question)
    if as_json:
        print(json.dumps(json_format.MessageToDict(run, preserving_proto_field_name=True), indent=2))
    else:
        print(f"{run.run_id} waits for a trainer, since {moment(run.create_time)}")


async def _runs(connection: Connection, stub: Stub, limit: int) -> list[model_pb2.TrainingRun]:
    found: list[model_pb2.TrainingRun] = []
    token = ""
    while len(found) < limit:
        request = model_pb2.ListTrainingRunsRequest(page_size=min(PAGE_SIZE, limit - len(found)), page_token=token)
        page = await connection.call(stub.ListTrainingRuns, request)
        found += page.runs
        token = page.next_page_token
        if not token:
            break
    return found
