"""Bad rules and explorations: each wrong field is named, and right ones pass."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from ranker.validation import check
from rankloop.v1.ranking_pb2 import Candidate, RankRequest
from runtime.errors import InvalidInput


def asked(text: str) -> RankRequest:
    request = RankRequest(candidates=[Candidate(item_id="a"), Candidate(item_id="b")], top_k=2)
    text_format.Parse(text, request)
    return request


@pytest.mark.parametrize(
    "text",
    [
        "exploration {}",
        "exploration { policy: EXPLORATION_POLICY_EPSILON_GREEDY epsilon: 0 }",
        "exploration { policy: EXPLORATION_POLICY_THOMPSON spread: 10 }",
        "rules {}",
        "rules { pins { item_id: 'b' position: 2 rule_id: 'ad' } }",
        "rules { boosts { target { tag: 't' } factor: 0 addend: -10 } exclusions { target { item_id: 'zzz' } } caps { max_count: 0 } }",
    ],
)
def test_right_ones_pass(text: str) -> None:
    check(asked(text))


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        ("exploration { policy: 9 }", "exploration.policy", "UNKNOWN"),
        ("exploration { epsilon: 1.5 }", "exploration.epsilon", "OUT_OF_RANGE"),
        ("exploration { epsilon: nan }", "exploration.epsilon", "OUT_OF_RANGE"),
        ("exploration { spread: 0 }", "exploration.spread", "OUT_OF_RANGE"),
        ("exploration { spread: inf }", "exploration.spread", "OUT_OF_RANGE"),
        ("rules { pins { position: 1 } }", "rules.pins[0].item_id", "MISSING"),
        ("rules { pins { item_id: 'c' position: 1 } }", "rules.pins[0].item_id", "NOT_A_CANDIDATE"),
        ("rules { pins { item_id: 'a' } }", "rules.pins[0].position", "OUT_OF_RANGE"),
        ("rules { pins { item_id: 'a' position: 3 } }", "rules.pins[0].position", "OUT_OF_RANGE"),
        ("rules { pins { item_id: 'a' position: 1 } pins { item_id: 'a' position: 2 } }", "rules.pins[1].item_id", "DUPLICATE"),
        ("rules { pins { item_id: 'a' position: 1 } pins { item_id: 'b' position: 1 } }", "rules.pins[1].position", "DUPLICATE"),
        (f"rules {{ pins {{ item_id: 'a' position: 1 rule_id: '{'x' * 257}' }} }}", "rules.pins[0].rule_id", "TOO_LONG"),
        ("rules { boosts { factor: 2 } }", "rules.boosts[0].target", "MISSING"),
        ("rules { boosts { target { tag: '' } } }", "rules.boosts[0].target.tag", "MISSING"),
        ("rules { boosts { target { tag: 't' } factor: -1 } }", "rules.boosts[0].factor", "OUT_OF_RANGE"),
        ("rules { boosts { target { tag: 't' } factor: nan } }", "rules.boosts[0].factor", "OUT_OF_RANGE"),
        ("rules { boosts { target { tag: 't' } addend: inf } }", "rules.boosts[0].addend", "OUT_OF_RANGE"),
        ("rules { exclusions {} }", "rules.exclusions[0].target", "MISSING"),
        ("rules { caps { max_count: -1 } }", "rules.caps[0].max_count", "OUT_OF_RANGE"),
        ("rules { " + "caps { max_count: 1 } " * 101 + "}", "rules.caps", "TOO_MANY"),
    ],
)
def test_wrong_ones_are_named(text: str, field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check(asked(text))
    assert (field, reason) in {(one.field, one.reason) for one in refusal.value.violations}
