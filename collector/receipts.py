"""What the fold took in, written down until the marks of those entries are gone.

Taking an entry's mark away changes an index, and within a transaction MongoDB 6 asks its catalogue about that index anew for each
document, which costs more than all the rest. So a transaction of the fold writes down what it took, and the marks go afterwards. An entry
is counted when it has no mark or stands on a receipt; it is taken by a transaction only if, in that transaction's snapshot, it has a mark
and stands on none. A receipt goes when a majority of nodes knows that all its marks are gone. Any step may be done again, by anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.mongo import Long, Mongo

KINDS = ("interactions", "slates", "outcomes")


@dataclass(frozen=True, slots=True)
class Receipt:
    """The entries that one transaction took in."""

    revision: int
    """The transaction's number under the fold's lease."""
    taken: Mapping[str, Sequence[str]]
    """Ids by kind."""


class Receipts:
    """Those that have not been settled."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._receipts = mongo.collection("fold_receipts")

    async def outstanding(self, session: Any = None) -> list[Receipt]:
        """All there are: one or two while a fold works, none when it rests."""
        found = await self._receipts.find({}, sort=[("_id", 1)], limit=1_000, session=session)
        return [Receipt(int(one["_id"]), {kind: one[kind] for kind in KINDS}) for one in found]

    async def write(self, receipt: Receipt, session: Any) -> None:
        """Within the transaction that takes the entries in."""
        await self._receipts.insert_one({"_id": Long(receipt.revision), **receipt.taken}, session=session)

    async def settle(self, receipt: Receipt) -> None:
        """Takes the marks away, and then the receipt. The transaction that wrote it has committed."""
        await asyncio.gather(*(self._unmark(kind, ids) for kind, ids in receipt.taken.items() if ids))
        await self._receipts.delete_one({"_id": Long(receipt.revision)})

    async def settle_all(self) -> None:
        """Settles what is outstanding. For whoever has just taken the fold's lease: nobody writes receipts but its holder."""
        while outstanding := await self.outstanding():
            for receipt in outstanding:
                await self.settle(receipt)

    async def _unmark(self, kind: str, ids: Sequence[str]) -> None:
        query = {"_id": {"$in": list(ids)}, "pending": {"$exists": True}}
        await self._mongo.collection(kind).update_many(query, {"$unset": {"pending": ""}})


def taken(receipts: Sequence[Receipt], kind: str) -> list[str]:
    """The ids of a kind that stand on receipts."""
    return [entry_id for receipt in receipts for entry_id in receipt.taken[kind]]
