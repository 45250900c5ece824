"""Digests as the database keeps them: how far each goes, and its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Any

from runtime.mongo import Document, InsertOne, Long, Mongo
from server.experiments.block import Block, newest
from server.experiments.rows import Outline

PART_BYTES = 6 * 2**20
"""Of a part, about; MongoDB takes no document above 16 MiB."""
ROWS_AT_ONCE = 20_000
"""Read together, of as many slices as that takes."""
RUNS = 8
"""Of a slice; when there are more, the newest are merged."""


class State(StrEnum):
    """What a digest may be."""

    STALE = "stale"
    """To be made anew: what it was made of is (`collector.rebuild`)."""
    BUILDING = "building"
    """Being made by a full pass."""
    WHOLE = "whole"
    """Of everybody; kept up to date."""
    STANDING = "standing"
    """Of an experiment that ended long ago; it stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """How far an experiment's digest goes."""

    experiment_id: str
    state: State
    fingerprint: str
    """Of the outline its rows were made by."""
    starts: Sequence[datetime]
    """When each of the weights began to hold, as far as its rows know."""
    mark: int
    """Revision of the fold up to which touched users have been taken in."""
    as_of: datetime
    """No row is of a later moment."""
    complete_time: datetime
    """Everything acknowledged before is in it."""
    first_time: datetime | None = None
    """Of the first slate that a user was shown."""
    position: str = ""
    """While it is built: everybody up to this user is in it."""

    def fits(self, outline: Outline, stop_time: datetime | None) -> bool:
        """Whether its rows are what the experiment's would be now: nothing changed that had begun when they were made."""
        return (
            self.fingerprint == outline.fingerprint
            and list(self.starts) == list(outline.starts[: len(self.starts)])
            and all(start >= self.as_of for start in outline.starts[len(self.starts) :])
            and (stop_time is None or self.as_of <= stop_time)
        )

    def with_first(self, moments: Iterable[datetime]) -> Digest:
        """The digest, of users who were first shown something at these times as well."""
        known = [] if self.first_time is None else [self.first_time]
        return replace(self, first_time=min([*known, *moments], default=None))


class Digests:
    """Of all experiments."""

    def __init__(self, mongo: Mongo) -> None:
        self._digests = mongo.collection("digests")
        self._parts = mongo.collection("digest_parts")

    async def get(self, experiment_id: str, session: Any = None) -> Digest | None:
        """One."""
        found = await self._digests.find_one({"_id": experiment_id}, session=session)
        return None if found is None else _digest_in(found)

    async def unfinished(self) -> dict[str, Digest]:
        """All but those that stand, by experiment."""
        found = await self._digests.find({"state": {"$ne": State.STANDING.value}}, limit=10_000)
        return {one["_id"]: _digest_in(one) for one in found}

    async def put(self, digest: Digest, session: Any) -> None:
        """Within a transaction."""
        document = {
            "_id": digest.experiment_id,
            "state": digest.state.value,
            "fingerprint": digest.fingerprint,
            "starts": list(digest.starts),
            "mark": Long(digest.mark),
            "as_of": digest.as_of,
            "complete_time": digest.complete_time,
            "first_time": digest.first_time,
            "position": digest.position,
        }
        await self._digests.replace_one({"_id": digest.experiment_id}, document, upsert=True, session=session)

    async def empty(self, experiment_id: str, session: Any) -> None:
        """Takes all its rows away, within a transaction."""
        await self._parts.delete_many({"experiment": experiment_id}, session=session)

    async def append(self, experiment_id: str, sequence: int, slices: Mapping[int, Block], session: Any) -> None:
        """Writes rows that are newer than all there are, within a transaction."""
        await self._parts.bulk_write(
            [
                InsertOne(_part_document(experiment_id, number, sequence, place, part))
                for number, block in slices.items()
                for place, part in enumerate(block.parts(rows_of_part(block)))
            ],
            session=session,
        )

    async def runs(self, experiment_id: str, session: Any = None) -> dict[int, list[tuple[int, int]]]:
        """By slice in order, what was written at a time: its sequence and number of rows, oldest first."""
        sort = [("slice", 1), ("sequence", 1), ("place", 1)]
        # From the index alone: a part is megabytes.
        columns = {"_id": 0, "slice": 1, "sequence": 1, "row_count": 1}
        query = {"experiment": experiment_id}
        found = await self._parts.find(query, columns, sort=sort, limit=1_000_000, hint="order", session=session)
        runs: dict[int, list[tuple[int, int]]] = {}
        for (number, sequence), parts in groupby(found, key=lambda one: (one["slice"], one["sequence"])):
            runs.setdefault(number, []).append((int(sequence), sum(part["row_count"] for part in parts)))
        return runs

    async def slice(self, outline: Outline, experiment_id: str, number: int, first_sequence: int) -> Block:
        """The users of a slice, of what was written since, each as in its newest row."""
        query = {"experiment": experiment_id, "slice": number, "sequence": {"$gte": Long(first_sequence)}}
        found = await self._parts.find(query, sort=[("sequence", 1), ("place", 1)], limit=100_000, hint="order")
        return await asyncio.to_thread(_together, outline, found)

    async def replace_since(self, experiment_id: str, number: int, first_sequence: int, sequence: int, block: Block, session: Any) -> None:
        """Puts one run in the place of all that were written to a slice since, within a transaction."""
        query = {"experiment": experiment_id, "slice": number, "sequence": {"$gte": Long(first_sequence)}}
        await self._parts.delete_many(query, session=session)
        await self.append(experiment_id, sequence, {number: block}, session)

    async def slices(self, outline: Outline, experiment_id: str, session: Any, *, changes: bool) -> AsyncIterator[tuple[range, Block]]:
        """Some slices after the other, the users in them, each as in the newest row; without `changes` on demand.

        At the memory of ROWS_AT_ONCE users, or of a slice where that has more. All is read within one snapshot's `session`.
        """
        sort = [("slice", 1), ("sequence", 1), ("place", 1)]
        for numbers in together(
            {number: sum(rows for _, rows in runs) for number, runs in (await self.runs(experiment_id, session)).items()}
        ):
            query = {"experiment": experiment_id, "slice": {"$gte": numbers[0], "$lte": numbers[-1]}}
            columns = None if changes else {"changes": 0}
            found = await self._parts.find(query, columns, sort=sort, limit=100_000, hint="order", session=session)
            yield numbers, await asyncio.to_thread(_together, outline, found)


def together(row_counts: Mapping[int, int]) -> list[range]:
    """Which slices to read together, of slices in order with their numbers of rows."""
    groups: list[range] = []
    rows = 0
    for number, count in row_counts.items():
        if groups and rows + count <= ROWS_AT_ONCE:
            groups[-1], rows = range(groups[-1].start, number + 1), rows + count
        else:
            groups.append(range(number, number + 1))
            rows = count
    return groups


def rows_of_part(block: Block) -> int:
    """How many of a block's users a part takes."""
    changes = (block.change_rows, block.change_days, block.change_exposures, block.change_values)
    size = sum(one.nbytes for one in (block.users, block.groups, block.periods, block.mixed, block.exposures, block.values, *changes))
    return max(1, PART_BYTES * max(1, len(block)) // max(1, size))


def merged_runs(row_counts: Sequence[int]) -> int:
    """How many of the newest runs of a slice to merge into one; 0: none.

    A run is merged with newer ones once those hold half as much as it does. So runs grow as they get older, a slice has few of them, and a
    row is written again as often as the logarithm of their number (the size-tiered merging of log-structured stores).
    """
    if len(row_counts) <= RUNS:
        return 0
    count, total = 1, row_counts[-1]
    while count < len(row_counts) and (count < 2 or row_counts[-count - 1] <= 2 * total):
        count += 1
        total += row_counts[-count]
    return count


def _together(outline: Outline, parts: Sequence[Document]) -> Block:
    return newest(outline, [Block.from_document(outline, part) for part in parts])


def _part_document(experiment_id: str, number: int, sequence: int, place: int, part: Block) -> Document:
    where = {"experiment": experiment_id, "slice": number, "sequence": Long(sequence), "place": place}
    return {"_id": f"{experiment_id}/{number}/{sequence}/{place}", **where, **part.to_document()}


def _digest_in(document: Document) -> Digest:
    return Digest(
        experiment_id=document["_id"],
        state=State(document["state"]),
        fingerprint=document["fingerprint"],
        starts=document["starts"],
        mark=int(document["mark"]),
        as_of=document["as_of"],
        complete_time=document["complete_time"],
        first_time=document["first_time"],
        position=document["position"],
    )
