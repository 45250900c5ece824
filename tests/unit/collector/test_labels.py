"""The label policy: known answers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from collector.labels import DEFAULT_RULES, Combination, combined_label, label_of
from collector.settings import LabelSettings


@pytest.mark.parametrize(
    ("kind", "value", "label"),
    [
        ("implement", None, 1.0),
        ("complete", None, 1.0),
        ("purchase", 99.5, 1.0),
        ("rate", 4.0, 4 / 5),
        ("rate", 0.0, 0.0),
        ("apply", None, 0.9),
        ("save", None, 0.8),
        ("favorite", None, 0.8),
        ("watchlist", None, 0.8),
        ("share", None, 0.6),
        ("comment", None, 0.6),
        ("like", None, 0.6),
        ("act", None, 0.4),
        ("click", None, 0.4),
        ("ai_usage", None, 0.3),
        ("view", None, 0.1),
        ("view", 30.0, 0.1 + 0.3 * 30 / 60),
        ("view", 600.0, 0.1 + 0.3),
        ("abandon", None, 0.1),
        ("dismiss", None, 0.0),
    ],
)
def test_default_policy(kind: str, value: float | None, label: float) -> None:
    assert label_of(DEFAULT_RULES[kind], value) == pytest.approx(label, abs=1e-15)


def test_what_acts() -> None:
    assert {kind for kind, rule in DEFAULT_RULES.items() if not rule.acts} == {"view", "abandon", "dismiss"}


@pytest.mark.parametrize(
    ("rule", "label"),
    [
        (Combination.MAX, 1.0),
        (Combination.SUM, 1.0),
        (Combination.LAST, 0.4),
        (Combination.DECAYED, 0.4 + 1.0 / 2 + 0.1 / 4),
    ],
)
def test_a_click_after_a_purchase(rule: Combination, label: float) -> None:
    assert combined_label([0.1, 1.0, 0.4], rule) == pytest.approx(label)


@pytest.mark.parametrize("rule", list(Combination))
def test_no_interaction_has_no_label(rule: Combination) -> None:
    assert combined_label([], rule) == 0.0


def test_the_configuration_adds_and_replaces_types() -> None:
    policy = LabelSettings(types={"bookmark": {"label": 0.7, "acts": True}, "click": {"label": 0.2, "acts": False}}).policy()  # type: ignore[dict-item]
    assert label_of(policy.rules["bookmark"], None) == 0.7
    assert not policy.rules["click"].acts
    assert label_of(policy.rules["save"], None) == 0.8


@pytest.mark.parametrize("name", ["Bookmark", "a.b", "$inc", "", "1st", "x" * 65])
def test_type_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValidationError, match="not a type's name"):
        LabelSettings(types={name: {"label": 0.7, "acts": True}})  # type: ignore[dict-item]
