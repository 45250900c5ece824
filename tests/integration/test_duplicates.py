"""What was there already is compared with what is sent; what cannot be compared is unknown, never refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from collector.commit import CommitLimits, GroupCommit
from collector.ledger import Ledger
from runtime.errors import Unavailable
from runtime.mongo import Document, Mongo

LIMITS = CommitLimits(capacity_entries=100, capacity_bytes=2**20, write_entries=10, writes_at_once=1)


async def test_an_entry_that_was_there_and_cannot_be_read_is_unknown(mongo_both: Mongo) -> None:
    async def met_it(documents: Sequence[Document]) -> frozenset[int]:
        return frozenset(range(len(documents)))

    commit = GroupCommit("outcomes", met_it, LIMITS)
    ledger = Ledger(mongo_both, commit, commit, commit)
    with pytest.raises(Unavailable):
        await ledger.append("outcomes", [{"_id": "gone", "digest": b"1"}], 10)
