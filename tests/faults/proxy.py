"""A small TCP proxy that lets a request through, waits until its reply is there, and cuts the connection instead of passing it on.

Then the write was applied, and whoever asked for it does not know.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

CHUNK = 65_536
HEADERS_FRAME = 1
TRANSACTION = b"\x08startTransaction\x00\x01"
"""In MongoDB's wire protocol: the first command of a transaction."""


class Watch(Protocol):
    """Looks at one connection's bytes and says when an answer must not pass."""

    def request(self, data: bytes) -> None:
        """Bytes on their way to the server."""

    def answers(self, data: bytes) -> bool:
        """Bytes on their way back: whether the answer of a request to be cut is among them."""


class MongoWatch:
    """Marks replies to commands of certain names, in MongoDB's wire protocol."""

    def __init__(self, commands: tuple[str, ...]) -> None:
        # A command's name is the first element of the first section of its OP_MSG.
        names = b"|".join(name.encode() for name in commands)
        self._pattern = re.compile(rb"\xdd\x07\x00\x00.{4}\x00.{4}[\x01\x02\x10](?:" + names + rb")\x00", re.DOTALL)
        self._asked = False

    def request(self, data: bytes) -> None:
        self._asked = self._asked or self._pattern.search(data) is not None

    def answers(self, data: bytes) -> bool:
        # On one connection the drivers ask one thing at a time, so this is the answer to what was asked last.
        asked, self._asked = self._asked, False
        return asked


class GrpcWatch:
    """Marks the first answer of any call: the frame with the answer's headers, which a server sends when the handler is done."""

    def __init__(self) -> None:
        self._rest = b""

    def request(self, data: bytes) -> None:
        pass

    def answers(self, data: bytes) -> bool:
        self._rest += data
        found = False
        while len(self._rest) >= 9:
            length = struct.unpack(">I", b"\0" + self._rest[:3])[0]
            if len(self._rest) < 9 + length:
                break
            found = found or self._rest[3] == HEADERS_FRAME
            self._rest = self._rest[9 + length :]
        return found


class Proxy:
    """Passes connections on to one address, and cuts those it is told to. Belongs to the event loop that opened it."""

    def __init__(self, upstream: str, watch: Callable[[], Watch]) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._watch = watch
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_cut = 0
        self.cuts = 0
        """Answers that did not pass."""
        self.transactions = 0
        """Transactions begun in MongoDB."""
        self.port = 0

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends every connection."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, count: int) -> None:
        """The next `count` answers to what is watched for do not pass, and their connections end."""
        self._to_cut = count

    @property
    def pending_cuts(self) -> int:
        """Cuts told and not yet made."""
        return self._to_cut

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError):
                await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass  # closed
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        watch = self._watch()
        ways = [
            asyncio.ensure_future(self._requests(reader, up_writer, watch)),
            asyncio.ensure_future(self._answers(up_reader, writer, watch)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            up_writer.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, watch: Watch) -> None:
        while data := await reader.read(CHUNK):
            watch.request(data)
            self.transactions += data.count(TRANSACTION)
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, watch: Watch) -> None:
        while data := await reader.read(CHUNK):
            if watch.answers(data) and self._to_cut > 0:
                self._to_cut -= 1
                self.cuts += 1
                return
            writer.write(data)
            await writer.drain()
