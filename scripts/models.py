"""`rankloop models`: which models there are, and which one serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

from rankloop.v1 import model_pb2
from runtime.errors import Misconfigured
from scripts.connection import DEFAULT_ADDRESS, Connection
from scripts.model_calls import PAGE_SIZE, Json, Server, Stub, figure, moment
from scripts.model_calls import ask as ask_server
from scripts.training_runs import list_runs, request_training

NAMES_WITHIN = 2**20
"""Bytes of a model's text that its header lies in."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def models() -> None:
    """Which models there are, and which one serves.

    Examples:

        rankloop models list

        rankloop models show

        rankloop models rollback

        rankloop models import model.txt --features features.txt

        rankloop models runs
    """


app.command("runs")(list_runs)
app.command("request")(request_training)


@app.command("list")
def list_models(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20, server: Server = DEFAULT_ADDRESS, as_json: Json = False
) -> None:
    """Lists models, the newest first.

    Examples:

        rankloop models list

        rankloop models list --limit 100 --json
    """
    found = ask_server(server, lambda connection, stub: _list(connection, stub, limit))
    if as_json:
        print(json.dumps([_as_json(model) for model in found], indent=2))
        return
    table = Table("version", "status", "created", "trees", "slates", "NDCG@10", box=None, pad_edge=False)
    for model in found:
        table.add_row(
            model.model_version,
            status_of(model) + (f", refused by {len(model.refusals)}" if model.refusals else ""),
            moment(model.create_time),
            f"{model.tree_count:,}",
            f"{model.slate_count:,}",
            next((figure(metric) for metric in model.metrics if metric.name == "test.model.ndcg_at_10"), ""),
            style="bold" if model.status == model_pb2.MODEL_STATUS_CHAMPION else None,
        )
    Console().print(table if found else "no models yet; `rankloop train` makes one")


@app.command()
def show(
    version: Annotated[str, typer.Argument(help="Its version; without one the champion.")] = "",
    server: Server = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Shows all that is known of a model: what it learned from, what it measured, what it goes by.

    Examples:

        rankloop models show

        rankloop models show 20260101T000000-1a2b3c4d --json
    """

    async def get(connection: Connection, stub: Stub) -> model_pb2.Model:
        return (await connection.call(stub.GetModel, model_pb2.GetModelRequest(model_version=version))).model

    _print(ask_server(server, get), as_json)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="The version that shall serve.")], server: Server = DEFAULT_ADDRESS, as_json: Json = False
) -> None:
    """Lets a model serve. Rankers try it and swap when it is warm; no call fails or waits.

    Examples:

        rankloop models promote 20260101T000000-1a2b3c4d
    """

    async def ask(connection: Connection, stub: Stub) -> model_pb2.Model:
        return (await connection.call(stub.PromoteModel, model_pb2.PromoteModelRequest(model_version=version))).model

    _print(ask_server(server, ask), as_json)


@app.command()
def rollback(
    leaving: Annotated[str, typer.Option(help="The champion to leave; fails if another serves by now.")] = "",
    server: Server = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Lets the champion before the present one serve again.

    Examples:

        rankloop models rollback

        rankloop models rollback --leaving 20260101T000000-1a2b3c4d
    """

    async def ask(connection: Connection, stub: Stub) -> model_pb2.Model:
        return (await connection.call(stub.RollbackModel, model_pb2.RollbackModelRequest(model_version=leaving), once=True)).model

    _print(ask_server(server, ask), as_json)


@app.command("import")
def import_model(
    forest: Annotated[Path, typer.Argument(help="A model in LightGBM's text format.")],
    features: Annotated[
        Path | None, typer.Option("--features", help="The feature of each column, in order: a JSON list, or a name per line.")
    ] = None,
    version: Annotated[str, typer.Option(help="The name to give it; without one it is made from time and content.")] = "",
    server: Server = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Brings a LightGBM model of your own. It is checked, and does not serve until it is promoted.

    Without --features, the names are those that the model's own text states.

    Examples:

        rankloop models import model.txt --features features.json

        rankloop models import model.txt --features features.txt --version mine-1
    """
    text = _read(forest)
    names = _own_names(forest, text) if features is None else _names(features)
    request = model_pb2.ImportModelRequest(model_version=version, forest=text, feature_names=names)

    async def ask(connection: Connection, stub: Stub) -> model_pb2.Model:
        return (await connection.call(stub.ImportModel, request)).model

    _print(ask_server(server, ask), as_json)


def status_of(model: model_pb2.Model) -> str:
    """Its status in a word."""
    return model_pb2.ModelStatus.Name(model.status).removeprefix("MODEL_STATUS_").lower()


async def _list(connection: Connection, stub: Stub, limit: int) -> list[model_pb2.Model]:
    found: list[model_pb2.Model] = []
    token = ""
    while len(found) < limit:
        request = model_pb2.ListModelsRequest(page_size=min(PAGE_SIZE, limit - len(found)), page_token=token)
        page = await connection.call(stub.ListModels, request)
        found += page.models
        token = page.next_page_token
        if not token:
            break
    return found


def _print(model: model_pb2.Model, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_json(model), indent=2))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("version", model.model_version)
    table.add_row("status", f"{status_of(model)}: {model.status_reason}" if model.status_reason else status_of(model))
    table.add_row("created", f"{moment(model.create_time)} by {model.source}")
    if model.HasField("promote_time"):
        table.add_row("promoted", moment(model.promote_time))
    if model.HasField("serve_time"):
        table.add_row("served since", moment(model.serve_time))
    for refusal in model.refusals:
        table.add_row("refused by", f"{refusal.ranker}: {refusal.description} ({refusal.reason}, {moment(refusal.refuse_time)})")
    if model.HasField("data_start_time"):
        table.add_row("learned from", f"{moment(model.data_start_time)} to {moment(model.data_end_time)}")
        table.add_row("", f"{model.slate_count:,} slates, {model.row_count:,} impressions")
    table.add_row("forest", f"{model.tree_count:,} trees, {len(model.feature_names)} features, {model.byte_count:,} bytes")
    for metric in model.metrics:
        table.add_row(metric.name, figure(metric))
    for importance in model.top_features:
        table.add_row(f"gain of {importance.feature}", f"{importance.gain_share:.1%}")
    Console().print(table, highlight=False)


def _as_json(model: model_pb2.Model) -> dict[str, Any]:
    shown: dict[str, Any] = json_format.MessageToDict(model, preserving_proto_field_name=True)
    return shown


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from None


def _names(path: Path) -> list[str]:
    """The names in a JSON list, or one per line."""
    text = _read(path).decode(errors="replace").strip()
    if not text.startswith("["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        names = json.loads(text)
    except ValueError as error:
        raise Misconfigured(f"{path} is not a JSON list of feature names: {error}") from None
    if not all(isinstance(name, str) for name in names):
        raise Misconfigured(f"{path} is not a JSON list of feature names: it holds something else than strings")
    return list(names)


def _own_names(path: Path, text: bytes) -> list[str]:
    """The names that a model's text states for its columns."""
    head = text[:NAMES_WITHIN].decode(errors="replace")
    line = next((line for line in head.splitlines() if line.startswith("feature_names=")), None)
    if line is None:
        raise Misconfigured(f"{path} states no feature_names: name the feature of each column with --features FILE")
    return line.removeprefix("feature_names=").split()
