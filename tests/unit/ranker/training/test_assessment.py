"""Parts of the test slates, popularity, and what MMR does to an order, each beside a plain recount."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from ranker.diversity.mmr import mmr
from ranker.state.items import ItemState
from ranker.training.after_mmr import candidates_of, diversified
from ranker.training.baselines import figures, popularity
from ranker.training.segments import segments
from ranker.training.split import split
from tests.unit.ranker.training.test_training_columns import columns

PARTS = split(columns(200, seed=5), validation_split=0.2, min_slates=20)


def test_popularity_is_the_sum_of_the_labels_before() -> None:
    test, before = PARTS.test, (PARTS.train, PARTS.validation)
    earned: dict[int, float] = {}
    for part in before:
        for item, label in zip(part.items.tolist(), part.labels.tolist(), strict=True):
            earned[item] = earned.get(item, 0.0) + label
    expected = figures(test, np.array([earned.get(item, 0.0) for item in test.items.tolist()]))
    np.testing.assert_allclose(popularity(test, before=before)["ndcg_at_10"], expected["ndcg_at_10"])


def test_segments_are_means_over_the_users_of_their_slates() -> None:
    test = PARTS.test
    unknown = replace(test, users=np.where(np.arange(test.slate_count) < 5, 1000 + np.arange(test.slate_count), test.users))
    random = np.random.default_rng(1).random(test.row_count)
    rankers = {"model": figures(test, random), "champion": figures(test, -random)}
    found = {(one.dimension, one.value): one for one in segments(replace(PARTS, test=unknown), rankers, seed=1)}
    assert set(found) == {
        ("item_type", "post"), ("item_type", "video"), ("surface", "home"), ("user", "known"), ("user", "new"), ("item", "known")
    }  # fmt: skip
    assert (found["user", "new"].slate_count, found["user", "new"].user_count) == (5, 5)
    new = {one.name: one.value for one in found["user", "new"].metrics}
    assert new["test.model.ndcg_at_10"] == pytest.approx(rankers["model"]["ndcg_at_10"][:5].mean())
    assert new["test.model_minus_champion.ndcg_at_10"] == pytest.approx(new["test.model.ndcg_at_10"] - new["test.champion.ndcg_at_10"])
    wanted = [
        slate
        for slate in range(test.slate_count)
        if any(
            label > 0 and test.codebook.item_types[kind] == "video"
            for label, kind in zip(
                test.labels[test.offsets[slate] : test.offsets[slate + 1]],
                test.item_types[test.offsets[slate] : test.offsets[slate + 1]],
                strict=True,
            )
        )
    ]
    assert found["item_type", "video"].slate_count == len(wanted)


def test_mmr_orders_each_slate_as_the_ranker_would() -> None:
    test = columns(12, seed=8)
    test = replace(test, items=np.concatenate([np.arange(size) for size in test.group_sizes]).astype(np.int32))
    names, types = test.codebook.items, test.codebook.item_types
    recorded = {
        ranking_id: {
            "user_id": "u",
            "show_time": datetime(2026, 1, 1, tzinfo=UTC),
            "items": [
                {"item_id": names[item], "item_type": types[kind], "tags": [f"t{item % 2}"]}
                for item, kind in zip(
                    test.items[test.offsets[slate] : test.offsets[slate + 1]],
                    test.item_types[test.offsets[slate] : test.offsets[slate + 1]],
                    strict=True,
                )
            ],
        }
        for slate, ranking_id in enumerate(test.ranking_ids)
    }
    candidates = candidates_of(test, recorded, ItemState((), today=0))
    scores = np.random.default_rng(2).random(test.row_count)
    # λ = 1 is relevance alone: nothing changes.
    np.testing.assert_allclose(
        figures(test, diversified(test, scores, candidates, balance=1.0).scores)["ndcg_at_10"], figures(test, scores)["ndcg_at_10"]
    )
    after = diversified(test, scores, candidates, balance=0.3)
    plain = diversified(test, scores, candidates, balance=1.0)
    assert np.nanmean(after.diversity) >= np.nanmean(plain.diversity)
    for slate in range(test.slate_count):
        mine = scores[test.offsets[slate] : test.offsets[slate + 1]]
        order = np.argsort(-mine)
        relevance = (mine[order] - mine.min()) / (mine.max() - mine.min())
        items = [recorded[test.ranking_ids[slate]]["items"][place] for place in order]

        class Alike:
            def row(self, place: int, items: list[dict[str, object]] = items) -> np.ndarray:
                return np.array([jaccard(items[place], other) for other in items])

        expected = order[mmr(relevance, Alike(), count=len(order), balance=0.3).places]
        got = np.argsort(-after.scores[test.offsets[slate] : test.offsets[slate + 1]])
        np.testing.assert_array_equal(got, expected)


def jaccard(one: dict[str, object], other: dict[str, object]) -> float:
    same = float(one["item_type"] == other["item_type"])
    mine, theirs = set(one["tags"]), set(other["tags"])  # type: ignore[call-overload]
    return (len(mine & theirs) + same) / (len(mine | theirs) + same)
