"""A real `rankloop up` in a folder of its own, and a client of it made of nothing but the stubs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from rankloop.v1 import (
    catalog_pb2_grpc,
    experiment_pb2_grpc,
    export_pb2_grpc,
    model_pb2_grpc,
    ranking_pb2_grpc,
    stats_pb2,
    stats_pb2_grpc,
    tracking_pb2_grpc,
)

Answer = TypeVar("Answer")

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
"""How long a condition may take to come true; only a broken stack ever needs it."""
CALL_SECONDS = 30.0

ENDS_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
"""A program that runs another, which the kernel kills when this test run ends, whatever way it ends."""


def environment(**variables: str) -> dict[str, str]:
    """This environment with these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RANKLOOP_") or name == "RANKLOOP_MONGOD"}
    return {**kept, "COLUMNS": "200", **variables}


def rankloop(
    *arguments: str, variables: Mapping[str, str] | None = None, cwd: Path | None = None, seconds: float = 90
) -> subprocess.CompletedProcess[str]:
    """Runs a `rankloop` command to its end."""
    here = Path(__file__).resolve().parents[2]
    # Like a command that was installed: it does not find its modules by the folder that it is run in.
    variables = {"PYTHONPATH": str(here), **(variables or {})}
    return subprocess.run(
        [sys.executable, "-P", "-m", "scripts.cli", *arguments],
        env=environment(**variables),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def spawned(arguments: Sequence[str], output: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A `rankloop` command that runs on, with all it says appended to a file."""
    with open(output, "ab") as sink:
        return subprocess.Popen(
            [sys.executable, "-c", ENDS_WITH_PARENT, sys.executable, "-m", "scripts.cli", *arguments],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )


class Stack:
    """A running stack."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.ready_file = folder / "ready.json"
        self._output = folder / "up.log"
        self._arguments = arguments
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Starts it and waits until all answer."""
        self.ready_file.unlink(missing_ok=True)
        line = ["up", "--data-dir", str(self.data_dir), "--port", "0", "--ready-file", str(self.ready_file), *self._arguments]
        self._process = spawned(line, self._output, environment(**self._variables))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.ready_file.exists():
            assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(LOOK_SECONDS)
        return self

    @property
    def ready(self) -> dict[str, Any]:
        """The ready file as it is now."""
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    @property
    def address(self) -> str:
        """host:port of the server."""
        return str(self.ready["server"])

    @property
    def mongo_uri(self) -> str:
        """The database's URI."""
        return str(self.ready["mongo_uri"])

    def pid(self, name: str) -> int:
        """The id of a process now."""
        return int(self.ready["pids"][name])

    @property
    def said(self) -> str:
        """What it said, and what its processes wrote into their logs."""
        logs = sorted((self.data_dir / "logs").glob("*.log")) if self.data_dir.is_dir() else []
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-3000:]}" for path in [self._output, *logs])

    def log_of(self, name: str) -> str:
        """What a process wrote into its log."""
        return (self.data_dir / "logs" / f"{name}.log").read_text(errors="replace")

    def send(self, name: str, number: signal.Signals) -> int:
        """Sends a signal to one of its processes; returns the process id."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def stop(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Ends it as SIGTERM does, and returns its exit code; kills it when that takes too long."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Ends the supervisor as SIGKILL does."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def clear(self) -> None:
        """Ends whatever of it is left, when a test has failed."""
        pids = self.ready["pids"].values() if self.ready_file.exists() else []
        self.kill()
        for pid in pids:
            if str(self.data_dir) in _command_of(pid):  # a number that was given to another by now is not ours
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def running(folder: Path, *arguments: str, **variables: str) -> Iterator[Stack]:
    """A stack for the length of the block; it must end cleanly."""
    stack = Stack(folder, *arguments, **variables)
    try:
        stack.start()
        yield stack
    except BaseException:
        stack.clear()
        raise
    assert stack.stop() == 0, stack.said


class Client:
    """Every public service over one channel, as a stranger would write it from the protos."""

    def __init__(self, address: str, *, target: str = "") -> None:
        self.channel = grpc.aio.insecure_channel(
            target or address,
            options=(
                ("grpc.max_receive_message_length", 64 * 2**20),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 300),
                ("grpc.use_local_subchannel_pool", 1),
            ),
        )
        self.tracking: Any = tracking_pb2_grpc.TrackingServiceStub(self.channel)
        self.ranking: Any = ranking_pb2_grpc.RankingServiceStub(self.channel)
        self.catalog: Any = catalog_pb2_grpc.CatalogServiceStub(self.channel)
        self.stats: Any = stats_pb2_grpc.StatsServiceStub(self.channel)
        self.experiments: Any = experiment_pb2_grpc.ExperimentServiceStub(self.channel)
        self.export: Any = export_pb2_grpc.ExportServiceStub(self.channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def folded(self) -> None:
        """Waits until nothing that reached the ledger is yet to be folded."""

        async def nothing_pending() -> bool:
            overview = await self.stats.GetOverview(stats_pb2.GetOverviewRequest(), timeout=CALL_SECONDS)
            return bool(overview.pending_count == 0)

        await eventually(nothing_pending)


async def eventually(condition: Callable[[], Awaitable[Answer]], *, seconds: float = PATIENCE_SECONDS) -> Answer:
    """Asks until the answer is true, and returns it. A call that fails is asked again."""
    deadline = time.monotonic() + seconds
    failure: Exception | None = None
    while True:
        try:
            if answer := await condition():
                return answer
        except grpc.aio.AioRpcError as error:
            failure = error
        assert time.monotonic() < deadline, f"never came true: {condition}; last failure: {failure}"
        await asyncio.sleep(LOOK_SECONDS)


async def failure_of(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """How a call fails; it must."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"it was answered: {str(answer)[:1000]}")


def details_of(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, list[error_details_pb2.BadRequest.FieldViolation]]:
    """What a refusal says for programs: ErrorInfo, and the fields at fault."""
    serialized = [value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"]
    assert serialized, error
    status = status_pb2.Status.FromString(serialized[0])
    assert status.code == error.code().value[0]
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        for kind in (info, bad):
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(kind)
    assert info.domain == "rankloop"
    return info, list(bad.field_violations)


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def state_of(pid: int) -> str:
    """The state of a process as the kernel has it; empty: it has gone, or only waits for its parent to notice."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""
    return "" if state in "ZX" else state
