"""The derived collections: attributions and tallies, read and written by batches of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collector.attribution import Attribution
from collector.batch import Batch, Folded, ImpressionId, touched
from collector.labels import Combination
from collector.receipts import Receipt, taken
from collector.tally import TallyId
from runtime.mongo import Document, InsertOne, Long, Mongo, ReplaceOne, UpdateOne

INTERACTION_COLUMNS = dict.fromkeys(
    ("user_id", "item_id", "item_type", "type", "label", "acts", "value", "occur_time", "ranking_id", "dropoff_point"), 1
)
SLATE_COLUMNS = dict.fromkeys(
    (
        *("user_id", "show_time", "algorithm", "model_version", "experiment_id", "variant_id", "surface", "diversity_score", "pending"),
        *("items.item_id", "items.item_type", "items.position", "items.tier", "items.tags"),
    ),
    1,
)
"""What the fold reads of an interaction and of a slate."""


@dataclass(frozen=True, slots=True)
class DerivedWrites:
    """What a folded batch changes in the database."""

    attributions: Sequence[InsertOne[Document] | ReplaceOne[Document]]
    tallies: Sequence[UpdateOne]


class Derived:
    """Attributions and tallies; those that everybody reads, or others beside them."""

    def __init__(self, mongo: Mongo, rule: Combination, *, suffix: str = "") -> None:
        self._mongo = mongo
        self._rule = rule
        self._attributions = mongo.collection(f"attributions{suffix}")
        self._tallies = mongo.collection(f"tallies{suffix}")

    async def gather(self, pending: Mapping[str, list[Document]], receipts: Sequence[Receipt], session: Any) -> Batch:
        arrived = {slate["_id"] for slate in pending["slates"]}
        named = {entry["ranking_id"] for kind in ("interactions", "outcomes") for entry in pending[kind] if entry.get("ranking_id")}
        elsewhere = [impression for impression in touched(pending["interactions"]) if impression[0] not in arrived]
        # One after the other, as a transaction must.
        folded_slates = await self.folded_slates(named - arrived, session, counted=taken(receipts, "slates"))
        folded_outcomes = await self.folded_outcomes(arrived, session, counted=taken(receipts, "outcomes"))
        attributions = await self.attributions_of(arrived, session)
        attributions |= await self.attributions(elsewhere, session)
        return Batch(
            interactions=pending["interactions"],
            slates=pending["slates"],
            outcomes=pending["outcomes"],
            folded_slates=folded_slates,
            folded_outcomes=folded_outcomes,
            attributions=attributions,
        )

    async def folded_slates(self, ranking_ids: Iterable[str], session: Any, *, counted: Iterable[str] = ()) -> dict[str, Document]:
        """Those of them that were folded: without a mark, or `counted` although they bear one."""
        wanted = list(ranking_ids)
        if not wanted:
            return {}
        found = await self._mongo.collection("slates").find({"_id": {"$in": wanted}}, SLATE_COLUMNS, limit=len(wanted), session=session)
        marked = frozenset(counted)
        return {slate["_id"]: slate for slate in found if "pending" not in slate or slate["_id"] in marked}

    async def folded_outcomes(self, ranking_ids: Iterable[str], session: Any, *, counted: Iterable[str] = ()) -> list[Document]:
        """Those with these slates that were folded."""
        wanted = list(ranking_ids)
        if not wanted:
            return []
        query = {"ranking_id": {"$in": wanted}}
        found = await self._mongo.collection("outcomes").find(query, limit=1_000_000, hint="ranking", session=session)
        marked = frozenset(counted)
        return [outcome for outcome in found if "pending" not in outcome or outcome["_id"] in marked]

    async def attributions(self, impressions: Iterable[ImpressionId], session: Any) -> dict[ImpressionId, Attribution]:
        """Of these impressions."""
        ids = [{"ranking_id": ranking_id, "item_id": item_id} for ranking_id, item_id in impressions]
        if not ids:
            return {}
        return _by_impression(await self._attributions.find({"_id": {"$in": ids}}, limit=len(ids), session=session))

    async def attributions_of(self, ranking_ids: Iterable[str], session: Any) -> dict[ImpressionId, Attribution]:
        """Of all impressions of these slates: of a slate that has just come there are few, so none is asked for by its id."""
        wanted = list(ranking_ids)
        if not wanted:
            return {}
        query = {"ranking_id": {"$in": wanted}}
        return _by_impression(await self._attributions.find(query, limit=1_000_000, hint="ranking", session=session))

    def writes(self, folded: Folded, revision: int) -> DerivedWrites:
        """What to write. No I/O."""
        attributions: list[InsertOne[Document] | ReplaceOne[Document]] = []
        for (ranking_id, item_id), attribution in folded.attributions.items():
            identity = {"ranking_id": ranking_id, "item_id": item_id}
            document = {"_id": identity, "ranking_id": ranking_id, **attribution.to_document(self._rule)}
            known = (ranking_id, item_id) in folded.known
            attributions.append(ReplaceOne({"_id": identity}, document) if known else InsertOne(document))
        return DerivedWrites(attributions, [tally_write(tally, counters, revision) for tally, counters in folded.tallies.items()])

    async def write(self, writes: DerivedWrites, session: Any) -> None:
        await self._attributions.bulk_write(writes.attributions, session=session)
        await self._tallies.bulk_write(writes.tallies, session=session)


def _by_impression(documents: Iterable[Document]) -> dict[ImpressionId, Attribution]:
    return {(one["_id"]["ranking_id"], one["_id"]["item_id"]): Attribution.from_document(one) for one in documents}


def tally_write(tally: TallyId, counters: Mapping[tuple[int, str], int], revision: int) -> UpdateOne:
    """Adds to one tally, for the day and for its hours."""
    identity = {"scope": tally.scope, "start": tally.day, "key": tally.key if isinstance(tally.key, str) else list(tally.key)}
    added: dict[str, int] = {}
    for (hour, counter), count in counters.items():
        added[f"hours.{hour}.{counter}"] = count
        day_counter = f"day.{counter}"
        added[day_counter] = added.get(day_counter, 0) + count
    return UpdateOne({"_id": identity}, {"$inc": added, "$set": {"revision": Long(revision)}}, upsert=True)
