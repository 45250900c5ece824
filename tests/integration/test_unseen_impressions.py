"""What an impression means that nobody interacted with."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from ranker.training.dataset import load
from ranker.training.settings import Untouched
from runtime.mongo import Mongo
from tests.integration.learnable import NOW, History, Silent

WINDOW = (NOW - timedelta(days=90), NOW)


async def write(mongo: Mongo, *, viewed: bool) -> tuple[History, int, int]:
    """A history, and how many impressions of slates with a label it has: all of them, and those touched where two or more are."""
    history = History(slates=80)
    await history.write(mongo)
    _, _, attributions = history.documents()
    if viewed:
        await mongo.collection("attributions").update_many({}, {"$set": {"counts.view": 1}})
    touched: dict[str, int] = {}
    for one in attributions:
        touched[one["ranking_id"]] = touched.get(one["ranking_id"], 0) + 1
    return history, len(touched) * history.items, sum(count for count in touched.values() if count > 1)


@pytest.mark.parametrize(
    ("untouched", "viewed", "left_out"), [("auto", True, True), ("auto", False, False), ("unseen", False, True), ("negative", True, False)]
)
async def test_where_views_show_who_looked_the_rest_says_nothing(mongo: Mongo, untouched: Untouched, viewed: bool, left_out: bool) -> None:
    history, everything, seen = await write(mongo, viewed=viewed)
    data, counts = await load(mongo, *WINDOW, Silent(), untouched=untouched)
    assert data.row_count == (seen if left_out else everything)
    assert counts.unseen_rows == (data.slate_count * history.items - seen if left_out else 0)
    assert data.matrix.shape == (data.row_count, len(history.names))
    if left_out:
        assert (data.labels > 0).all()


async def test_rows_keep_their_features_and_positions(mongo: Mongo) -> None:
    await write(mongo, viewed=True)
    every, _ = await load(mongo, *WINDOW, Silent(), untouched="negative")
    seen, _ = await load(mongo, *WINDOW, Silent(), untouched="unseen")
    rows = {
        (every.ranking_ids[s], int(every.positions[r])): r
        for s in range(every.slate_count)
        for r in range(every.offsets[s], every.offsets[s + 1])
    }
    for s in range(seen.slate_count):
        for r in range(seen.offsets[s], seen.offsets[s + 1]):
            same = rows[seen.ranking_ids[s], int(seen.positions[r])]
            np.testing.assert_array_equal(seen.matrix[r], every.matrix[same])
            assert seen.labels[r] == every.labels[same]
