"""MongoDB, behind one module: the only one that imports a driver.

Motor is the default driver; PyMongo's own async API is the alternative (docs/adr/0001-mongodb-driver.md). They differ in what is a
coroutine and what is not; here they do not. Whatever goes wrong comes out as one of `runtime.errors`, never as a driver's exception.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import bson
import gridfs
import gridfs.errors
import motor.motor_asyncio
import pymongo
import pymongo.errors
from bson.codec_options import CodecOptions
from bson.int64 import Int64 as Long
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from runtime.errors import DuplicateKey, Misconfigured, Unavailable
from runtime.settings import MongoSettings

__all__ = [
    "Collection",
    "DeleteOne",
    "Document",
    "InsertOne",
    "Long",
    "Mongo",
    "ReplaceOne",
    "UpdateMany",
    "UpdateOne",
    "admin_command",
    "encoded_size",
]

Document = dict[str, Any]
Result = TypeVar("Result")

DUPLICATE_KEY = 11000
NAMESPACE_EXISTS = 48
TRANSACTION_ATTEMPTS = 6
DURABLE = WriteConcern(w="majority", j=True)
CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=datetime.UTC)

Sort = Sequence[tuple[str, int]]
Write = DeleteOne | InsertOne[Document] | ReplaceOne[Document] | UpdateOne | UpdateMany


def encoded_size(document: Mapping[str, Any]) -> int:
    """The document's size in BSON, in bytes."""
    return len(bson.encode(document))


class Mongo:
    """One process's connection to its database. Belongs to the event loop that opened it."""

    def __init__(self, client: Any, settings: MongoSettings) -> None:
        self._client = client
        self._motor = settings.driver == "motor"
        self._slots = asyncio.Semaphore(settings.max_concurrent_operations)
        self._database = client.get_database(
            settings.database, codec_options=CODEC, write_concern=DURABLE, read_concern=ReadConcern("majority")
        )

    @classmethod
    async def open(cls, settings: MongoSettings) -> Mongo:
        """Connects and asks the server who it is.

        Raises:
            Misconfigured: the URI is wrong, access is denied, or the server is no replica set.
            Unavailable: nobody answers there.
        """
        if not settings.uri:
            raise Misconfigured(
                "no MongoDB: set RANKLOOP_MONGO_URI (or mongo.uri in rankloop.toml), or use `rankloop up`, which starts one"
            )
        try:
            client = _client(settings)
        except (pymongo.errors.PyMongoError, ValueError, TypeError) as error:
            raise Misconfigured(
                f"mongo.uri is not a MongoDB URI ({type(error).__name__}); expected one like mongodb://host:27017/?replicaSet=rs0"
            ) from error
        mongo = cls(client, settings)
        try:
            hello = await mongo.command({"hello": 1})
            # A URI may be right and the password wrong: `hello` needs no rights, this does.
            await mongo.collection("meta").find_one({"_id": "schema"})
        except BaseException as error:
            await mongo.close()
            if isinstance(error, Unavailable):
                raise Unavailable("no MongoDB answers at mongo.uri; start it, or correct RANKLOOP_MONGO_URI") from error
            raise
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            await mongo.close()
            raise Misconfigured(
                "the MongoDB at mongo.uri is a standalone; Rankloop needs a replica set (one node is enough): "
                "start mongod with --replSet rs0 and run rs.initiate() once"
            )
        return mongo

    async def close(self) -> None:
        """Closes every connection."""
        closed = self._client.close()
        if closed is not None:
            await closed

    def collection(self, name: str) -> Collection:
        """The collection of that name, durable in what it acknowledges."""
        return Collection(self._database[name], self._slots, motor_driver=self._motor)

    @property
    def blobs(self) -> Blobs:
        """Files by id, for what is too large for a document."""
        bucket: Any = motor.motor_asyncio.AsyncIOMotorGridFSBucket if self._motor else gridfs.AsyncGridFSBucket
        return Blobs(bucket(self._database, bucket_name="blobs", write_concern=DURABLE), self._slots, self.collection("blobs.files"))

    async def command(self, command: Mapping[str, Any]) -> Document:
        """Runs a command on the database."""
        async with _guarded(self._slots):
            reply: Document = await self._database.command(dict(command))
            return reply

    async def open_session(self) -> Any:
        """A session of one worker, for its transactions one after the other. `session.session_id` names it to `break_off`."""
        async with _translated():
            started = self._client.start_session()
            return await started if self._motor else started

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Any]:
        """A session whose reads all see the moment of the first of them; the database keeps it for minutes."""
        async with _translated():
            started = self._client.start_session(snapshot=True)
            session = await started if self._motor else started
        try:
            yield session
        finally:
            await session.end_session()

    async def break_off(self, session_id: Any) -> None:
        """Breaks off what a session left open, whoever's it was: the database itself waits a minute for one that was killed."""
        async with _guarded(self._slots):
            await self._client.admin.command({"killSessions": [session_id]})

    async def transact(self, work: Callable[[Any], Awaitable[Result]], *, session: Any = None) -> Result:
        """Runs `work(session)` in a transaction: all of it or nothing, repeated when it met another.

        `work` may run several times, so it must not keep anything of a run that did not commit. Whatever is asked of the database in
        it passes `session` on: a fresh one, or the one given here.
        """
        for attempt in range(TRANSACTION_ATTEMPTS):
            try:
                return await self._transact_once(work, session)
            except TransientTransaction:
                if attempt + 1 == TRANSACTION_ATTEMPTS:
                    raise
                await asyncio.sleep(0.01 * 2**attempt)
        raise AssertionError("unreachable")

    async def _transact_once(self, work: Callable[[Any], Awaitable[Result]], given: Any) -> Result:
        async with _translated():
            session = given or await self.open_session()
            try:
                result: Result = await session.with_transaction(
                    work, read_concern=ReadConcern("snapshot"), write_concern=DURABLE, max_commit_time_ms=20_000
                )
                return result
            finally:
                if given is None:
                    await session.end_session()

    async def ensure_collection(self, name: str, validator: Mapping[str, Any] | None = None) -> None:
        """Creates the collection if it is not there, and gives it this validator."""
        async with _guarded(self._slots):
            if name not in await self._database.list_collection_names(filter={"name": name}):
                try:
                    await self._database.create_collection(name)
                except pymongo.errors.CollectionInvalid:
                    pass  # another process was faster
                except pymongo.errors.OperationFailure as error:
                    if error.code != NAMESPACE_EXISTS:
                        raise
            if validator is not None:
                await self._database.command({"collMod": name, "validator": dict(validator), "validationLevel": "strict"})

    async def drop_collection(self, name: str) -> None:
        """Deletes a collection, if it is there."""
        async with _guarded(self._slots):
            await self._database.drop_collection(name)

    async def rename_over(self, name: str, place: str) -> None:
        """Puts a collection in the place of another, which goes, in one step."""
        async with _guarded(self._slots):
            await self._database[name].rename(place, dropTarget=True)

    async def drop_database(self) -> None:
        """Deletes everything. For tests."""
        async with _guarded(self._slots):
            await self._client.drop_database(self._database.name)


class Collection:
    """What Rankloop asks of a collection, on either driver."""

    def __init__(self, inner: Any, slots: asyncio.Semaphore, *, motor_driver: bool) -> None:
        self._inner = inner
        self._slots = slots
        self._motor = motor_driver

    async def find_one(
        self, query: Mapping[str, Any], projection: Mapping[str, Any] | None = None, *, sort: Sort | None = None, session: Any = None
    ) -> Document | None:
        """The first document that matches, or None."""
        async with _guarded(self._slots):
            found: Document | None = await self._inner.find_one(query, projection, sort=sort, session=session)
            return found

    async def find(
        self,
        query: Mapping[str, Any],
        projection: Mapping[str, Any] | None = None,
        *,
        sort: Sort | None = None,
        limit: int,
        hint: Any = None,
        session: Any = None,
    ) -> list[Document]:
        """The documents that match, at most `limit`."""
        async with _guarded(self._slots):
            cursor = self._inner.find(query, projection, sort=sort, limit=limit, batch_size=max(limit, 2), hint=hint, session=session)
            found: list[Document] = await cursor.to_list(limit)
            return found

    async def batches(
        self,
        query: Mapping[str, Any],
        projection: Mapping[str, Any] | None = None,
        *,
        sort: Sort | None = None,
        batch_size: int = 2000,
        hint: Any = None,
        session: Any = None,
    ) -> AsyncGenerator[list[Document], None]:
        """All documents that match, in lists of `batch_size`, at the memory of one of them."""
        cursor = self._inner.find(query, projection, sort=sort, batch_size=batch_size, hint=hint, session=session)
        try:
            while True:
                async with _guarded(self._slots):
                    batch: list[Document] = await cursor.to_list(batch_size)
                if not batch:
                    return
                yield batch
        finally:
            await cursor.close()

    async def aggregate(self, pipeline: Sequence[Mapping[str, Any]], *, limit: int = 100_000, session: Any = None) -> list[Document]:
        """What the pipeline makes, at most `limit` documents."""
        async with _guarded(self._slots):
            started = self._inner.aggregate(list(pipeline), session=session)
            cursor = started if self._motor else await started
            found: list[Document] = await cursor.to_list(limit)
            return found

    async def aggregate_batches(self, pipeline: Sequence[Mapping[str, Any]], *, batch_size: int = 2000) -> AsyncIterator[list[Document]]:
        """What the pipeline makes, in lists of `batch_size`, at the memory of one of them."""
        async with _guarded(self._slots):
            started = self._inner.aggregate(list(pipeline), batchSize=batch_size, allowDiskUse=True)
            cursor = started if self._motor else await started
        try:
            while True:
                async with _guarded(self._slots):
                    batch: list[Document] = await cursor.to_list(batch_size)
                if not batch:
                    return
                yield batch
        finally:
            await cursor.close()

    async def insert_one(self, document: Document, *, session: Any = None) -> None:
        """Stores a document. Raises DuplicateKey if its id is taken."""
        async with _guarded(self._slots):
            await self._inner.insert_one(document, session=session)

    async def insert_many(self, documents: Sequence[Document]) -> frozenset[int]:
        """Stores documents, unordered; returns the indexes of those whose `_id` was there already.

        When it returns, every document is stored on a majority of nodes and journaled, those of the returned indexes by somebody
        before. When it raises, nothing is known of any of them.
        """
        try:
            async with _guarded(self._slots):
                await self._inner.insert_many(documents, ordered=False)
        except _Bulk as error:
            return error.duplicates
        return frozenset()

    async def replace_one(self, query: Mapping[str, Any], document: Document, *, upsert: bool = False, session: Any = None) -> int:
        """Replaces a document; returns how many matched."""
        async with _guarded(self._slots):
            return int((await self._inner.replace_one(query, document, upsert=upsert, session=session)).matched_count)

    async def update_one(self, query: Mapping[str, Any], update: Any, *, upsert: bool = False, session: Any = None) -> int:
        """Updates a document; returns how many matched."""
        async with _guarded(self._slots):
            return int((await self._inner.update_one(query, update, upsert=upsert, session=session)).matched_count)

    async def update_many(self, query: Mapping[str, Any], update: Any, *, session: Any = None) -> int:
        """Updates documents; returns how many matched."""
        async with _guarded(self._slots):
            return int((await self._inner.update_many(query, update, session=session)).matched_count)

    async def find_one_and_update(
        self, query: Mapping[str, Any], update: Any, *, upsert: bool = False, sort: Sort | None = None, session: Any = None
    ) -> Document | None:
        """Updates a document and returns it as it is then."""
        async with _guarded(self._slots):
            found: Document | None = await self._inner.find_one_and_update(
                query, update, upsert=upsert, sort=sort, return_document=pymongo.ReturnDocument.AFTER, session=session
            )
            return found

    async def delete_one(self, query: Mapping[str, Any], *, session: Any = None) -> int:
        """Deletes a document; returns how many went."""
        async with _guarded(self._slots):
            return int((await self._inner.delete_one(query, session=session)).deleted_count)

    async def delete_many(self, query: Mapping[str, Any], *, session: Any = None) -> int:
        """Deletes documents; returns how many went."""
        async with _guarded(self._slots):
            return int((await self._inner.delete_many(query, session=session)).deleted_count)

    async def bulk_write(self, writes: Sequence[Write], *, session: Any = None) -> None:
        """Makes several writes in one go, unordered. Raises DuplicateKey if an insert met its id."""
        if not writes:
            return
        try:
            async with _guarded(self._slots):
                await self._inner.bulk_write(list(writes), ordered=False, session=session)
        except _Bulk as error:
            raise DuplicateKey("an id is taken") from error

    async def count(self, query: Mapping[str, Any], *, limit: int, hint: Any = None) -> int:
        """How many match, counting to `limit` at most."""
        options = {} if hint is None else {"hint": hint}
        async with _guarded(self._slots):
            return int(await self._inner.count_documents(query, limit=limit, **options))

    async def estimated_count(self) -> int:
        """How many there are, roughly and at once."""
        async with _guarded(self._slots):
            return int(await self._inner.estimated_document_count())

    async def ensure_index(self, keys: Sort, *, name: str, unique: bool = False, partial: Mapping[str, Any] | None = None) -> None:
        """Creates an index if it is not there."""
        options: dict[str, Any] = {"name": name, "unique": unique}
        if partial is not None:
            options["partialFilterExpression"] = dict(partial)
        async with _guarded(self._slots):
            await self._inner.create_index(list(keys), **options)

    async def explain(
        self, query: Mapping[str, Any], projection: Mapping[str, Any] | None = None, *, sort: Sort | None = None, hint: Any = None
    ) -> Document:
        """The database's plan for a find. For tests."""
        async with _guarded(self._slots):
            cursor = self._inner.find(query, projection, sort=sort, hint=hint)
            plan: Document = await cursor.explain()
            return plan


class Blobs:
    """Files by id, in GridFS."""

    def __init__(self, bucket: Any, slots: asyncio.Semaphore, files: Collection) -> None:
        self._bucket = bucket
        self._slots = slots
        self._files = files

    async def put(self, blob_id: str, content: bytes) -> None:
        """Stores a file. Raises DuplicateKey if the id is taken."""
        async with _guarded(self._slots):
            try:
                await self._bucket.upload_from_stream_with_id(blob_id, blob_id, content)
            except gridfs.errors.FileExists as error:
                raise DuplicateKey(f"a blob {blob_id} is there already") from error

    async def get(self, blob_id: str) -> bytes | None:
        """The file's content, or None."""
        async with _guarded(self._slots):
            try:
                stream = await self._bucket.open_download_stream(blob_id)
                content: bytes = await stream.read()
                return content
            except gridfs.errors.NoFile:
                return None

    async def exists(self, blob_id: str) -> bool:
        """Whether there is such a file."""
        return await self._files.find_one({"_id": blob_id}, {"_id": 1}) is not None

    async def delete(self, blob_id: str) -> None:
        """Deletes the file, if it is there."""
        async with _guarded(self._slots):
            try:
                await self._bucket.delete(blob_id)
            except gridfs.errors.NoFile:
                pass


async def admin_command(uri: str, command: Mapping[str, Any], *, timeout_seconds: float) -> Document:
    """Runs one command on the `admin` database of exactly the node at `uri`, whatever its state in a replica set.

    Raises:
        Unavailable: the node does not answer in time, or refuses the command; `reason` holds the server's code name then.
    """
    milliseconds = max(1, int(timeout_seconds * 1000))
    client: pymongo.AsyncMongoClient[Document] = pymongo.AsyncMongoClient(
        uri, directConnection=True, serverSelectionTimeoutMS=milliseconds, socketTimeoutMS=milliseconds, connectTimeoutMS=milliseconds
    )
    try:
        return await client.admin.command(dict(command))
    except pymongo.errors.OperationFailure as error:
        details: Any = error.details or {}
        raise Unavailable(
            f"the node refused the command ({details.get('codeName', error.code)})", reason=str(details.get("codeName"))
        ) from error
    except pymongo.errors.PyMongoError as error:
        raise Unavailable("the node does not answer") from error
    finally:
        await client.close()


class _Bulk(Exception):
    """Some inserts met an id that was there, and nothing else went wrong."""

    def __init__(self, duplicates: frozenset[int]) -> None:
        super().__init__()
        self.duplicates = duplicates


def _client(settings: MongoSettings) -> Any:
    kind: Any = motor.motor_asyncio.AsyncIOMotorClient if settings.driver == "motor" else pymongo.AsyncMongoClient
    return kind(
        settings.uri,
        serverSelectionTimeoutMS=int(settings.server_selection_timeout_seconds * 1000),
        socketTimeoutMS=int(settings.socket_timeout_seconds * 1000),
        connectTimeoutMS=int(settings.server_selection_timeout_seconds * 1000),
        maxPoolSize=settings.max_concurrent_operations + 4,
        appname="rankloop",
    )


@asynccontextmanager
async def _guarded(slots: asyncio.Semaphore) -> AsyncIterator[None]:
    """Waits for a place among the operations under way, and translates what goes wrong."""
    async with slots, _translated():
        yield


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except pymongo.errors.BulkWriteError as error:
        raise _from_bulk(error) from error
    except pymongo.errors.DuplicateKeyError as error:
        raise DuplicateKey("an id is taken") from error
    except pymongo.errors.OperationFailure as error:
        if error.code in (13, 18, 8000):
            raise Misconfigured("the MongoDB at mongo.uri refuses access; check the user, the password and authSource") from error
        if error.has_error_label("TransientTransactionError") or error.timeout or _passing(error.code):
            raise _again(error) from error
        raise
    except pymongo.errors.ConfigurationError as error:
        raise Misconfigured(f"mongo.uri cannot be used: {type(error).__name__}") from error
    except pymongo.errors.PyMongoError as error:
        raise _again(error) from error


class TransientTransaction(Unavailable):
    """A transaction met another or lost its node; it may be run again."""


def _again(error: pymongo.errors.PyMongoError) -> Unavailable:
    if error.has_error_label("TransientTransactionError"):
        return TransientTransaction("the database is away or too slow; try again with the same ids")
    return Unavailable("the database is away or too slow; try again with the same ids")


def _passing(code: int | None) -> bool:
    """Whether a server's error code speaks of its state and not of the command.

    NotWritablePrimary, PrimarySteppedDown, InterruptedAtShutdown, InterruptedDueToReplStateChange, ShutdownInProgress,
    NotPrimaryOrSecondary, NotPrimaryNoSecondaryOk, MaxTimeMSExpired, WriteConcernFailed, UnsatisfiableWriteConcern, OutOfDiskSpace,
    ReadConcernMajorityNotAvailableYet, SnapshotUnavailable, WriteConflict, LockTimeout, CursorNotFound, CursorKilled, Interrupted,
    NoSuchTransaction (somebody broke off our session), SnapshotTooOld.
    """
    return code in {10107, 189, 11600, 11602, 91, 13436, 13435, 50, 64, 100, 14031, 134, 246, 112, 24, 43, 237, 11601, 251, 239}


def _from_bulk(error: pymongo.errors.BulkWriteError) -> Exception:
    details: Any = error.details
    write_errors = details.get("writeErrors", [])
    if details.get("writeConcernErrors") or any(
        one["code"] != DUPLICATE_KEY or "_id" not in one.get("keyPattern", {"_id": 1}) for one in write_errors
    ):
        return _again(error)
    return _Bulk(frozenset(one["index"] for one in write_errors))
