"""Which slates a warm start learns from: the law that it holds out what a full training would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.models.bundle import Bundle
from ranker.models.passport import Slice
from ranker.training.continuation import Continuation, split_new
from ranker.training.data import Codebook, TrainingData
from ranker.training.failures import CannotTrain
from ranker.training.split import moment, split

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def data(slates: int) -> TrainingData:
    """Slates of two items, a second apart."""
    return TrainingData(
        feature_names=("a",),
        schema_hash="s",
        matrix=np.zeros((2 * slates, 1)),
        labels=np.tile([0.0, 1.0], slates),
        positions=np.tile(np.array([1, 2], dtype=np.int32), slates),
        items=np.zeros(2 * slates, dtype=np.int32),
        item_types=np.zeros(2 * slates, dtype=np.int32),
        surfaces=np.zeros(slates, dtype=np.int32),
        codebook=Codebook(items=("i",), item_types=("post",), surfaces=("home",)),
        offsets=np.arange(0, 2 * slates + 1, 2),
        show_times=1000 * np.arange(slates),
        users=np.arange(slates),
        ranking_ids=np.array([f"r{number}" for number in range(slates)], dtype=np.object_),
    )


def base(slates: int) -> Continuation:
    span = Slice(name="train", start_time=moment(0), end_time=BEGIN, slate_count=slates, row_count=2 * slates, user_count=slates)
    return Continuation(bundle=Bundle({}), learned=span if slates else None)


@given(st.integers(20, 300), st.integers(0, 100), st.sampled_from([0.1, 0.2, 0.5]), st.integers(0, 10))
def test_what_is_held_out_is_what_a_full_training_holds_out(before: int, more: int, share: float, gap_seconds: int) -> None:
    everything, gap = data(before + more), timedelta(seconds=gap_seconds)
    learned = split(data(before), validation_split=share, min_slates=4, gap=gap).train.slate_count
    full = split(everything, validation_split=share, min_slates=4, gap=gap)
    since = everything.part(learned, before + more)
    if before + more - round(share * (before + more)) <= learned:
        with pytest.raises(CannotTrain, match="nothing is new") as caught:
            split_new(since, base(learned), validation_split=share, min_slates=4, gap=gap)
        assert caught.value.reason == "NOTHING_NEW"
        return
    warm = split_new(since, base(learned), validation_split=share, min_slates=4, gap=gap)
    if full.train.slate_count <= learned:
        # Nothing is left before the gap, and no slice is emptied for the sake of it.
        assert warm.train.slate_count == 1
        return
    assert warm.train.ranking_ids.tolist() == full.train.ranking_ids[learned:].tolist()
    assert warm.validation.ranking_ids.tolist() == full.validation.ranking_ids.tolist()
    assert warm.test.ranking_ids.tolist() == full.test.ranking_ids.tolist()


def test_a_forest_from_elsewhere_has_learned_nothing_of_this_ledger() -> None:
    warm = split_new(data(100), base(0), validation_split=0.2, min_slates=4)
    assert [part.slate_count for part in (warm.train, warm.validation, warm.test)] == [80, 10, 10]
    assert base(0).start(BEGIN) == BEGIN


def test_new_begins_where_the_champion_left_off_but_not_before_the_window() -> None:
    assert base(5).start(BEGIN - timedelta(days=1)) == BEGIN
    assert base(5).start(BEGIN + timedelta(days=1)) == BEGIN + timedelta(days=1)
