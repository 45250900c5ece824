"""`rankloop up`: the whole stack on one machine, under one supervisor."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ranker.settings import RankerSettings
from runtime.embedded import EmbeddedMongo
from runtime.errors import Misconfigured, Unavailable
from runtime.holder import Holder
from runtime.logs import configure_logs
from runtime.mongo import Mongo
from runtime.process import stop_on_signals, write_ready_file
from runtime.schema import migrate
from runtime.settings import LogSettings
from scripts.configuration import Configuration, load, masked_uri
from scripts.running import stack_file
from scripts.supervision import Pause, Worker, bound_log, ending, unless

LOG_LOOK_SECONDS = 60.0
SPARE_SECONDS = 5.0
"""What a process may take to stop beyond the calls it finishes."""


def up(
    data_dir: Annotated[Path, typer.Option(envvar="RANKLOOP_DATA_DIR", help="Where the database and the logs are kept.")] = Path("data"),
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The public port, 0: any free one; otherwise as configured.")] = None,
    rankers: Annotated[int, typer.Option(min=1, max=64, help="How many ranking workers to run.")] = 1,
    no_console: Annotated[bool, typer.Option("--no-console", hidden=True, help="Leave out the web console.")] = False,
    ready_file: Annotated[Path | None, typer.Option(help="A file to write as JSON, with every address, when all answer.")] = None,
    config: Annotated[Path | None, typer.Option(help="The configuration; otherwise RANKLOOP_CONFIG or ./rankloop.toml.")] = None,
) -> None:
    """Starts the whole stack, keeps it running, and stops it on Ctrl-C or SIGTERM.

    Without RANKLOOP_MONGO_URI it starts a MongoDB of its own, with its data in --data-dir (./data unless said otherwise). What
    ends by itself is started again; when this command ends, whatever way, everything it started ends with it.

    Examples:

        rankloop up

        rankloop up --data-dir /var/lib/rankloop --rankers 2

        rankloop up --data-dir "$(mktemp -d)" --port 0 --ready-file stack.json
    """
    configuration = load(config)
    del no_console  # there is none yet; who leaves it out already says so
    raise typer.Exit(asyncio.run(Stack(configuration, data_dir, port, rankers, ready_file, config).run()))


class Stack:
    """All processes of one machine."""

    def __init__(
        self,
        configuration: Configuration,
        data_dir: Path,
        port: int | None,
        ranker_count: int,
        ready_file: Path | None,
        config: Path | None,
    ) -> None:
        self._configuration = configuration
        self._data_dir = data_dir.resolve()
        self._ready_file = ready_file
        self._holder: Holder | None = None
        self._mongo: EmbeddedMongo | None = None
        self._mongo_uri = configuration.mongo.uri
        self._mongo_log = self._data_dir / "mongo" / "mongod.log"
        shared = ["--config", str(config.absolute())] if config is not None else []
        self._rankers = [
            self._worker(
                "ranker" if number == 0 else f"ranker-{number + 1}",
                "ranker",
                [*shared, *_ports_of_its_own(configuration.ranker, number)],
                configuration.ranker.drain_seconds,
            )
            for number in range(ranker_count)
        ]
        self._collector = self._worker("collector", "collector", shared, configuration.collector.drain_seconds)
        public = shared if port is None else [*shared, "--port", str(port)]
        self._server = self._worker("server", "server", public, configuration.server.drain_seconds)
        # A training that is broken off looks at the signal between rounds.
        self._trainers = [self._worker("trainer", "train", ["--follow", *shared], SPARE_SECONDS)] if configuration.trainer.follow else []

    def _worker(self, name: str, kind: str, arguments: list[str], drain_seconds: float) -> Worker:
        return Worker(name, kind, arguments, self._data_dir, grace_seconds=drain_seconds + SPARE_SECONDS)

    @property
    def _workers(self) -> list[Worker]:
        """In the order of their start."""
        return [*self._rankers, self._collector, self._server, *self._trainers]

    async def run(self) -> int:
        """Runs until a signal says stop; returns the exit code. Raises Misconfigured if it cannot start."""
        configure_logs(LogSettings(level="warning"), process="up")
        stop = stop_on_signals()
        began = time.monotonic()
        try:
            await unless(stop, self._start())
            if not stop.is_set():
                self._tell()
                self._greet(time.monotonic() - began)
                await unless(stop, self._keep())
        finally:
            await self._stop()
        _say("stopped")
        return 0

    async def _start(self) -> None:
        self._holder = await Holder.take(self._data_dir)
        self._forget()
        if not self._mongo_uri:
            self._mongo = await EmbeddedMongo.start(self._data_dir / "mongo", self._configuration.embedded)
            self._mongo_uri = self._mongo.uri
        await self._migrate()
        try:
            async with asyncio.TaskGroup() as group:
                for worker in (*self._rankers, self._collector):
                    group.create_task(worker.start(self._environment()))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        await self._server.start(self._server_environment())
        for trainer in self._trainers:
            await trainer.start(self._environment())

    async def _migrate(self) -> None:
        """Brings the database to this version once, before anybody works on it."""
        try:
            mongo = await Mongo.open(self._configuration.mongo.model_copy(update={"uri": self._mongo_uri}))
            try:
                await migrate(mongo)
            finally:
                await mongo.close()
        except Unavailable:
            raise Misconfigured(f"no MongoDB answers at {masked_uri(self._mongo_uri)}; start it, or correct RANKLOOP_MONGO_URI") from None

    async def _keep(self) -> None:
        """Starts again what ends, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._mongo is not None:
                group.create_task(self._keep_mongo())
            for worker in self._workers:
                environment = self._server_environment() if worker is self._server else self._environment()
                group.create_task(worker.keep(environment, self._tell, _say))
            group.create_task(self._bound_logs())

    async def _keep_mongo(self) -> None:
        pause = Pause()
        while True:
            assert self._mongo is not None
            code = await self._mongo.wait()
            await self._mongo.stop()
            seconds = pause.ended()
            _say(f"mongod ended {ending(code)}; starting it again in {seconds:g} s (log: {self._mongo_log})")
            await asyncio.sleep(seconds)
            pause.started()
            try:
                mongo = await EmbeddedMongo.start(self._data_dir / "mongo", self._configuration.embedded)
            except Misconfigured as error:
                _say(error.message)
                continue
            self._mongo = mongo
            if mongo.uri != self._mongo_uri:
                raise Misconfigured("mongod's port was taken by another process while it was away; run `rankloop up` again")
            self._tell()
            _say("mongod answers again")

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_LOOK_SECONDS)
            for log in (*(worker.log for worker in self._workers), self._mongo_log):
                if log is not None:
                    bound_log(log)

    async def _stop(self) -> None:
        if self._holder is None:
            return
        self._forget()
        for worker in reversed(self._workers):
            await worker.stop()
        if self._mongo is not None:
            await self._mongo.stop()
        self._holder.release()

    def _forget(self) -> None:
        """Takes the ready file away: it is there exactly while all answer, or are being started again."""
        for path in (self._ready_file, stack_file(self._data_dir)):
            if path is not None:
                path.unlink(missing_ok=True)

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "RANKLOOP_MONGO_URI": self._mongo_uri}

    def _server_environment(self) -> Mapping[str, str]:
        addresses = ",".join((*(worker.address for worker in self._rankers), *self._configuration.server.rankers))
        return {**self._environment(), "RANKLOOP_SERVER_RANKERS": addresses}

    def _tell(self) -> None:
        """Writes the ready file."""
        pids = {"up": os.getpid(), **({"mongod": self._mongo.pid} if self._mongo is not None else {})}
        content: dict[str, Any] = {
            "server": self._server.address,
            "mongo_uri": self._mongo_uri,
            "metrics": {worker.name: worker.metrics for worker in self._workers},
            "console": None,
            "pids": {**pids, **{worker.name: worker.pid for worker in self._workers}},
        }
        write_ready_file(stack_file(self._data_dir), content)
        write_ready_file(self._ready_file, content)

    def _greet(self, seconds: float) -> None:
        database = f"mongod in {self._data_dir / 'mongo'}" if self._mongo is not None else masked_uri(self._mongo_uri)
        lines = {
            "server": self._server.address,
            "metrics": "  ".join(worker.metrics for worker in self._workers),
            "database": database,
            "logs": str(self._data_dir / "logs"),
        }
        print(f"Rankloop is ready ({seconds:.1f} s). Ctrl-C stops it.")
        for name, value in lines.items():
            print(f"  {name:<9} {value}")
        sys.stdout.flush()


def _ports_of_its_own(settings: RankerSettings, number: int) -> list[str]:
    """Of several workers with a configured port, each takes the next one."""
    ports = {"--port": settings.port, "--metrics-port": settings.metrics_port}
    return [word for option, port in ports.items() if port and number for word in (option, str(port + number))]


def _say(text: str) -> None:
    print(f"rankloop up: {text}", file=sys.stderr, flush=True)
