"""From a slate to the protobuf answer."""

from __future__ import annotations

import math
from typing import Final

from ranker.ranking import Slate
from rankloop.v1 import ranking_pb2
from rankloop.worker.v1 import worker_pb2

_CERTAIN: Final = 1.0
"""Propensity where nothing is explored."""


def encode(slate: Slate, *, ranking_id: str, schema_hash: str) -> worker_pb2.RankResponse:
    """The caller's answer, and what the ledger keeps."""
    return worker_pb2.RankResponse(
        response=ranking_pb2.RankResponse(
            ranking_id=ranking_id,
            items=_items(slate),
            model_version=slate.model_version,
            algorithm=slate.algorithm,
            ml_ranking_applied=slate.ml_ranking_applied,
            fallback_reason=slate.fallback_reason,
            diversity_score=slate.diversity_score,
        ),
        served=worker_pb2.ServedItems(
            item_types=slate.item_types,
            tiers=slate.tiers,
            candidate_indexes=slate.indexes.tolist(),
            features=slate.features.astype("<f8", copy=False).tobytes(),
            schema_hash=schema_hash,
        ),
    )


def _items(slate: Slate) -> list[ranking_pb2.RankedItem]:
    scored = zip(slate.item_ids, slate.relevances.tolist(), slate.scores.tolist(), strict=True)
    items = [
        ranking_pb2.RankedItem(item_id=item_id, position=position, relevance=relevance, score=score, propensity=_CERTAIN)
        for position, (item_id, relevance, score) in enumerate(scored, start=1)
    ]
    for item, contributions in zip(items, slate.contributions, strict=False):
        for one in contributions:
            value = None if math.isnan(one.value) else one.value
            item.contributions.add(feature=one.feature, value=value, contribution=one.contribution, meaning=one.meaning)
    return items
