"""The ledger: the append-only record of interactions, slates and outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from prometheus_client import Counter

from collector.commit import CommitLimits, GroupCommit
from runtime.errors import Unavailable
from runtime.mongo import Document, Mongo

ENTRIES = Counter("rankloop_ledger_entries", "Entries that reached the ledger, by what became of them.", ["kind", "fate"])


class Fate(Enum):
    """What became of an entry."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """The same entry was there."""
    CONFLICT = "conflict"
    """Another entry was there under its id; this one was not stored."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Appends; never changes what it holds."""

    mongo: Mongo
    interactions: GroupCommit
    slates: GroupCommit
    outcomes: GroupCommit

    @classmethod
    def open(cls, mongo: Mongo, limits: CommitLimits) -> Ledger:
        """The ledger of a database."""

        def commit(kind: str) -> GroupCommit:
            return GroupCommit(kind, mongo.collection(kind).insert_many, limits)

        return cls(mongo, commit("interactions"), commit("slates"), commit("outcomes"))

    async def append(self, kind: str, documents: Sequence[Document], byte_count: int) -> list[Fate]:
        """Stores entries durably; returns what became of each.

        When it returns, every accepted and every duplicate entry is on a majority of nodes, journaled.

        Raises:
            Overloaded: too much waits.
            Unavailable: nothing is known of the entries; the same ones may be sent again.
        """
        commit: GroupCommit = getattr(self, kind)
        existed = await commit.append(documents, byte_count)
        fates = [Fate.ACCEPTED] * len(documents)
        if existed:
            query = {"_id": {"$in": [documents[index]["_id"] for index in existed]}}
            found = await self.mongo.collection(kind).find(query, {"digest": 1}, limit=len(existed))
            digests = {document["_id"]: document.get("digest") for document in found}
            for index in existed:
                document = documents[index]
                if document["_id"] not in digests:
                    # A primary that was just elected may not show yet what a majority keeps; or it was erased a moment ago.
                    raise Unavailable("an entry that was there cannot be read; try again with the same ids")
                same = digests[document["_id"]] == document["digest"]
                fates[index] = Fate.DUPLICATE if same else Fate.CONFLICT
        for fate in Fate:
            if count := fates.count(fate):
                ENTRIES.labels(kind, fate.value).inc(count)
        return fates

    async def wait_idle(self) -> None:
        """Returns when nothing waits to be written."""
        await asyncio.gather(self.interactions.wait_idle(), self.slates.wait_idle(), self.outcomes.wait_idle())
