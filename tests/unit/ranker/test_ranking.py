"""The ranking of one request from columns to the answer, without anything around it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ranker.answer import encode
from ranker.features.columns import Floats
from ranker.features.decoding import decode
from ranker.features.extraction import extract
from ranker.features.history import NO_HISTORY
from ranker.features.schema import FeatureSchema, default_schema, with_request_features
from ranker.ranking import Slate, Wish, rank
from ranker.scoring.explanation import FeatureContribution
from ranker.state.items import ItemState
from rankloop.v1.ranking_pb2 import Candidate, RankRequest

SCHEMA = default_schema()
NOW = 1_772_700_000.0


@dataclass
class ByColumn:
    """Scores by one feature."""

    feature: str
    version: str = "by-column"
    schema: FeatureSchema = SCHEMA

    def score(self, matrix: Floats) -> Floats:
        scores: Floats = matrix[:, self.schema.index[self.feature]].copy()
        return scores

    def explain(self, matrix: Floats, *, beside: Floats, limit: int) -> list[list[FeatureContribution]]:
        return [
            [FeatureContribution(feature=self.feature, value=float(score), contribution=float(score), meaning="m", words="w")][:limit]
            for score in self.score(matrix)
        ]


def candidates(*costs: float, priors: bool = True) -> list[Candidate]:
    return [
        Candidate(
            item_id=f"i{place}",
            item_type=f"t{place % 2}",
            prior_score=float(place) if priors else None,
            features={"cost": cost},
            attributes={"tier": "gold"} if place == 0 else {},
        )
        for place, cost in enumerate(costs)
    ]


def ranked(offered: list[Candidate], scorer: ByColumn | None = None, *, count: int = 0, balance: float = 1.0) -> Slate:
    items = ItemState(SCHEMA.names[SCHEMA.families["request"]], today=int(NOW // 86_400))
    columns = decode(RankRequest(candidates=offered), SCHEMA if scorer is None else scorer.schema, NOW)
    return rank(
        columns,
        schema=SCHEMA,
        items=items,
        history=NO_HISTORY,
        scorer=scorer,
        wish=Wish(count=count, balance=balance),
        clock=lambda: 0.0,
    )


def test_the_model_orders_and_relevance_is_within_the_request() -> None:
    slate = ranked(candidates(3.0, 9.0, 5.0), ByColumn("cost"))
    assert slate.item_ids == ["i1", "i2", "i0"]
    assert slate.scores.tolist() == [9.0, 5.0, 3.0]
    assert slate.relevances.tolist() == [1.0, (5 - 3) / (9 - 3), 0.0]
    assert (slate.algorithm, slate.model_version, slate.fallback_reason) == ("lambdarank", "by-column", "")


def test_ties_stand_by_item_id_wherever_they_stood() -> None:
    offered = [Candidate(item_id=name, features={"cost": 1.0}) for name in "dbca"]
    assert ranked(offered, ByColumn("cost")).item_ids == list("abcd")


def test_top_k_cuts_and_larger_than_the_list_is_the_list() -> None:
    offered = candidates(3.0, 9.0, 5.0)
    assert ranked(offered, ByColumn("cost"), count=2).item_ids == ["i1", "i2"]
    assert len(ranked(offered, ByColumn("cost"), count=99).item_ids) == 3
    assert ranked(offered, count=1).item_ids == ["i2"]


def test_less_lambda_brings_the_other_type_up() -> None:
    # i0 and i2 are of one type, i1 and i3 of the other; without tags, items of a type are alike (1) and others are not (0).
    offered = candidates(10.0, 2.0, 9.0, 1.0)
    assert ranked(offered, ByColumn("cost"), balance=1.0).item_ids == ["i0", "i2", "i1", "i3"]
    # i1: 0.5 · (2 − 1) ÷ 9 − 0.5 · 0 = 0.06 beats i2: 0.5 · 8 ÷ 9 − 0.5 · 1 = −0.06
    diverse = ranked(offered, ByColumn("cost"), balance=0.5)
    assert diverse.item_ids[:2] == ["i0", "i1"]
    assert ranked(offered, ByColumn("cost"), balance=0.5, count=2).diversity_score == 1.0
    assert ranked(offered, ByColumn("cost"), balance=1.0, count=2).diversity_score == 0.0
    assert diverse.diversity_score == pytest.approx(1 - 2 / 6)


def test_one_item_has_no_diversity() -> None:
    assert ranked(candidates(1.0), ByColumn("cost")).diversity_score is None


def test_without_a_model_the_prior_orders_and_nothing_is_diversified() -> None:
    slate = ranked(candidates(1.0, 1.0, 1.0, 1.0), balance=0.0)
    assert slate.item_ids == ["i3", "i2", "i1", "i0"]
    assert slate.relevances.tolist() == [1.0, 2 / 3, 1 / 3, 0.0]
    assert (slate.algorithm, slate.ml_ranking_applied, slate.fallback_reason) == ("prior_score", False, "NO_MODEL")
    assert slate.diversity_score == pytest.approx(1 - 2 / 6)


def test_without_model_and_prior_the_caller_orders() -> None:
    slate = ranked(candidates(1.0, 2.0, priors=False))
    assert (slate.item_ids, slate.algorithm) == (["i0", "i1"], "caller_order")
    assert slate.relevances.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("scorer", [None, ByColumn("cost")])
def test_the_features_of_the_slate_are_those_the_model_saw(scorer: ByColumn | None) -> None:
    offered = candidates(3.0, 9.0, 5.0, 7.0)
    slate = ranked(offered, scorer, count=3)
    items = ItemState(SCHEMA.names[SCHEMA.families["request"]], today=int(NOW // 86_400))
    columns = decode(RankRequest(candidates=offered), SCHEMA, NOW)
    whole = extract(SCHEMA, columns, items.join(columns), NO_HISTORY)
    assert slate.features.tobytes() == whole[slate.indexes].tobytes()
    assert [offered[index].item_id for index in slate.indexes] == slate.item_ids


def test_the_answer_says_what_the_slate_is() -> None:
    slate = ranked(candidates(3.0, 9.0), ByColumn("cost"))
    slate = replace(slate, contributions=ByColumn("cost").explain(slate.features, beside=slate.beside, limit=5))
    answer = encode(slate, candidate_ids=["i0", "i1"], ranking_id="r1", schema_hash=SCHEMA.hash)
    response, served = answer.response, answer.served
    assert response.ranking_id == "r1"
    assert [(one.item_id, one.position, one.relevance, one.score, one.propensity) for one in response.items] == [
        ("i1", 1, 1.0, 9.0, 1.0),
        ("i0", 2, 0.0, 3.0, 1.0),
    ]
    told = response.items[0].contributions
    assert [(one.feature, one.value, one.contribution, one.meaning, one.words) for one in told] == [("cost", 9.0, 9.0, "m", "w")]
    assert response.ml_ranking_applied
    assert response.HasField("diversity_score")
    assert (list(served.item_types), list(served.tiers), list(served.candidate_indexes)) == (["t1", "t0"], ["", "gold"], [1, 0])
    assert served.schema_hash == SCHEMA.hash
    features: NDArray[np.float64] = np.frombuffer(served.features, "<f8").reshape(2, len(SCHEMA))
    assert features[:, SCHEMA.index["cost"]].tolist() == [9.0, 3.0]


def test_a_missing_value_is_absent_in_the_explanation_and_so_is_the_diversity_of_one_item() -> None:
    missing = FeatureContribution(feature="cost", value=float("nan"), contribution=1.0, meaning="m", words="w")
    slate = replace(ranked([Candidate(item_id="a")], ByColumn("list_size")), contributions=[[missing]])
    response = encode(slate, candidate_ids=["a"], ranking_id="r", schema_hash="").response
    assert not response.items[0].contributions[0].HasField("value")
    assert not response.HasField("diversity_score")


def test_a_model_may_read_what_the_deployment_no_longer_declares() -> None:
    scorer = ByColumn("margin", schema=with_request_features(SCHEMA, ["margin"]))
    offered = [
        Candidate(item_id="a", prior_score=0.3, features={"margin": 1.0, "cost": 7.0}),
        Candidate(item_id="b", prior_score=0.2, features={"margin": 5.0, "cost": 8.0}),
    ]
    slate = ranked(offered, scorer)
    assert slate.item_ids == ["b", "a"]
    assert slate.scores.tolist() == [5.0, 1.0]
    assert slate.beside.shape == (2, len(SCHEMA) + 1)
    # What is recorded has the columns of the deployment, with the same values that a model of its own would have seen.
    assert np.array_equal(slate.features, ranked(offered, ByColumn("cost")).features, equal_nan=True)
