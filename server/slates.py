"""Recording what was ranked: after the answer, with the feature values that were used."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import Counter, Gauge

from collector.entries import DIGEST_BYTES, pairs
from collector.ledger import Ledger
from rankloop.v1.ranking_pb2 import ExplorationPolicy, ExplorationRecord, RankRequest, RankResponse, RuleEffect, RuleKind
from rankloop.worker.v1.worker_pb2 import ServedItems
from runtime.errors import Overloaded, Unavailable
from runtime.logs import get_logger
from runtime.mongo import Document, encoded_size

log = get_logger("server")

LARGE_REQUEST_BYTES = 4 * 2**20
"""A slate of a smaller request needs no weighing."""
MAX_SLATE_BYTES = 12 * 2**20
"""A heavier slate is kept without its items' tags and attributes: MongoDB takes no document above 16 MiB."""
RETRY_SECONDS = 0.2
GROUP = 200

WAITING = Gauge("rankloop_slates_waiting", "Slates ranked and not yet recorded.")
RECORDED = Counter("rankloop_slates_recorded", "Slates ranked and recorded.")
DROPPED = Counter("rankloop_slates_dropped", "Slates that could not be recorded: the database was away for too long.")


def slate_of(request: RankRequest, response: RankResponse, served: ServedItems | None, now: datetime) -> Document:
    """The ledger's form of a ranked slate. Without `served` (no worker ranked) it has no feature values."""
    items: list[Document] = []
    indexes = list(served.candidate_indexes) if served else _places(request, response)
    for place, (ranked, index) in enumerate(zip(response.items, indexes, strict=True)):
        candidate = request.candidates[index]
        kept: Document = {
            "item_id": ranked.item_id,
            "item_type": served.item_types[place] if served else candidate.item_type,
            "position": ranked.position,
            "score": ranked.score,
            "relevance": ranked.relevance,
        }
        if ranked.propensity:  # of an interleaved slate it is not known
            kept["propensity"] = ranked.propensity
        if ranked.variant_id:
            kept["variant_id"] = ranked.variant_id
        tier = served.tiers[place] if served else candidate.attributes.get("tier", "")
        if tier:
            kept["tier"] = tier
        if candidate.tags:
            kept["tags"] = list(candidate.tags)
        if candidate.attributes:
            kept["attributes"] = pairs(candidate.attributes)
        items.append(kept)
    document: Document = {
        "_id": response.ranking_id,
        "user_id": request.user_id,
        "surface": request.surface,
        "algorithm": response.algorithm,
        "model_version": response.model_version,
        "ml_ranking_applied": response.ml_ranking_applied,
        "show_time": now,
        "receive_time": now,
        "candidate_count": len(request.candidates),
        "items": items,
        "digest": hashlib.blake2b(response.ranking_id.encode(), digest_size=DIGEST_BYTES).digest(),
        "pending": now,
    }
    optional: Mapping[str, Any] = {
        "session_id": request.session_id,
        "context": pairs(request.context),
        "fallback_reason": response.fallback_reason,
        "experiment_id": response.experiment_id,
        "variant_id": response.variant_id,
    }
    document.update({name: value for name, value in optional.items() if value})
    if response.HasField("diversity_score"):
        document["diversity_score"] = response.diversity_score
    if response.HasField("variant_propensity"):
        document["variant_propensity"] = response.variant_propensity
    if served and served.schema_hash:
        document["features"] = served.features
        document["schema_hash"] = served.schema_hash
    if response.HasField("exploration"):
        document["exploration"] = _exploration(response.exploration)
    if response.rule_effects:
        document["rule_effects"] = [_effect(effect) for effect in response.rule_effects]
    if request.request_id:
        document["request_id"] = request.request_id
        document["response"] = response.SerializeToString()
    if request.ByteSize() > LARGE_REQUEST_BYTES and encoded_size(document) > MAX_SLATE_BYTES:
        for kept in items:
            kept.pop("tags", None)
            kept.pop("attributes", None)
        document["cut"] = True
    return document


class SlateRecorder:
    """Appends slates to the ledger in the background, in order; bounded. Belongs to one event loop."""

    def __init__(self, ledger: Ledger, *, capacity: int, linger_seconds: float = 0.0) -> None:
        """Holds `capacity` slates at most. A slate waits `linger_seconds` for others: one write of many costs little more than of one."""
        self._ledger = ledger
        self._capacity = capacity
        self._linger_seconds = linger_seconds
        self._waiting: deque[Document] = deque()
        self._some = asyncio.Event()
        self._making = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def record(self, slate: Document) -> None:
        """Takes a slate and returns at once."""
        if len(self._waiting) >= self._capacity:
            self._waiting.popleft()
            DROPPED.inc()
        self._waiting.append(slate)
        self._idle.clear()
        self._some.set()

    def record_soon(self, slate: Callable[[], Document]) -> None:
        """Takes a slate that is made when the running call has had its turn."""
        self._idle.clear()
        self._making += 1
        asyncio.get_running_loop().call_soon(self._make, slate)

    def _make(self, slate: Callable[[], Document]) -> None:
        self._making -= 1
        try:
            self.record(slate())
        except Exception as error:
            log.error("a slate could not be written down", exc_info=error)
            DROPPED.inc()
            self._some.set()

    async def run(self) -> None:
        """Records until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                if self._linger_seconds and len(self._waiting) < GROUP:
                    await asyncio.sleep(self._linger_seconds)
                group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
                try:
                    await self._ledger.append("slates", group, sum(len(slate.get("features", b"")) + 500 for slate in group))
                except (Unavailable, Overloaded):
                    room = max(0, self._capacity - len(self._waiting))
                    DROPPED.inc(max(0, len(group) - room))
                    self._waiting.extendleft(reversed(group[len(group) - min(room, len(group)) :]))
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception as error:
                    log.error("slates could not be recorded", count=len(group), exc_info=error)
                    DROPPED.inc(len(group))
                else:
                    RECORDED.inc(len(group))
                WAITING.set(len(self._waiting))
            if not self._making:
                self._idle.set()

    async def wait_idle(self, *, timeout_seconds: float) -> bool:
        """Whether everything was recorded within the time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_seconds)
        return self._idle.is_set()


def _places(request: RankRequest, response: RankResponse) -> list[int]:
    """Where the items of a slate stood among the candidates."""
    place = {candidate.item_id: index for index, candidate in enumerate(request.candidates)}
    return [place[item.item_id] for item in response.items]


def _exploration(done: ExplorationRecord) -> Document:
    kept: Document = {
        "policy": _word(ExplorationPolicy.Name(done.policy), "EXPLORATION_POLICY_"),
        "seed": done.seed,
        "pool_size": done.pool_size,
    }
    if done.HasField("epsilon"):
        kept["epsilon"] = done.epsilon
    if done.HasField("spread"):
        kept["spread"] = done.spread
    return kept


def _effect(effect: RuleEffect) -> Document:
    return {
        "rule_id": effect.rule_id,
        "kind": _word(RuleKind.Name(effect.kind), "RULE_KIND_"),
        "item_id": effect.item_id,
        "position_before": effect.position_before,
        "position": effect.position,
    }


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
