"""The verdict: acknowledged ⊆ stored ⊆ issued, every payload equal, one document per id, and everything derived equal to a recount."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc

from collector.labels import Combination
from collector.rebuild import recount
from rankloop.v1.tracking_pb2 import Interaction, TrackInteractionsRequest
from rankloop.v1.tracking_pb2_grpc import TrackingServiceStub
from runtime.errors import Aborted, Unavailable
from runtime.lease import Lease
from runtime.mongo import Mongo
from runtime.rpc.channel import open_channel
from tests.faults.journal import Attempt, Reader
from tests.faults.oracle import SOUND_CODES
from tests.faults.payloads import KINDS, Payloads, stored_form
from tests.faults.recount import SCOPES, Recount

SETTLE_SECONDS = 90.0
RECOUNT_SECONDS = 240.0
LOOK_SECONDS = 0.05
MOST_EXAMPLES = 5
OWN_FIELDS = {"receive_time", "digest", "schema_hash", "pending"}
"""Fields of the ledger that do not follow from what was sent alone. That nothing is pending any more is asked before."""


@dataclass(slots=True)
class Verdict:
    """What was found. A run in which nothing is wrong counts only if enough happened in it; that is for its report to say."""

    acknowledged: Counter[str] = field(default_factory=Counter)
    """Entries that the oracle is owed, by kind."""
    stored: Counter[str] = field(default_factory=Counter)
    issued: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    """Entries acknowledged and not stored, or stored with other content."""
    doubled: int = 0
    """Entries stored or counted more than once, or told accepted more than once."""
    resent: int = 0
    """Entries sent again on purpose."""
    codes: Counter[str] = field(default_factory=Counter)
    tallies: int = 0
    """Tallies compared with the recount."""
    attributions: int = 0
    recounts: int = 0
    """Times that the product's own recount was asked."""
    wrong: list[str] = field(default_factory=list)
    """Everything that should not be, in words; the first of each kind."""

    def note(self, what: str, examples: Mapping[Any, Any] | list[Any] | set[Any]) -> None:
        """Something is wrong, if there are examples of it."""
        if examples:
            shown = list(examples.items() if isinstance(examples, Mapping) else examples)[:MOST_EXAMPLES]
            self.wrong.append(f"{len(examples)} × {what}: {'; '.join(map(str, shown))}")


class Quiet:
    """Tells nobody how far the recount is."""

    def step(self, description: str, total: int | None = None) -> None:
        """A step begins."""

    def advance(self, count: int) -> None:
        """So much is done."""


async def judge(mongo: Mongo, payloads: Payloads, journal: Reader, addresses: list[str]) -> Verdict:
    """Judges a run whose oracle has ended and whose stack is whole again."""
    journal.update()
    verdict = Verdict(issued=Counter(journal.issued))
    _judge_answers(verdict, journal.attempts)
    await _fresh_events_get_through(mongo, verdict, addresses)
    ledger = {kind: await _judge_kind(mongo, verdict, payloads, journal, kind) for kind in KINDS}
    await _judge_derived(mongo, verdict, Recount(*(ledger[kind] for kind in KINDS)))
    verdict.note("differs from the product's own recount", await differences(mongo))
    verdict.recounts += 1
    return verdict


async def differences(mongo: Mongo) -> list[str]:
    """What `rankloop doctor --recount` finds, which may be asked under traffic; empty: nothing differs. Raises TimeoutError."""
    async with asyncio.timeout(RECOUNT_SECONDS):
        while True:
            lease = Lease(mongo, "fold", f"verdict:{uuid.uuid4().hex}", 4.0, lambda: datetime.now(UTC))
            try:
                recounted = await recount(mongo, lease, Combination.MAX, Quiet())
            except (Unavailable, Aborted):  # a fault is not over for everybody when the first call is acknowledged
                await asyncio.sleep(LOOK_SECONDS)
                continue
            return [str(one) for one in recounted.examples]


def _judge_answers(verdict: Verdict, attempts: list[Attempt]) -> None:
    verdict.codes = Counter(attempt.code for attempt in attempts)
    verdict.note("status that should not be", {code: n for code, n in verdict.codes.items() if code not in SOUND_CODES})
    verdict.note("refused although sound", [one.rejected for one in attempts if one.rejected])
    verdict.note("answer that does not add up", [one for one in attempts if one.code == "OK" and not one.acknowledged and not one.rejected])
    verdict.resent = sum(one.count for one in attempts if one.manner in ("after", "again"))
    verdict.resent += sum(one.count for one in attempts if one.manner == "twice") // 2
    accepted: Counter[tuple[str, int, int]] = Counter()
    for one in attempts:
        accepted[one.kind, one.first, one.count] += one.accepted
    surplus = {batch: count - batch[2] for batch, count in accepted.items() if count > batch[2]}
    verdict.doubled += sum(surplus.values())
    verdict.note("told accepted more than once", surplus)


async def _fresh_events_get_through(mongo: Mongo, verdict: Verdict, addresses: list[str]) -> None:
    """One through each server, all the way into the tallies."""
    fresh = [f"fresh-{uuid.uuid4().hex}" for _ in addresses]
    for address, event_id in zip(addresses, fresh, strict=True):
        entry = Interaction(event_id=event_id, user_id="fresh", item_id=event_id, type="click")
        async with open_channel(address) as channel:
            try:
                answer = await TrackingServiceStub(channel).TrackInteractions(TrackInteractionsRequest(interactions=[entry]), timeout=10)
                if answer.accepted_count != 1:
                    verdict.wrong.append(f"a fresh event was not accepted: {answer}")
            except grpc.aio.AioRpcError as error:
                verdict.wrong.append(f"a fresh event did not get through: {error.code().name} {error.details()}")
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            while left := [kind for kind in KINDS if await mongo.collection(kind).count({"pending": {"$exists": True}}, limit=1)]:
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        verdict.wrong.append(f"the fold does not come to an end: {left}")
    counted = await mongo.collection("tallies").find({"_id.scope": "item", "_id.key": {"$in": fresh}}, limit=10)
    if len(counted) != len(fresh):
        verdict.wrong.append("a fresh event was not counted")


async def _judge_kind(mongo: Mongo, verdict: Verdict, payloads: Payloads, journal: Reader, kind: str) -> list[dict[str, Any]]:
    """The ledger's documents of a kind, after they were compared with what was sent."""
    owed: set[int] = set()
    for attempt in journal.attempts:
        if attempt.kind == kind and attempt.acknowledged:
            owed.update(range(attempt.first, attempt.first + attempt.count))
    documents: list[dict[str, Any]] = []
    seen: Counter[int] = Counter()
    strangers: list[str] = []
    changed: dict[str, Any] = {}
    async for batch in mongo.collection(kind).batches({}):
        for document in batch:
            documents.append(document)
            if document["_id"].startswith("fresh-"):
                continue
            number = payloads.number_of(kind, document["_id"])
            if not 0 <= number < journal.issued[kind]:
                strangers.append(document["_id"])
                continue
            seen[number] += 1
            kept = {name: value for name, value in document.items() if name not in OWN_FIELDS}
            expected = stored_form(payloads.entry(kind, number))
            if kept != expected:
                changed[document["_id"]] = {
                    name: (kept.get(name), expected.get(name))
                    for name in kept.keys() | expected.keys()
                    if kept.get(name) != expected.get(name)
                }
    missing = owed - seen.keys()
    doubles = {number: count for number, count in seen.items() if count > 1}
    verdict.acknowledged[kind], verdict.stored[kind] = len(owed), len(seen)
    verdict.lost += len(missing) + len(changed)
    verdict.doubled += sum(count - 1 for count in doubles.values())
    verdict.note(f"{kind} acknowledged and not stored", {payloads.id_of(kind, number) for number in missing})
    verdict.note(f"{kind} stored that nobody issued", strangers)
    verdict.note(f"{kind} stored with other content (stored, sent)", changed)
    verdict.note(f"{kind} stored more than once", doubles)
    return documents


async def _judge_derived(mongo: Mongo, verdict: Verdict, expected: Recount) -> None:
    attributions: dict[tuple[str, str], dict[str, Any]] = {}
    async for batch in mongo.collection("attributions").batches({}):
        for document in batch:
            kept = {name: value for name, value in document.items() if name not in ("_id", "ranking_id")}
            attributions[document["_id"]["ranking_id"], document["_id"]["item_id"]] = kept
    verdict.attributions = len(attributions)
    verdict.note("attribution that differs (kept, recounted)", _differences(attributions, expected.attributions))

    tallies: dict[Any, dict[str, dict[str, int]]] = {}
    async for batch in mongo.collection("tallies").batches({"_id.scope": {"$in": list(SCOPES)}}):
        for document in batch:
            key = document["_id"]["key"]
            parts = {**document["hours"], "day": document["day"]}
            kept = {part: {name: n for name, n in counters.items() if n} for part, counters in parts.items()}
            identity = (document["_id"]["scope"], document["_id"]["start"], key if isinstance(key, str) else tuple(key))
            tallies[identity] = {part: counters for part, counters in kept.items() if counters}
    recounted = {
        key: {part: {name: n for name, n in counters.items() if n} for part, counters in parts.items()}
        for key, parts in expected.tallies.items()
    }
    verdict.tallies = len(tallies)
    differing = _differences(tallies, recounted)
    verdict.note("tally that differs (kept, recounted)", differing)
    verdict.doubled += _surplus(tallies, expected)


def _differences(kept: Mapping[Any, Any], recounted: Mapping[Any, Any]) -> dict[Any, Any]:
    """The first of what differs within each document."""
    found: dict[Any, Any] = {}
    for key in kept.keys() | recounted.keys():
        ours, theirs = kept.get(key, {}), recounted.get(key, {})
        differing = {name: (ours.get(name), theirs.get(name)) for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
        if differing:
            found[key] = dict(list(differing.items())[:2])
    return found


def _surplus(tallies: Mapping[Any, Mapping[str, Mapping[str, int]]], expected: Recount) -> int:
    """Interactions that the tallies count beyond those the ledger holds."""

    def total(of: Mapping[Any, Mapping[str, Mapping[str, int]]]) -> int:
        return sum(parts["day"].get("interactions", 0) for (scope, _, _), parts in of.items() if scope == "all")

    return max(0, total(tallies) - total(expected.tallies))
