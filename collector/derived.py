"""The derived collections: attributions and tallies, read and written by batches of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from collector.attribution import Attribution
from collector.batch import Batch, Folded, ImpressionId, touched
from collector.labels import Combination
from collector.tally import TallyId
from runtime.mongo import Document, InsertOne, Long, Mongo, ReplaceOne, UpdateOne

SLATE_COLUMNS = {"features": 0, "context": 0, "response": 0}
"""What the fold leaves unread of a slate."""


class Derived:
    """Attributions and tallies; those that everybody reads, or others beside them."""

    def __init__(self, mongo: Mongo, rule: Combination, *, suffix: str = "") -> None:
        self._mongo = mongo
        self._rule = rule
        self._attributions = mongo.collection(f"attributions{suffix}")
        self._tallies = mongo.collection(f"tallies{suffix}")

    async def gather(self, pending: Mapping[str, list[Document]], session: Any) -> Batch:
        arrived = {slate["_id"] for slate in pending["slates"]}
        named = {entry["ranking_id"] for kind in ("interactions", "outcomes") for entry in pending[kind] if entry.get("ranking_id")}
        impressions = set(touched(pending["interactions"]))
        impressions.update((slate["_id"], item["item_id"]) for slate in pending["slates"] for item in slate["items"])
        return Batch(
            interactions=pending["interactions"],
            slates=pending["slates"],
            outcomes=pending["outcomes"],
            folded_slates=await self.folded_slates(named - arrived, session),
            folded_outcomes=await self.folded_outcomes(arrived, session),
            attributions=await self.attributions(impressions, session),
        )

    async def folded_slates(self, ranking_ids: Iterable[str], session: Any) -> dict[str, Document]:
        wanted = list(ranking_ids)
        if not wanted:
            return {}
        query = {"_id": {"$in": wanted}, "pending": {"$exists": False}}
        found = await self._mongo.collection("slates").find(query, SLATE_COLUMNS, limit=len(wanted), session=session)
        return {slate["_id"]: slate for slate in found}

    async def folded_outcomes(self, ranking_ids: Iterable[str], session: Any) -> list[Document]:
        wanted = list(ranking_ids)
        if not wanted:
            return []
        query = {"ranking_id": {"$in": wanted}, "pending": {"$exists": False}}
        return await self._mongo.collection("outcomes").find(query, limit=1_000_000, hint="ranking", session=session)

    async def attributions(self, impressions: Iterable[ImpressionId], session: Any) -> dict[ImpressionId, Attribution]:
        ids = [{"ranking_id": ranking_id, "item_id": item_id} for ranking_id, item_id in impressions]
        if not ids:
            return {}
        found = await self._attributions.find({"_id": {"$in": ids}}, limit=len(ids), session=session)
        return {(one["_id"]["ranking_id"], one["_id"]["item_id"]): Attribution.from_document(one) for one in found}

    async def store(self, folded: Folded, revision: int, session: Any) -> None:
        attributions: list[InsertOne[Document] | ReplaceOne[Document]] = []
        for (ranking_id, item_id), attribution in folded.attributions.items():
            identity = {"ranking_id": ranking_id, "item_id": item_id}
            document = {"_id": identity, "ranking_id": ranking_id, **attribution.to_document(self._rule)}
            known = (ranking_id, item_id) in folded.known
            attributions.append(ReplaceOne({"_id": identity}, document) if known else InsertOne(document))
        await self._attributions.bulk_write(attributions, session=session)
        tallies = [tally_write(tally, counters, revision) for tally, counters in folded.tallies.items()]
        await self._tallies.bulk_write(tallies, session=session)


def tally_write(tally: TallyId, counters: Mapping[tuple[int, str], int], revision: int) -> UpdateOne:
    """Adds to one tally, for the day and for its hours."""
    identity = {"scope": tally.scope, "start": tally.day, "key": tally.key if isinstance(tally.key, str) else list(tally.key)}
    added: dict[str, int] = {}
    for (hour, counter), count in counters.items():
        added[f"hours.{hour}.{counter}"] = count
        day_counter = f"day.{counter}"
        added[day_counter] = added.get(day_counter, 0) + count
    return UpdateOne({"_id": identity}, {"$inc": added, "$set": {"revision": Long(revision)}}, upsert=True)
