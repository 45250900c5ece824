"""Explanations in words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ranker.features.schema import default_schema
from ranker.features.words import words

SCHEMA = default_schema(["margin"])
NAN = float("nan")


def said(name: str, value: float, others: list[float], contribution: float = 0.31) -> str:
    return words(SCHEMA.features[SCHEMA.index[name]], value, np.array([value, *others]), contribution)


def test_a_rate_among_others() -> None:
    told = said("item_ctr_all", 0.12, [0.05, 0.08, 0.2])
    assert told == "clicked by 12 % of those shown so far, more than most candidates (+0.31)"


@pytest.mark.parametrize(
    ("others", "comparison"),
    [
        ([1.0] * 10, ", more than nearly all candidates"),
        ([1.0, 1.0, 9.0], ", more than most candidates"),
        ([9.0, 9.0, 1.0], ", less than most candidates"),
        ([9.0] * 10, ", less than nearly all candidates"),
        ([9.0, 1.0], ", about as most candidates"),
        ([5.0, 5.0], ""),
        ([], ""),
        ([NAN, NAN], ""),
    ],
)
def test_how_a_value_stands_among_the_candidates(others: list[float], comparison: str) -> None:
    assert said("cost", 5.0, others, -1.0) == f"its cost is 5{comparison} (-1.00)"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("margin", 2.5, "margin is 2.5"),
        ("price", NAN, "its price: not known"),
        ("item_tier_code", 7.0, "its tier"),
        ("item_tier_code", NAN, "its tier is not known"),
        ("type_act_rate_30d", 0.034, "items of its type: acted upon by 3.4 % of those shown in 30 days"),
        ("item_impressions_7d", 1234.0, "shown 1,234 times in 7 days"),
        ("item_age_days", 0.5, "it is 12 h old"),
        ("user_days_since_last", 0.01, "the user was last active 14 min ago"),
        ("user_item_dismissed", 1.0, "the user dismissed it"),
        ("weekday", 6.0, "it is Sunday (UTC)"),
        ("device_mobile", 0.0, "the device is not mobile"),
    ],
)
def test_values_in_words(name: str, value: float, told: str) -> None:
    assert said(name, value, []) == f"{told} (+0.31)"


def test_every_feature_of_the_schema_has_words_of_its_own() -> None:
    told = [words(feature, 1.0, np.array([1.0, 2.0]), 0.0) for feature in SCHEMA.features]
    # Only a declared feature is told by its bare name; no template is left unfilled.
    assert [feature.name for feature, one in zip(SCHEMA.features, told, strict=True) if re.match(rf"{feature.name} is ", one)] == ["margin"]
    assert not any("{" in one for one in told)
