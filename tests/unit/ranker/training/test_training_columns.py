"""Columns of slates: parts are views, splits follow time, samples keep slates whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from ranker.training.baselines import as_shown, at_random, prior_score
from ranker.training.data import Codebook, TrainingData
from ranker.training.evaluation import FIGURES
from ranker.training.failures import CannotTrain
from ranker.training.measurement import measure, sample_slates
from ranker.training.sampling import thinned
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
        items=random.integers(0, 8, rows).astype(np.int32),
        item_types=random.integers(0, 2, rows).astype(np.int32),
        surfaces=np.zeros(slates, dtype=np.int32),
        codebook=Codebook(items=tuple(f"i{item}" for item in range(8)), item_types=("post", "video"), surfaces=("home",)),
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


def test_a_gap_is_taken_from_the_end_of_the_earlier_slice() -> None:
    # A slate per second; validation begins at 80 s and test at 90 s, and a fiftieth of the 99 s that all of them span is 1.98 s.
    parts = split(columns(100), validation_split=0.2, min_slates=20, gap=timedelta(hours=1))
    assert [part.slate_count for part in (parts.train, parts.validation, parts.test)] == [79, 9, 10]
    assert (parts.in_gap, parts.train.show_times[-1], parts.validation.show_times[0]) == (2, 78_000, 80_000)
    shorter = split(columns(100), validation_split=0.2, min_slates=20, gap=timedelta(milliseconds=1000))
    assert shorter.in_gap == 0
    whole = columns(4).part(0, 4)
    at_once = replace(whole, show_times=np.zeros(4, dtype=np.int64))
    assert split(at_once, validation_split=0.5, min_slates=4, gap=timedelta(hours=1)).in_gap == 0


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.5])
def test_sampling_keeps_what_has_a_label_and_so_many_others(ratio: float) -> None:
    data = columns(300, seed=3)
    before = [data.part(slate, slate + 1).labels.copy() for slate in range(300)]
    rows = {tuple(row): label for row, label in zip(data.matrix.tolist(), data.labels, strict=True)}
    sample = thinned(replace(data, matrix=data.matrix.copy(), labels=data.labels.copy()), negatives_per_positive=ratio, seed=1)
    assert sample.slate_count == 300
    for slate, labels in enumerate(before):
        positives, negatives = int((labels > 0).sum()), int((labels <= 0).sum())
        kept = sample.part(slate, slate + 1).labels
        assert (kept > 0).sum() == positives
        assert (kept <= 0).sum() == min(negatives, max(1, int(np.ceil(ratio * positives))))
    # Rows move with their labels.
    assert all(rows[tuple(row)] == label for row, label in zip(sample.matrix.tolist(), sample.labels, strict=True))
    again = thinned(replace(data, matrix=data.matrix.copy(), labels=data.labels.copy()), negatives_per_positive=ratio, seed=1)
    np.testing.assert_array_equal(sample.matrix, again.matrix)


def test_without_a_ratio_nothing_is_left_out() -> None:
    data = columns(10)
    assert thinned(data, negatives_per_positive=0.0, seed=1) is data


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
    assert as_shown(best_first)["ndcg_at_10"] == pytest.approx(np.ones(5))


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
    assert at_random(data, seed=1)["ndcg_at_10"].mean() == pytest.approx(as_shown(flat)["ndcg_at_10"].mean(), abs=0.01)
    np.testing.assert_array_equal(at_random(data, seed=1)["ndcg_at_5"], at_random(data, seed=1)["ndcg_at_5"])


def test_a_difference_is_the_mean_of_the_users_differences() -> None:
    data = columns(40)
    rankers = {"model": as_shown(data), "champion": at_random(data, seed=1)}
    by_name = {one.name: one for one in measure("test", data.users, rankers, differences=[("model", "champion")], samples=100, seed=1)}
    expected = by_name["test.model.ndcg_at_5"].value - by_name["test.champion.ndcg_at_5"].value
    assert by_name["test.model_minus_champion.ndcg_at_5"].value == pytest.approx(expected)
    assert set(by_name) == {f"test.{ranker}.{figure}" for ranker in ("model", "champion", "model_minus_champion") for figure in FIGURES}
