"""Forests made elsewhere: taken when they can be walked, refused with the field and the reason when not."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.models.bundle import BadBundle, raw_scores, read_forest
from ranker.models.forest import check_forest, clean_forest
from ranker.models.importing import canned_matrix, import_forest
from runtime.errors import InvalidInput

NOW = datetime(2026, 11, 20, 14, 15, tzinfo=UTC)


class Schema(NamedTuple):
    names: tuple[str, ...] = ("a", "b", "c", "d")
    hash: str = "schema-hash"


SCHEMA = Schema()


def forest(objective: str = "lambdarank", *, categorical: bool = False, classes: int = 1) -> bytes:
    random = np.random.default_rng(0)
    matrix = random.random((400, 3))
    matrix[:, 0] = random.integers(0, 6, 400)
    matrix[random.random(400) < 0.2, 1] = np.nan
    label = random.integers(0, 5, 400) if objective == "lambdarank" else random.integers(0, max(classes, 2), 400)
    parameters = {
        "objective": objective,
        "num_leaves": 6,
        "num_threads": 1,
        "verbosity": -1,
        "max_cat_to_onehot": 1,
        "min_data_per_group": 5,
    }
    if classes > 1:
        parameters["num_class"] = classes
    dataset = lightgbm.Dataset(
        matrix, label=label, group=[20] * 20 if objective == "lambdarank" else None, categorical_feature=[0] if categorical else "auto"
    )
    return lightgbm.train(parameters, dataset, 4).model_to_string().encode()


PLAIN = forest()


@pytest.mark.parametrize("text", [PLAIN, forest(categorical=True), forest("binary"), forest("regression")])
def test_forests_of_lightgbm_are_taken(text: bytes) -> None:
    bundle = import_forest(text, ["c", "a", "d"], "mine-1", SCHEMA, now=NOW)
    passport = bundle.passport
    assert (passport.model_version, passport.source, passport.schema_hash) == ("mine-1", "import", "schema-hash")
    assert (passport.feature_names, passport.tree_count) == (("c", "a", "d"), 4)
    assert passport.data_start_time is None
    assert len(set(bundle.canned.scores)) > 1
    matrix = np.where(np.random.default_rng(1).random((500, 3)) < 0.1, np.nan, np.random.default_rng(2).random((500, 3)) * 6)
    np.testing.assert_array_equal(raw_scores(bundle.verify(), matrix), raw_scores(read_forest(text), matrix))
    contributions = bundle.verify().predict(matrix[:20], pred_contrib=True)
    np.testing.assert_array_equal(contributions, read_forest(text).predict(matrix[:20], pred_contrib=True))
    bundle.verify()


def test_a_split_of_what_is_missing_from_what_is_not_is_taken() -> None:
    random = np.random.default_rng(3)
    matrix = random.random((400, 3))
    matrix[:, 1] = random.integers(0, 5, 400)
    matrix[random.random(400) < 0.5, 1] = np.nan
    dataset = lightgbm.Dataset(matrix, label=np.isnan(matrix[:, 1]).astype(float))
    text = lightgbm.train({"objective": "regression", "num_leaves": 4, "num_threads": 1, "verbosity": -1}, dataset, 4).model_to_string()
    assert re.search(r"^threshold=(\S+ )*inf( |$)", text, re.MULTILINE), "LightGBM tells them apart by another number now"
    bundle = import_forest(text.encode(), ["a", "b", "c"], "mine-1", SCHEMA, now=NOW)
    check_forest(bundle.forest)
    rows = np.array([[0.5, value, 0.5] for value in (np.nan, 0.5, -1e300, 1e300, np.inf, -np.inf)])
    np.testing.assert_array_equal(raw_scores(bundle.verify(), rows), raw_scores(read_forest(text.encode()), rows))


def test_without_a_name_one_is_made_of_time_and_content() -> None:
    version = import_forest(PLAIN, ["a", "b", "c"], None, SCHEMA, now=NOW).model_version
    assert re.fullmatch(r"m20261120T141500-[0-9a-f]{6}", version)
    assert import_forest(PLAIN, ["a", "b", "c"], None, SCHEMA, now=NOW).model_version == version
    assert import_forest(PLAIN, ["a", "b", "d"], None, SCHEMA, now=NOW).model_version != version


def test_the_summary_is_that_of_lightgbm() -> None:
    summary = clean_forest(PLAIN)
    booster = read_forest(PLAIN)
    assert (summary.feature_count, summary.tree_count) == (booster.num_feature(), booster.num_trees())
    assert summary.max_leaf_count == 6


def test_canned_values_reach_both_sides_of_the_thresholds() -> None:
    booster = read_forest(PLAIN)
    matrix = canned_matrix(booster)
    assert np.isnan(matrix).any()
    leaves = booster.predict(matrix, pred_leaf=True)
    assert all(len(set(column)) > 2 for column in np.asarray(leaves).T)
    np.testing.assert_array_equal(matrix, canned_matrix(booster))


@pytest.mark.parametrize(
    ("names", "version", "field", "reason"),
    [
        (["a", "b"], "v", "feature_names", "WRONG_COUNT"),
        ([], "v", "feature_names", "WRONG_COUNT"),
        (["a", "b", "zz"], "v", "feature_names[2]", "UNKNOWN_FEATURE"),
        (["a", "b", "a"], "v", "feature_names[2]", "DUPLICATE"),
        (["a", "b", "c"], "-v", "model_version", "MALFORMED"),
        (["a", "b", "c"], "v" * 257, "model_version", "MALFORMED"),
        (["a", "b", "c"], "v\n", "model_version", "MALFORMED"),
    ],
)
def test_wrong_names_are_refused_with_their_field(names: list[str], version: str, field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        import_forest(PLAIN, names, version, SCHEMA, now=NOW)
    assert (field, reason) in {(one.field, one.reason) for one in caught.value.violations}


def changed(pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> bytes:
    """The plain forest with the first match replaced; the sizes in the header are left out, as a careful forger would."""
    text, count = re.subn(pattern, replacement, re.sub(r"tree_sizes=.*\n", "", PLAIN.decode()), count=1)
    assert count == 1
    return text.encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "does not begin with a line"),
        (b"\x80\x04pickle", "not ASCII"),
        (PLAIN[: len(PLAIN) // 3], "cut short"),
        (b"tree\nversion=v4\nnum_class=1\n\nend of trees\n", "max_feature_idx is missing"),
        (changed(r"split_gain=\S+", "split_gain=x"), "split_gain has 'x', which is no finite number"),
        (changed(r"leaf_count=\S+", "leaf_count=4294967296"), "leaf_count has 4294967296; 0 to 2147483647 can be"),
        (changed(r"num_leaves=", "leaves="), "num_leaves is missing"),
        (changed(r"version=v4", "version=v2"), "version 'v2'"),
        (PLAIN.replace(b"tree_sizes=", b"tree_sizes=1 ", 1), "some were lost or added"),
        # Both ways lead back to the root: whoever walks this never comes to a leaf.
        (changed(r"left_child=(-?\d+)(.*)\nright_child=(-?\d+)", r"left_child=0\2\nright_child=0"), "split 0 has two parents"),
        (changed(r"left_child=(-?\d+)", "left_child=-1"), "has two parents|cannot be reached"),
        (changed(r"right_child=(-?\d+)", "right_child=99"), "right_child has 99; -6 to 4 can be"),
        (changed(r"right_child=(-?\d+)", "right_child=-99"), "right_child has -99"),
        (changed(r"split_feature=\d+", "split_feature=7"), "split_feature has 7; 0 to 2 can be"),
        (changed(r"split_feature=\d+", "split_feature=-1"), "split_feature has -1"),
        (changed(r"threshold=\S+", "threshold=nan"), "threshold has 'nan', which is no finite number"),
        (changed(r"threshold=\S+", "threshold=1e400"), "threshold has a value that is not finite"),
        (changed(r"leaf_value=\S+", "leaf_value=1e999"), "leaf_value has a value that is not finite"),
        (changed(r"leaf_value=\S+ ", "leaf_value="), "leaf_value has 5 values; expected 6"),
        (changed(r"num_leaves=\d+", "num_leaves=70000"), "num_leaves has 70000; 1 to 65536 can be"),
        (changed(r"num_leaves=\d+", "num_leaves=5"), "decision_type has 5 values; expected 4"),
        (changed(r"decision_type=\d+", "decision_type=99"), "decision_type has 99; 0 to 15 can be"),
        (changed(r"decision_type=\d+", "decision_type=1"), "num_cat has 0; 1 to 65536 can be"),
        (changed(r"is_linear=0", "is_linear=1"), "linear"),
        (changed(r"num_class=1", "num_class=3"), "one value per row"),
    ],
)
def test_a_forest_that_cannot_be_walked_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(BadBundle, match=message):
        clean_forest(text)
    with pytest.raises(InvalidInput) as caught:
        import_forest(text, ["a", "b", "c"], "v", SCHEMA, now=NOW)
    assert caught.value.violations[0].field == "forest"


def test_a_forest_of_several_classes_is_refused() -> None:
    with pytest.raises(BadBundle, match="one value per row"):
        clean_forest(forest("multiclass", classes=3))


def test_a_forest_without_sizes_is_read() -> None:
    text = changed("x^|Tree=0", "Tree=0")
    assert clean_forest(text).tree_count == 4
    import_forest(text, ["a", "b", "c"], "v", SCHEMA, now=NOW)


NUMBERS = [match.span() for match in re.finditer(r"-?\d+(\.\d+)?", PLAIN.decode().partition("parameters:")[0])]


@settings(max_examples=100, deadline=None)
@given(
    place=st.sampled_from(NUMBERS),
    value=st.sampled_from(["-1", "0", "1", "2", "9", "-9", "1000000", "-2147483648", "4294967296", "nan", "inf", "-inf", "1e400"]),
)
def test_any_other_number_is_refused_or_harmless(place: tuple[int, int], value: str) -> None:
    begin, end = place
    text = PLAIN[:begin] + value.encode() + PLAIN[end:]
    try:
        import_forest(text, ["a", "b", "c"], "v", SCHEMA, now=NOW).verify()
    except InvalidInput:
        pass
