"""Deriving everything anew from the ledger: to take the place of what there is, or to be compared with it.

While that goes on the fold rests (this holds its lease), entries wait with their pending marks, and statistics answer from what there
is. What is derived lies beside the old under other names; nothing changes before it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from collector.attribution import Attribution
from collector.batch import Batch, ImpressionId, fold, touched
from collector.derived import INTERACTION_COLUMNS, SLATE_COLUMNS, Derived
from collector.labels import Combination
from collector.receipts import Receipts
from collector.retention import cut_of
from runtime.ending import end
from runtime.errors import Aborted, Unavailable
from runtime.lease import Lease
from runtime.mongo import Document, Mongo
from runtime.schema import create_beside

FOLDED = {"pending": {"$exists": False}}
SLATES_AT_ONCE = 200
ENTRIES_AT_ONCE = 2_000
MOST_EXAMPLES = 20
DERIVED = ("attributions", "tallies")
ABSENT: Document = {}


class Progress(Protocol):
    """Whom to tell how far the work is."""

    def step(self, description: str, total: int | None = None) -> None:
        """A new step begins; `total` is its size where that is known."""

    def advance(self, count: int) -> None:
        """So much more of the step is done."""


@dataclass(slots=True)
class Difference:
    """Where what is derived and a recount of the ledger disagree."""

    collection: str
    identity: Any
    counter: str
    kept: Any
    counted: Any

    def __str__(self) -> str:
        return f"{self.collection} {self.identity}: {self.counter} is {self.kept}, the ledger says {self.counted}"


@dataclass(slots=True)
class Recount:
    """What a comparison found."""

    compared: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DERIVED, 0))
    """Documents compared, by collection."""
    differing: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DERIVED, 0))
    """Documents that differ, by collection."""
    examples: list[Difference] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not any(self.differing.values())


async def rebuild(mongo: Mongo, lease: Lease, rule: Combination, progress: Progress) -> None:
    """Derives attributions and tallies anew and puts them in the place of the old. Broken off at any line, the old ones stand.

    Has servers make the digests of experiments anew, too.

    Raises:
        Aborted: the lease could not be had, or was lost.
    """
    async with resting_fold(lease):
        await _derive(mongo, lease, rule, progress, suffix="_next")
        if not await lease.claim():
            raise Aborted("the fold's lease was lost; run the rebuild again", reason="LEASE_LOST")
        progress.step("switching over")
        for name in DERIVED:
            await mongo.rename_over(f"{name}_next", name)
        # What experiments are read out from goes by attributions; a digest that stands may know of users whom retention has taken.
        await mongo.collection("digests").update_many({"state": {"$ne": "standing"}}, {"$set": {"state": "stale"}})


async def recount(mongo: Mongo, lease: Lease, rule: Combination, progress: Progress) -> Recount:
    """Derives everything beside what there is, and says where the two differ. Changes nothing that anybody reads.

    Raises:
        Aborted: the lease could not be had.
    """
    async with resting_fold(lease):
        await _derive(mongo, lease, rule, progress, suffix="_recount")
        found = Recount()
        for name in DERIVED:
            progress.step(f"comparing {name}", await mongo.collection(name).estimated_count())
            await _compare(mongo, name, found, progress)
        for name in DERIVED:
            await mongo.drop_collection(f"{name}_recount")
        return found


@asynccontextmanager
async def resting_fold(lease: Lease) -> AsyncIterator[None]:
    """Holds the fold's lease: no worker folds meanwhile.

    Raises:
        Aborted: a worker would not let go of it.
    """
    deadline = asyncio.get_running_loop().time() + 4 * lease.seconds
    await lease.ask()
    while not await lease.claim():
        if asyncio.get_running_loop().time() > deadline:
            raise Aborted("a fold worker holds its lease and does not let go; is it hanging? Stop it and try again", reason="LEASE_HELD")
        await asyncio.sleep(lease.seconds / 20)

    async def renew() -> None:
        while True:
            await asyncio.sleep(lease.seconds / 4)
            with contextlib.suppress(Unavailable):
                await lease.claim()

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        # Only when nobody renews any more: it would be taken anew, and kept.
        await end(renewing)
        await lease.release()


async def _derive(mongo: Mongo, lease: Lease, rule: Combination, progress: Progress, *, suffix: str) -> None:
    """Fills the derived collections of that suffix from the ledger's folded entries.

    Days of which the ledger has lost entries to retention cannot be derived any more: what is known of them is carried over.
    """
    for name in DERIVED:
        await mongo.drop_collection(f"{name}{suffix}")
        await create_beside(mongo, name, suffix)
    derived = Derived(mongo, rule, suffix=suffix)
    # Whoever folded before has counted what it has receipts for: without their marks gone, they would count once more.
    await Receipts(mongo).settle_all()
    revision = await lease.next_revision(None)
    cut = await cut_of(mongo)
    if cut is not None:
        await _carry_over(mongo, derived, cut, suffix, progress)

    async def store(batch: Batch) -> None:
        folded = fold(batch, rule)
        if cut is not None:
            folded.tallies = {tally: counters for tally, counters in folded.tallies.items() if tally.day >= cut}
        await derived.write(derived.writes(folded, revision), None)

    progress.step("slates", await mongo.collection("slates").estimated_count())
    async for slates in mongo.collection("slates").batches(FOLDED, SLATE_COLUMNS, batch_size=SLATES_AT_ONCE):
        await store(_batch(slates=[slate for slate in slates if cut is None or slate["show_time"] >= cut]))
        progress.advance(len(slates))
    for kind in ("interactions", "outcomes"):
        progress.step(kind, await mongo.collection(kind).estimated_count())
        columns = INTERACTION_COLUMNS if kind == "interactions" else None
        async for found in mongo.collection(kind).batches(FOLDED, columns, batch_size=ENTRIES_AT_ONCE):
            slates_of = await derived.folded_slates({entry["ranking_id"] for entry in found if entry.get("ranking_id")}, None)
            entries = found if cut is None else [_loosened(entry, slates_of, cut) for entry in found]
            if kind == "interactions":
                known = await derived.attributions(touched(entries), None)
                await store(_batch(interactions=entries, folded_slates=slates_of, attributions=known))
            else:
                await store(_batch(outcomes=entries, folded_slates=slates_of))
            progress.advance(len(found))


async def _carry_over(mongo: Mongo, derived: Derived, cut: datetime, suffix: str, progress: Progress) -> None:
    """Copies tallies of days before the cut, and attributions of slates that were not shown since."""
    progress.step("carrying over what retention has taken from the ledger")
    async for tallies in mongo.collection("tallies").batches({"_id.start": {"$lt": cut}}):
        await mongo.collection(f"tallies{suffix}").insert_many(tallies)
        progress.advance(len(tallies))
    async for attributions in mongo.collection("attributions").batches({}):
        slates_of = await derived.folded_slates({one["ranking_id"] for one in attributions}, None)
        old = [one for one in attributions if not _shown_since(one["ranking_id"], slates_of, cut)]
        if old:
            await mongo.collection(f"attributions{suffix}").insert_many(old)
        progress.advance(len(old))


def _shown_since(ranking_id: str, slates_of: Mapping[str, Document], cut: datetime) -> bool:
    return ranking_id in slates_of and slates_of[ranking_id]["show_time"] >= cut


def _loosened(entry: Document, slates_of: Mapping[str, Document], cut: datetime) -> Document:
    """The entry; without its slate, if what became of that slate is carried over."""
    if _shown_since(entry.get("ranking_id", ""), slates_of, cut):
        return entry
    return {name: value for name, value in entry.items() if name != "ranking_id"}


def _batch(
    *,
    interactions: Sequence[Document] = (),
    slates: Sequence[Document] = (),
    outcomes: Sequence[Document] = (),
    folded_slates: Mapping[str, Document] | None = None,
    attributions: Mapping[ImpressionId, Attribution] | None = None,
) -> Batch:
    return Batch(
        interactions=interactions,
        slates=slates,
        outcomes=outcomes,
        folded_slates=folded_slates or {},
        folded_outcomes=(),
        attributions=attributions or {},
    )


async def _compare(mongo: Mongo, name: str, found: Recount, progress: Progress) -> None:
    """Each document there is with its recount, then those that only the recount has."""
    kept, counted = mongo.collection(name), mongo.collection(f"{name}_recount")
    async for batch in kept.batches({}):
        ids = [one["_id"] for one in batch]
        recounted = {str(one["_id"]): one for one in await counted.find({"_id": {"$in": ids}}, limit=len(ids))}
        for one in batch:
            _note(found, name, one["_id"], one, recounted.get(str(one["_id"]), ABSENT))
        found.compared[name] += len(batch)
        progress.advance(len(batch))
    async for batch in counted.batches({}):
        ids = [one["_id"] for one in batch]
        there = {str(one["_id"]) for one in await kept.find({"_id": {"$in": ids}}, {"_id": 1}, limit=len(ids))}
        for one in batch:
            if str(one["_id"]) not in there:
                _note(found, name, one["_id"], ABSENT, one)


def _note(found: Recount, name: str, identity: Any, kept: Document, counted: Document) -> None:
    kept_values, counted_values = _values(kept), _values(counted)
    differing = sorted(key for key in kept_values.keys() | counted_values.keys() if kept_values.get(key) != counted_values.get(key))
    if differing:
        found.differing[name] += 1
        for key in differing[: MOST_EXAMPLES - len(found.examples)]:
            found.examples.append(Difference(name, identity, key, kept_values.get(key), counted_values.get(key)))


def _values(document: Document) -> dict[str, Any]:
    """What is compared: everything but the revision, flat; a counter of 0 is as good as none."""
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name == "day":
            values |= {f"day.{counter}": count for counter, count in value.items() if count}
        elif name == "hours":
            values |= {f"hours.{hour}.{counter}": count for hour, counters in value.items() for counter, count in counters.items() if count}
        elif name not in ("_id", "revision"):
            values[name] = value
    return values
