"""Which models there are, and which one serves.

The bundle is stored before the document that names it, so nobody ever sees half a model. At most one document is champion, which a
unique index holds; promotions and rollbacks change both documents in one transaction, so from the first promotion on there is
exactly one at every moment.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast

from ranker.models.bundle import BadBundle, Bundle
from ranker.models.passport import FeatureGain, Metric, Source
from runtime.errors import Aborted, AlreadyExists, DuplicateKey, FailedPrecondition, NotFound
from runtime.mongo import Document, Mongo

ModelStatus = Literal["candidate", "champion", "retired", "refused"]

MAX_PAGE_SIZE = 1000

MAX_REFUSALS = 64
"""Rankers whose refusals of one model are kept, the latest; of each ranker its last."""

ANY = "*"
"""Whichever model is champion; no model has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalRecord:
    """That a ranker refused a model."""

    ranker: str
    """Where it answers, host:port."""
    reason: str
    """For programs."""
    description: str
    """For people."""
    refuse_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """What the registry knows of a model."""

    model_version: str
    status: ModelStatus
    status_reason: str
    """Why it has this status, in words."""
    create_time: datetime
    """When it was published."""
    promote_time: datetime | None = None
    """When it last became champion."""
    previous: str = ""
    """The champion it replaced when it last became champion by promotion; empty: none."""
    source: Source
    tree_count: int
    feature_names: tuple[str, ...]
    schema_hash: str
    data_start_time: datetime | None = None
    data_end_time: datetime | None = None
    slate_count: int = 0
    row_count: int = 0
    metrics: tuple[Metric, ...] = ()
    """What it measured, beside the champion of its time too."""
    top_features: tuple[FeatureGain, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each file of the bundle, by name."""
    byte_count: int = 0
    """Size of the packed bundle."""
    serve_time: datetime | None = None
    """When a ranker first let it serve; None: none did."""
    refusals: tuple[RefusalRecord, ...] = ()
    """Which rankers cannot serve it, and why; oldest first."""

    @classmethod
    def from_document(cls, document: Document) -> ModelRecord:
        """As stored."""
        return cls(
            model_version=document["_id"],
            status=document["status"],
            status_reason=document.get("status_reason", ""),
            create_time=document["create_time"],
            promote_time=document.get("promote_time"),
            previous=document.get("previous", ""),
            source=cast(Source, document["source"]),
            tree_count=document["tree_count"],
            feature_names=tuple(document["feature_names"]),
            schema_hash=document["schema_hash"],
            data_start_time=document.get("data_start_time"),
            data_end_time=document.get("data_end_time"),
            slate_count=document["slate_count"],
            row_count=document["row_count"],
            metrics=tuple(Metric(**one) for one in document["metrics"]),
            top_features=tuple(FeatureGain(**one) for one in document["top_features"]),
            files=dict(document["files"]),
            byte_count=document["byte_count"],
            serve_time=document.get("serve_time"),
            refusals=tuple(RefusalRecord(**one) for one in document.get("refusals", ())),
        )


class ModelRegistry:
    """The models of a deployment, in MongoDB. Times are arguments: milliseconds are kept of them."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._models = mongo.collection("models")

    async def request_features(self, schema_hash: str) -> frozenset[str]:
        """The request features of a schema that was in force some time; empty: it is not known."""
        found = await self._mongo.collection("feature_schemas").find_one({"_id": schema_hash}, {"request": 1})
        return frozenset((found or {}).get("request", ()))

    async def publish(
        self,
        bundle: Bundle,
        now: datetime,
        *,
        status: Literal["candidate", "refused"] = "candidate",
        reason: str = "",
        metrics: tuple[Metric, ...] | None = None,
    ) -> ModelRecord:
        """Stores a verified bundle under the name in its passport. The very same bundle published again is the one there already.

        `metrics` replace the passport's where more is known by now.

        Raises:
            AlreadyExists: another bundle has that name.
        """
        passport, packed = bundle.passport, bundle.pack()
        # A name of its own per attempt: what a dying publisher leaves behind is never taken for a whole bundle.
        blob_id = f"bundle/{passport.model_version}/{secrets.token_hex(8)}"
        document: Document = {
            "_id": passport.model_version,
            "status": status,
            "status_reason": reason,
            "create_time": now,
            "source": passport.source,
            "tree_count": passport.tree_count,
            "feature_names": list(passport.feature_names),
            "schema_hash": passport.schema_hash,
            "slate_count": passport.slate_count,
            "row_count": passport.row_count,
            "metrics": [one.to_document() for one in (passport.metrics if metrics is None else metrics)],
            "top_features": [{"feature": one.feature, "gain_share": one.gain_share} for one in passport.top_features],
            "files": bundle.sha256,
            "byte_count": len(packed),
            "bundle": blob_id,
        }
        if passport.data_start_time is not None and passport.data_end_time is not None:
            document |= {"data_start_time": passport.data_start_time, "data_end_time": passport.data_end_time}
        await self._mongo.blobs.put(blob_id, packed)
        try:
            await self._models.insert_one(document)
        except DuplicateKey:
            await self._mongo.blobs.delete(blob_id)
            present = await self.get(passport.model_version)
            if dict(present.files) != bundle.sha256:
                raise AlreadyExists(f"there is another model {passport.model_version}; choose another name") from None
            return present
        return ModelRecord.from_document(document)

    async def fetch(self, model_version: str) -> Bundle:
        """The bundle of a model, its files as they were published. Whoever serves it calls `verify` on it.

        Raises:
            NotFound: there is no such model.
            BadBundle: its files are gone or changed.
        """
        document = await self._models.find_one({"_id": model_version}, {"bundle": 1, "files": 1})
        if document is None:
            raise _unknown(model_version)
        packed = await self._mongo.blobs.get(document["bundle"])
        if packed is None:
            raise BadBundle(f"the files of model {model_version} are not there any more")
        # Megabytes are unpacked and hashed here, while a ranker answers calls.
        bundle, hashes = await asyncio.to_thread(_unpacked, packed)
        if hashes != document["files"]:
            raise BadBundle(f"the files of model {model_version} are not those that were published")
        return bundle

    async def get(self, model_version: str) -> ModelRecord:
        """What is known of a model. Raises NotFound."""
        document = await self._models.find_one({"_id": model_version})
        if document is None:
            raise _unknown(model_version)
        return ModelRecord.from_document(document)

    async def champion(self) -> str | None:
        """The version that serves; None: none does."""
        document = await self._models.find_one({"status": "champion"}, {"_id": 1})
        return None if document is None else str(document["_id"])

    async def list(self, page_size: int = 100, before: tuple[datetime, str] | None = None) -> list[ModelRecord]:
        """Models, newest first, at most `page_size`. For the next page, `before` is (create_time, model_version) of the last one."""
        query: dict[str, Any] = {}
        if before is not None:
            moment, version = before
            query = {"$or": [{"create_time": {"$lt": moment}}, {"create_time": moment, "_id": {"$lt": version}}]}
        found = await self._models.find(query, sort=[("create_time", -1), ("_id", -1)], limit=min(max(page_size, 1), MAX_PAGE_SIZE))
        return [ModelRecord.from_document(document) for document in found]

    async def promote(
        self, model_version: str, now: datetime, *, reason: str = "promoted by request", replacing: str | None = ANY
    ) -> ModelRecord:
        """Makes a model the champion, in one step. The champion itself promoted again stays as it is.

        `replacing` names the champion that the caller means to replace (None: there is none, ANY: whichever it is).

        Raises:
            NotFound: there is no such model.
            FailedPrecondition: it was refused.
            Aborted: another model than `replacing` is champion, or somebody promoted at the same moment.
        """

        async def work(session: Any) -> None:
            target = await self._models.find_one({"_id": model_version}, session=session)
            if target is None:
                raise _unknown(model_version)
            if target["status"] == "refused":
                raise FailedPrecondition(f"model {model_version} was refused: {target.get('status_reason', '')}", reason="MODEL_REFUSED")
            champion = await self._models.find_one({"status": "champion"}, {"_id": 1}, session=session)
            present = None if champion is None else str(champion["_id"])
            if replacing not in (ANY, present):
                raise Aborted(f"the champion is {present or 'nobody'} by now, not {replacing or 'nobody'}", reason="CHAMPION_CHANGED")
            if present != model_version:
                await self._swap(model_version, present, now, reason=reason, previous=present or "", session=session)

        await self._transact(work)
        return await self.get(model_version)

    async def rollback(self, now: datetime, *, expected: str | None = None) -> ModelRecord:
        """Makes the champion before the present one the champion again; one that was refused since is passed over.

        The restored champion keeps what it had replaced itself, so a second rollback goes one further back.

        Raises:
            FailedPrecondition: nothing serves, or nothing served before.
            Aborted: the champion is not `expected` by now.
        """

        async def work(session: Any) -> str:
            champion = await self._models.find_one({"status": "champion"}, {"previous": 1}, session=session)
            if champion is None:
                raise FailedPrecondition("no model serves, so there is none to leave", reason="NO_CHAMPION")
            present = str(champion["_id"])
            if expected and present != expected:
                raise Aborted(f"the champion is {present} by now, not {expected}", reason="CHAMPION_CHANGED")
            passed = {present}
            earlier: str = champion.get("previous", "")
            while earlier and earlier not in passed:
                passed.add(earlier)
                target = await self._models.find_one({"_id": earlier}, {"status": 1, "previous": 1}, session=session)
                if target is not None and target["status"] != "refused":
                    await self._swap(earlier, present, now, reason=f"rolled back from {present}", previous=None, session=session)
                    return earlier
                earlier = "" if target is None else target.get("previous", "")
            raise FailedPrecondition(f"no model served before {present}; promote another instead", reason="NO_PREVIOUS_CHAMPION")

        return await self.get(await self._transact(work))

    async def refuse(self, model_version: str, reason: str) -> ModelRecord:
        """Keeps a model from serving, and says why.

        Raises:
            NotFound: there is no such model.
            FailedPrecondition: it is the champion; promote another, or roll back, first.
        """
        changed = await self._models.update_one(
            {"_id": model_version, "status": {"$ne": "champion"}}, {"$set": {"status": "refused", "status_reason": reason}}
        )
        record = await self.get(model_version)
        if not changed:
            raise FailedPrecondition(f"model {model_version} serves; promote another or roll back first", reason="MODEL_SERVES")
        return record

    async def note_refusal(self, model_version: str, *, ranker: str, reason: str, description: str, now: datetime) -> None:
        """Writes down that a ranker cannot serve a model, in the place of what it said of it before. Its status stays."""
        said: Document = {"ranker": ranker, "reason": reason, "description": description, "refuse_time": now}
        await self._models.update_one({"_id": model_version}, {"$pull": {"refusals": {"ranker": ranker}}})
        await self._models.update_one({"_id": model_version}, {"$push": {"refusals": {"$each": [said], "$slice": -MAX_REFUSALS}}})

    async def note_serving(self, model_version: str, *, ranker: str, now: datetime) -> None:
        """Writes down that a ranker serves a model, and forgets that it refused it before."""
        await self._models.update_one({"_id": model_version}, {"$min": {"serve_time": now}, "$pull": {"refusals": {"ranker": ranker}}})

    async def explain_champion(self, model_version: str, reason: str) -> bool:
        """Gives the champion another reason; False if it is not the champion. Which model is champion is not for one ranker to say."""
        changed = await self._models.update_one({"_id": model_version, "status": "champion"}, {"$set": {"status_reason": reason}})
        return bool(changed)

    async def _transact(self, work: Any) -> Any:
        try:
            return await self._mongo.transact(work)
        except DuplicateKey as error:
            # Two first promotions met: each saw no champion, and the unique index let one of them in.
            raise Aborted("another model became champion at the same moment; look, and try again", reason="CHAMPION_CHANGED") from error

    async def _swap(self, target: str, present: str | None, now: datetime, *, reason: str, previous: str | None, session: Any) -> None:
        # The old one goes first: the unique index never sees two.
        if present is not None:
            await self._models.update_one(
                {"_id": present}, {"$set": {"status": "retired", "status_reason": f"replaced by {target}: {reason}"}}, session=session
            )
        changes: dict[str, Any] = {"status": "champion", "status_reason": reason, "promote_time": now}
        if previous is not None:
            changes["previous"] = previous
        await self._models.update_one({"_id": target}, {"$set": changes}, session=session)


def _unpacked(packed: bytes) -> tuple[Bundle, Mapping[str, str]]:
    bundle = Bundle.unpack(packed)
    return bundle, bundle.sha256


def _unknown(model_version: str) -> NotFound:
    return NotFound(f"there is no model {model_version}", reason="MODEL_NOT_FOUND")
