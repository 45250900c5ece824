"""Columns of slates: parts are views, splits follow time, samples keep slates whole."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.training.baselines import as_shown, at_random, prior_score
from ranker.training.data import TrainingData
from ranker.training.failures import CannotTrain
from ranker.training.measurement import measure, sample_slates
from ranker.training.split import split


def columns(slates: int, *, seed: int = 0, names: tuple[str, ...] = ("prior_score", "b")) -> TrainingData:
    random = np.random.default_rng(seed)
    sizes = random.integers(2, 6, slates)
    rows = int(sizes.sum())
    labels = random.choice([0.0, 0.4, 1.0], rows)
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    labels[offsets[:-1]] = 1.0
    return TrainingData(
        feature_names=names,
        schema_hash="hash",
        matrix=random.random((rows, len(names))),
        labels=labels,
        positions=np.concatenate([np.arange(1, size + 1) for size in sizes]).astype(np.int32),
        offsets=offsets,
        show_times=np.arange(slates, dtype=np.int64) * 1000,
        users=random.integers(0, 5, slates).astype(np.int64),
        ranking_ids=np.array([f"r{slate}" for slate in range(slates)], dtype=object),
    )


def test_a_part_is_a_view_of_whole_slates() -> None:
    data = columns(10)
    part = data.part(3, 7)
    assert part.matrix.base is data.matrix
    assert list(part.ranking_ids) == ["r3", "r4", "r5", "r6"]
    assert list(part.group_sizes) == list(data.group_sizes[3:7])
    assert part.offsets[0] == 0
    np.testing.assert_array_equal(part.labels, data.labels[data.offsets[3] : data.offsets[7]])


@pytest.mark.parametrize(("slates", "share", "expected"), [(100, 0.2, (80, 10, 10)), (25, 0.2, (20, 2, 3)), (20, 0.5, (10, 5, 5))])
def test_the_latest_share_is_held_out_and_halved(slates: int, share: float, expected: tuple[int, int, int]) -> None:
    parts = split(columns(slates), validation_split=share, min_slates=20)
    assert tuple(part.slate_count for part in (parts.train, parts.validation, parts.test)) == expected
    assert parts.train.show_times[-1] < parts.validation.show_times[0]
    assert parts.validation.show_times[-1] < parts.test.show_times[0]
    assert [one.slate_count for one in parts.slices()] == list(expected)
    assert parts.slices()[0].end_time <= parts.slices()[1].start_time


@pytest.mark.parametrize(("slates", "share"), [(19, 0.2), (20, 0.05), (0, 0.2)])
def test_too_few_slates_are_refused(slates: int, share: float) -> None:
    with pytest.raises(CannotTrain, match=f"^{slates} slates .* too few"):
        split(columns(slates) if slates else columns(1).part(0, 0), validation_split=share, min_slates=20)


def test_columns_by_name_are_nan_where_there_are_none() -> None:
    data = columns(3)
    assert data.columns(("prior_score", "b")) is data.matrix
    chosen = data.columns(("b", "unknown"))
    np.testing.assert_array_equal(chosen[:, 0], data.matrix[:, 1])
    assert np.isnan(chosen[:, 1]).all()


def test_a_sample_has_whole_slates_over_all_of_the_time() -> None:
    data = columns(50)
    sample = sample_slates(data, 7)
    assert sample.slate_count == 7
    assert (sample.ranking_ids[0], sample.ranking_ids[-1]) == ("r0", "r49")
    for place, ranking_id in enumerate(sample.ranking_ids):
        slate = int(ranking_id[1:])
        np.testing.assert_array_equal(sample.part(place, place + 1).matrix, data.part(slate, slate + 1).matrix)
        np.testing.assert_array_equal(sample.part(place, place + 1).labels, data.part(slate, slate + 1).labels)
    assert sample_slates(data, 50) is data


def test_the_order_shown_is_the_positions() -> None:
    data = columns(5)
    best_first = TrainingData(**{name: getattr(data, name) for name in TrainingData.__slots__} | {"labels": -data.positions / 10 + 1.0})
    assert as_shown(best_first)[10] == pytest.approx(np.ones(5))


def test_without_a_prior_there_is_no_such_baseline() -> None:
    data = columns(5)
    assert prior_score(data) is not None
    data.matrix[:, 0] = np.nan
    assert prior_score(data) is None
    assert prior_score(columns(5, names=("a", "b"))) is None


def test_random_orders_come_near_the_expectation_over_all_orders() -> None:
    data = columns(200)
    flat = TrainingData(**{name: getattr(data, name) for name in TrainingData.__slots__} | {"positions": np.ones_like(data.positions)})
    # Equal positions share their places: that is the expectation over all orders, exactly.
    assert at_random(data, seed=1)[10].mean() == pytest.approx(as_shown(flat)[10].mean(), abs=0.01)
    np.testing.assert_array_equal(at_random(data, seed=1)[5], at_random(data, seed=1)[5])


def test_a_difference_is_the_mean_of_the_users_differences() -> None:
    data = columns(40)
    rankers = {"model": as_shown(data), "champion": at_random(data, seed=1)}
    by_name = {one.name: one for one in measure("test", data, rankers, differences=[("model", "champion")], samples=100, seed=1)}
    expected = by_name["test.model.ndcg_at_5"].value - by_name["test.champion.ndcg_at_5"].value
    assert by_name["test.model_minus_champion.ndcg_at_5"].value == pytest.approx(expected)
    assert set(by_name) == {f"test.{ranker}.ndcg_at_{k}" for ranker in ("model", "champion", "model_minus_champion") for k in (5, 10)}
