"""`rankloop server`, `rankloop ranker`, `rankloop collector`: one process each, for those who arrange them themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from runtime.errors import Misconfigured, Unavailable
from runtime.rpc.server import RpcSettings
from scripts.configuration import Configuration, load, masked_uri
from server.settings import ServiceName, worker_addresses

Settings = TypeVar("Settings", bound=RpcSettings)

Host = Annotated[str | None, typer.Option(help="The address to bind; otherwise as configured (127.0.0.1).")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="The port to bind, 0: any free one; otherwise as configured.")]
MetricsPort = Annotated[int | None, typer.Option(min=0, max=65535, help="The port for Prometheus, 0: any free one.")]
Ready = Annotated[Path | None, typer.Option(help="A file to write as JSON when it answers: address, metrics, pid.")]
Config = Annotated[Path | None, typer.Option(help="The configuration; otherwise RANKLOOP_CONFIG or ./rankloop.toml.")]


def server(
    host: Host = None,
    port: Port = None,
    metrics_port: MetricsPort = None,
    ranker: Annotated[list[str] | None, typer.Option(help="A ranking worker's host:port, or host:first-last; several times.")] = None,
    services: Annotated[str, typer.Option(help="What to answer, as in ranking,catalog,stats,models; otherwise as configured (all).")] = "",
    ready_file: Ready = None,
    config: Config = None,
) -> None:
    """Runs the public endpoint, until SIGTERM: then it finishes the calls under way.

    Run as many as you like behind a load balancer; they share nothing but the database.

    Examples:

        RANKLOOP_MONGO_URI=mongodb://127.0.0.1:27017/?replicaSet=rs0 rankloop server --ranker 127.0.0.1:50052

        rankloop server --port 0 --ready-file server.json

        rankloop server --services ranking,catalog,stats,models,experiments,export   (tracking goes to `rankloop collector`)
    """
    from server.process import run

    configuration = load(config)
    settings = _placed(configuration.server, host, port, metrics_port)
    if ranker:
        settings = settings.model_copy(update={"rankers": tuple(address for text in ranker for address in _addresses(text))})
    if services:
        settings = settings.model_copy(update={"services": _services(services)})
    _run(
        configuration,
        run(
            server=settings,
            collector=configuration.collector,
            labels=configuration.labels,
            retention=configuration.retention,
            features=configuration.features,
            mongo=configuration.mongo,
            log_settings=configuration.log,
            metrics=configuration.metrics,
            ready_file=ready_file,
        ),
    )


def ranker(
    host: Host = None,
    port: Port = None,
    metrics_port: MetricsPort = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many processes to run, each with ports of its own.")] = 1,
    ready_file: Ready = None,
    config: Config = None,
) -> None:
    """Runs a ranking worker, until SIGTERM. It answers servers, not callers.

    With --workers it runs several processes: one that ends is started again, and SIGTERM drains them all. From --port on each takes
    the next port, and the same with --metrics-port; the ready file lists them. One for each core is a good beginning.

    Examples:

        RANKLOOP_MONGO_URI=mongodb://127.0.0.1:27017/?replicaSet=rs0 rankloop ranker --port 50052

        rankloop ranker --port 0 --ready-file ranker.json

        rankloop ranker --workers 4 --port 50052     (and `rankloop server --ranker 127.0.0.1:50052-50055`)
    """
    configuration = load(config)
    if workers > 1:
        from scripts.ranker_workers import run_workers

        run_workers(workers, _placed(configuration.ranker, host, port, metrics_port), configuration.log, config, ready_file)
        return
    from ranker.process import run

    _run(
        configuration,
        run(
            ranker=_placed(configuration.ranker, host, port, metrics_port),
            features=configuration.features,
            mongo=configuration.mongo,
            log_settings=configuration.log,
            metrics=configuration.metrics,
            ready_file=ready_file,
        ),
    )


def collector(
    host: Host = None,
    port: Port = None,
    metrics_port: MetricsPort = None,
    ready_file: Ready = None,
    config: Config = None,
) -> None:
    """Runs the worker that folds the ledger, until SIGTERM. It also takes interactions in, apart from the public endpoint.

    Of several one folds; the others stand by.

    Examples:

        RANKLOOP_MONGO_URI=mongodb://127.0.0.1:27017/?replicaSet=rs0 rankloop collector

        rankloop collector --port 50053 --metrics-port 9103
    """
    from collector.process import run

    configuration = load(config)
    _run(
        configuration,
        run(
            collector=_placed(configuration.collector, host, port, metrics_port),
            labels=configuration.labels,
            retention=configuration.retention,
            mongo=configuration.mongo,
            log_settings=configuration.log,
            metrics=configuration.metrics,
            ready_file=ready_file,
        ),
    )


def _run(configuration: Configuration, process: Coroutine[Any, Any, None]) -> None:
    """Runs a process until it stops. Raises Misconfigured where its database does not answer."""
    try:
        asyncio.run(process)
    except Unavailable as error:
        uri = masked_uri(configuration.mongo.uri)
        raise Misconfigured(f"no MongoDB answers at {uri}; start it, or correct RANKLOOP_MONGO_URI") from error


def _placed(settings: Settings, host: str | None, port: int | None, metrics_port: int | None) -> Settings:
    """The settings with what the command line says of where to listen."""
    said: dict[str, Any] = {"host": host, "port": port, "metrics_port": metrics_port}
    return settings.model_copy(update={name: value for name, value in said.items() if value is not None})


def _addresses(text: str) -> tuple[str, ...]:
    try:
        return worker_addresses(text)
    except ValueError as error:
        raise Misconfigured(f"--ranker {error}") from None


def _services(listed: str) -> tuple[ServiceName, ...]:
    known: tuple[ServiceName, ...] = get_args(ServiceName)
    named = [name.strip() for name in listed.split(",") if name.strip()]
    if unknown := [name for name in named if name not in known]:
        raise Misconfigured(f"--services: {unknown[0]!r} is not a service; there are {', '.join(known)}")
    return tuple(name for name in known if name in named)
