"""The feature schema: names, order, hash, and the page that is made of it."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest

from ranker.features.feature import Feature
from ranker.features.schema import FeatureSchema, default_schema
from scripts.gen_features_page import PAGE, page


def feature(name: str, family: str = "a", default: float = 0.0, meaning: str = "something") -> Feature:
    return Feature(name=name, family=family, default=default, meaning=meaning)


def test_every_deployment_has_at_least_fifty_features_each_with_a_meaning_on_one_line() -> None:
    schema = default_schema()
    assert len(schema) >= 50
    assert len(set(schema.names)) == len(schema)
    assert all(one.meaning and "\n" not in one.meaning for one in schema.features)
    assert len({one.meaning for one in schema.features}) == len(schema)


def test_index_defaults_and_families_agree_with_the_order() -> None:
    schema = default_schema(("commute_minutes",))
    for column, one in enumerate(schema.features):
        assert schema.index[one.name] == column
        assert np.array_equal(schema.defaults[column], one.default, equal_nan=True)
        columns = schema.families[one.family]
        assert columns.start <= column < columns.stop


def test_hash_is_of_names_families_and_defaults_and_not_of_meanings() -> None:
    schema = FeatureSchema([feature("x", "a", 1.5), feature("y", "b", math.nan)])
    assert schema.hash == hashlib.sha256(json.dumps([["x", "a", 1.5], ["y", "b", None]], separators=(",", ":")).encode()).hexdigest()
    assert FeatureSchema([feature("x", "a", 1.5, "else"), feature("y", "b", math.nan)]).hash == schema.hash
    assert FeatureSchema([feature("y", "b", math.nan), feature("x", "a", 1.5)]).hash != schema.hash
    assert FeatureSchema([feature("x", "a", 1.0), feature("y", "b", math.nan)]).hash != schema.hash


def test_declared_names_join_the_request_family_once() -> None:
    schema = default_schema(("commute_minutes", "cost"))
    request = schema.names[schema.families["request"]]
    assert request[-1] == "commute_minutes"
    assert request.count("cost") == 1
    assert default_schema(("cost",)).hash == default_schema().hash


@pytest.mark.parametrize("name", ["item_ctr_7d", "Cost", "9lives", "", "a" * 65, "a b"])
def test_bad_or_computed_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"feature"):
        default_schema((name,))


def test_a_split_family_is_refused() -> None:
    with pytest.raises(ValueError, match="split"):
        FeatureSchema([feature("x", "a"), feature("y", "b"), feature("z", "a")])


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == page(default_schema())
