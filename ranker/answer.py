"""From a slate to the protobuf answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from ranker.ranking import Slate
from ranker.rules.ruling import Effect
from rankloop.v1 import ranking_pb2
from rankloop.worker.v1 import worker_pb2

_POLICIES: Final = {
    "epsilon_greedy": ranking_pb2.EXPLORATION_POLICY_EPSILON_GREEDY,
    "thompson": ranking_pb2.EXPLORATION_POLICY_THOMPSON,
}
_KINDS: Final = {
    "pin": ranking_pb2.RULE_KIND_PIN,
    "boost": ranking_pb2.RULE_KIND_BOOST,
    "exclusion": ranking_pb2.RULE_KIND_EXCLUSION,
    "cap": ranking_pb2.RULE_KIND_CAP,
}


def encode(slate: Slate, *, candidate_ids: Sequence[str], ranking_id: str, schema_hash: str) -> worker_pb2.RankResponse:
    """The caller's answer, and what the ledger keeps. `candidate_ids` are those of the request."""
    return worker_pb2.RankResponse(
        response=ranking_pb2.RankResponse(
            ranking_id=ranking_id,
            items=_items(slate),
            model_version=slate.model_version,
            algorithm=slate.algorithm,
            ml_ranking_applied=slate.ml_ranking_applied,
            fallback_reason=slate.fallback_reason,
            diversity_score=slate.diversity_score,
            exploration=_exploration(slate),
            rule_effects=rule_effects(slate.effects, candidate_ids),
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
    scored = zip(slate.item_ids, slate.relevances.tolist(), slate.scores.tolist(), slate.propensities.tolist(), strict=True)
    items = [
        ranking_pb2.RankedItem(item_id=item_id, position=position, relevance=relevance, score=score, propensity=propensity)
        for position, (item_id, relevance, score, propensity) in enumerate(scored, start=1)
    ]
    for item, contributions in zip(items, slate.contributions, strict=False):
        for one in contributions:
            value = None if math.isnan(one.value) else one.value
            item.contributions.add(feature=one.feature, value=value, contribution=one.contribution, meaning=one.meaning, words=one.words)
    return items


def _exploration(slate: Slate) -> ranking_pb2.ExplorationRecord | None:
    done = slate.exploration
    if done is None:
        return None
    return ranking_pb2.ExplorationRecord(
        policy=_POLICIES[done.policy],
        epsilon=done.epsilon if done.policy == "epsilon_greedy" else None,
        spread=done.spread if done.policy == "thompson" else None,
        seed=slate.seed,
        pool_size=slate.pool_size,
    )


def rule_effects(effects: Iterable[Effect], candidate_ids: Sequence[str]) -> list[ranking_pb2.RuleEffect]:
    """What rules did, by item."""
    return [
        ranking_pb2.RuleEffect(
            rule_id=effect.rule_id,
            kind=_KINDS[effect.kind],
            item_id=candidate_ids[effect.candidate],
            position_before=effect.position_before,
            position=effect.position,
        )
        for effect in effects
    ]
