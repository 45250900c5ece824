"""What is said where there is too little to learn from."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ranker.training.columns import Columns
from ranker.training.data import DatasetCounts
from ranker.training.failures import CannotTrain
from ranker.training.settings import TrainerSettings
from ranker.training.suitability import require_interactions, require_variety
from tests.unit.ranker.training.test_training_columns import columns

NOW = datetime(2026, 1, 11, tzinfo=UTC)
NOTHING = columns(1).part(0, 0)


def test_missing_interactions_are_counted_and_older_ones_pointed_at() -> None:
    require_interactions(100, TrainerSettings())
    with pytest.raises(
        CannotTrain, match=r"^46 interactions in the last 90 days, 100 asked for: 54 are missing; wait for more, look further back"
    ):
        require_interactions(46, TrainerSettings())
    with pytest.raises(CannotTrain, match=r"there are older ones, the newest of 2019-11-30, 2,234 days ago,"):
        require_interactions(0, TrainerSettings(), newest_before=datetime(2019, 11, 30, 1, tzinfo=UTC), now=NOW)


def test_slates_of_one_item_with_few_labels_are_told_as_both() -> None:
    few = DatasetCounts(slates=20_000, slates_of_one_item=20_000, labelled_slates_of_one_item=115)
    with pytest.raises(CannotTrain, match=r"one item only.*The labels are few, too: 115 of 20,000 slates have one above 0") as told:
        require_variety(NOTHING, few)
    assert told.value.reason == "ONE_ITEM_SLATES"
    many = DatasetCounts(slates=20_000, slates_of_one_item=20_000, labelled_slates_of_one_item=5_000)
    with pytest.raises(CannotTrain, match=r"show at least two items at once$"):
        require_variety(NOTHING, many)


def test_slates_without_a_label_say_what_was_found() -> None:
    with pytest.raises(CannotTrain, match=r"none of 7 slates can be learned from \(5 without a label above 0, 2 of one item") as told:
        require_variety(NOTHING, DatasetCounts(slates=7, slates_of_one_item=2, slates_without_label=5))
    assert told.value.reason == "NO_LABELS"


def test_more_than_the_machine_holds_is_said_with_what_to_do() -> None:
    with pytest.raises(CannotTrain, match="GiB, which this machine does not have: look back less far") as told:
        Columns(feature_names=("a",), schema_hash="s", schemas={}, seen_only=False, row_capacity=2**57, slate_capacity=1)
    assert told.value.reason == "TOO_LARGE"
