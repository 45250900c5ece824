"""The accept path: entries are checked, labelled, appended, and what is refused is kept in quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from collector.entries import interaction_document, names_hash, outcome_document, session_document, session_message, slate_document
from collector.intake import IntakeCounts
from collector.labels import LabelPolicy
from collector.ledger import Fate, Ledger
from collector.quarantine import Quarantine, Refused
from collector.validation import (
    Faults,
    check_count,
    interaction_faults,
    outcome_faults,
    page_faults,
    session_faults,
    slate_faults,
)
from rankloop.v1.tracking_pb2 import EndSessionRequest, Interaction, Outcome, Rejection, Session, Slate
from runtime.errors import DuplicateKey, FailedPrecondition, InvalidInput, NotFound, Violation
from runtime.mongo import Document, Mongo, UpdateOne
from runtime.timestamps import at_millisecond, to_datetime

Clock = Callable[[], datetime]

LOOKUP_ITEMS = 10_000
"""Items asked for at once: a query, too, is a document of 16 MiB at most."""


@dataclass(slots=True)
class Receipt:
    """What became of the entries of a call."""

    accepted_count: int = 0
    duplicate_count: int = 0
    rejected: list[Rejection] = field(default_factory=list)


@dataclass(slots=True)
class _Sorted:
    """The entries of a call: those to store, with their places in the call, and those refused."""

    documents: list[Document] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    faults: dict[int, Sequence[Violation]] = field(default_factory=dict)


class Tracking:
    """Takes in what happened."""

    def __init__(
        self,
        mongo: Mongo,
        ledger: Ledger,
        quarantine: Quarantine,
        policy: LabelPolicy,
        clock: Clock,
        *,
        tell: Callable[[Iterable[str]], None] = lambda user_ids: None,
    ) -> None:
        """`tell` hears of the users whose interactions are in the ledger now."""
        self._tell = tell
        self._mongo = mongo
        self._ledger = ledger
        self._quarantine = quarantine
        self._policy = policy
        self._clock = clock
        self._known_columns: set[str] = set()
        self.intake = IntakeCounts(mongo)
        """What arrived; whoever runs this runs it too."""

    async def track(self, entries: Sequence[Interaction]) -> Receipt:
        """Records interactions.

        Raises:
            InvalidInput: there are none, or more than 1,000.
            Overloaded, Unavailable: see `Ledger.append`.
        """
        check_count("interactions", len(entries))
        now, rules = self._now(), self._policy.rules
        found = _Sorted()
        for place, entry in enumerate(entries):
            faults = interaction_faults(entry, f"interactions[{place}].", self._policy, now)
            if faults:
                found.faults[place] = faults
            else:
                found.documents.append(interaction_document(entry, rules[entry.type], now))
                found.places.append(place)
        receipt = await self._append("interactions", entries, lambda entry: entry.event_id, "event_id", found, now)
        self._tell({entries[place].user_id for place in found.places})
        return receipt

    async def record_slates(self, entries: Sequence[Slate]) -> Receipt:
        """Records slates that were ranked elsewhere. Raises as `track`."""
        check_count("slates", len(entries))
        now = self._now()
        faults = {place: faults for place, entry in enumerate(entries) if (faults := slate_faults(entry, f"slates[{place}].", now))}
        sound = [place for place in range(len(entries)) if place not in faults]
        item_types = await self._item_types(entries[place] for place in sound)
        found = _Sorted(places=sound, faults=dict(faults))
        for place in sound:
            document, columns = slate_document(entries[place], item_types, now)
            if columns:
                document["schema_hash"] = await self._columns_id(columns)
            found.documents.append(document)
        return await self._append("slates", entries, lambda entry: entry.ranking_id, "ranking_id", found, now)

    async def record_outcomes(self, entries: Sequence[Outcome]) -> Receipt:
        """Records outcomes. Raises as `track`."""
        check_count("outcomes", len(entries))
        now = self._now()
        found = _Sorted()
        for place, entry in enumerate(entries):
            faults = outcome_faults(entry, f"outcomes[{place}].", now)
            if faults:
                found.faults[place] = faults
            else:
                found.documents.append(outcome_document(entry, now))
                found.places.append(place)
        return await self._append("outcomes", entries, lambda entry: entry.event_id, "event_id", found, now)

    async def start_session(self, entry: Session) -> Session:
        """Records that a session began; started twice, it stays as it was.

        Raises:
            InvalidInput: the session is wrong.
            FailedPrecondition: the id belongs to another session.
        """
        now = self._now()
        if faults := session_faults(entry, "session.", now):
            raise InvalidInput(faults)
        sessions = self._mongo.collection("sessions")
        document = session_document(entry, now)
        try:
            await sessions.insert_one(document)
        except DuplicateKey:
            stored = await sessions.find_one({"_id": entry.session_id})
            if stored is None or stored["digest"] != document["digest"]:
                raise FailedPrecondition("a session with this id was started with other content; choose another id") from None
            document = stored
        return session_message(document)

    async def end_session(self, request: EndSessionRequest) -> Session:
        """Records that a session ended; ended twice, the first end stays.

        Raises:
            InvalidInput: the request is wrong, or the end lies before the start.
            NotFound: it was never started.
        """
        now = self._now()
        faults = Faults("")
        faults.id("session_id", request.session_id, required=True)
        if request.HasField("end_time"):
            faults.time("end_time", request.end_time, now)
        page_faults(faults, request.pages)
        if faults.found:
            raise InvalidInput(faults.found)
        sessions = self._mongo.collection("sessions")
        stored = await sessions.find_one({"_id": request.session_id})
        if stored is None:
            raise NotFound(f"there is no session {request.session_id!r}; start it first")
        end_time = to_datetime(request.end_time) if request.HasField("end_time") else now
        if end_time < stored["start_time"]:
            raise InvalidInput.of("end_time", "OUT_OF_RANGE", f"lies before the session's start, {stored['start_time'].isoformat()}")
        ended = await sessions.find_one_and_update(
            {"_id": request.session_id, "end_time": {"$exists": False}},
            {"$set": {"end_time": end_time}, "$push": {"pages": {"$each": list(request.pages)}}},
        )
        return session_message(ended or await sessions.find_one({"_id": request.session_id}) or stored)

    async def wait_idle(self) -> None:
        """Returns when nothing waits to be written."""
        await self._ledger.wait_idle()

    async def _append(
        self, kind: str, entries: Sequence[Any], id_of: Callable[[Any], str], id_field: str, found: _Sorted, now: datetime
    ) -> Receipt:
        byte_count = sum(entries[place].ByteSize() for place in found.places)
        fates = await self._ledger.append(kind, found.documents, byte_count) if found.documents else []
        receipt, repeated = Receipt(), list[str]()
        for place, fate in zip(found.places, fates, strict=True):
            if fate is Fate.ACCEPTED:
                receipt.accepted_count += 1
            elif fate is Fate.DUPLICATE:
                repeated.append(id_of(entries[place]))
            else:
                path = f"{kind}[{place}].{id_field}"
                description = "was stored before with other content, which stands; send what is new under a new id"
                found.faults[place] = [Violation(field=path, reason="CONFLICT", description=description)]
        receipt.duplicate_count = len(repeated)
        self.intake.add(kind, receipt.accepted_count, repeated, now)
        if found.faults:
            refused = [Refused(kind, id_of(entries[place]), entries[place], faults) for place, faults in sorted(found.faults.items())]
            await self._quarantine.keep(refused, now)
            receipt.rejected = [rejection(place, id_of(entries[place]), faults) for place, faults in sorted(found.faults.items())]
        return receipt

    async def _item_types(self, slates: Iterable[Slate]) -> dict[str, str]:
        """What the catalogue says of items whose type the caller left out."""
        missing = sorted({item.item_id for slate in slates for item in slate.items if not item.item_type})
        types: dict[str, str] = {}
        for start in range(0, len(missing), LOOKUP_ITEMS):
            asked = missing[start : start + LOOKUP_ITEMS]
            query = {"_id": {"$in": asked}, "deleted": {"$exists": False}}
            found = await self._mongo.collection("items").find(query, {"item_type": 1}, limit=len(asked))
            types.update((document["_id"], document.get("item_type", "")) for document in found)
        return types

    async def _columns_id(self, names: tuple[str, ...]) -> str:
        """The id under which these feature columns are known; makes them known."""
        columns_id = names_hash(names)
        if columns_id not in self._known_columns:
            update = UpdateOne({"_id": columns_id}, {"$setOnInsert": {"names": list(names)}}, upsert=True)
            await self._mongo.collection("feature_schemas").bulk_write([update])
            if len(self._known_columns) < 1000:
                self._known_columns.add(columns_id)
        return columns_id

    def _now(self) -> datetime:
        return at_millisecond(self._clock())


def rejection(place: int, entry_id: str, faults: Sequence[Violation]) -> Rejection:
    """One entry's refusal: its first fault by name, the others in words."""
    first, *others = faults
    more = "".join(f"; also {other.field}: {other.description}" for other in others[:10])
    shown_id = entry_id.encode()[:256].decode(errors="ignore")
    return Rejection(index=place, event_id=shown_id, reason=first.reason, field=first.field, description=f"{first.description}{more}")


def utc_now() -> datetime:
    """The time, at the edge of the process."""
    return datetime.now(UTC)
