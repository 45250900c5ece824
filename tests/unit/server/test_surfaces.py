"""What is set for a surface, and what comes of it without a worker."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from ranker.exploration.exploration import Exploration
from ranker.parameters import resolve
from ranker.rules.rule import Pin
from rankloop.v1 import ranking_pb2 as pb
from rankloop.worker.v1.worker_pb2 import RankingParameters
from server.ranking import by_prior
from server.slates import slate_of
from server.surfaces import Surfaces, SurfaceSettings

HOME = SurfaceSettings.model_validate(
    {
        "mmr_lambda": 0.5,
        "diversifier": "dpp",
        "exploration": {"policy": "epsilon_greedy", "epsilon": 0.05},
        "pins": [{"item_id": "i3", "position": 1, "rule_id": "launch"}],
        "exclusions": [{"tag": "adult"}],
        "caps": [{"item_type": "ad", "max_count": 1}],
    }
)


def request(**fields: object) -> pb.RankRequest:
    candidates = [pb.Candidate(item_id=f"i{place}", prior_score=-place, item_type="ad") for place in range(4)]
    candidates[0].tags.append("adult")
    return pb.RankRequest(candidates=candidates, surface="home", **fields)  # type: ignore[arg-type]


def test_a_surface_has_its_own_settings_others_those_of_the_star_or_none() -> None:
    surfaces = Surfaces({"home": HOME, "*": SurfaceSettings(mmr_lambda=0.9)})
    assert surfaces.parameters("home").mmr_lambda == 0.5
    assert surfaces.parameters("email").mmr_lambda == 0.9
    assert surfaces.parameters("").mmr_lambda == 0.9
    assert Surfaces({}).parameters("home") == RankingParameters()


def test_the_request_wins_over_the_surface_and_the_surface_over_the_deployment() -> None:
    given = Surfaces({"home": HOME}).parameters("home")
    resolved = resolve(request(), given, balance=0.7)
    assert (resolved.balance, resolved.diversifier) == (0.5, "dpp")
    assert resolved.exploration == Exploration(policy="epsilon_greedy", epsilon=0.05)
    asked = request(mmr_lambda=1.0, exploration=pb.Exploration(policy=pb.EXPLORATION_POLICY_NONE))
    asked.rules.pins.add(item_id="i1", position=1)
    resolved = resolve(asked, given, balance=0.7)
    assert (resolved.balance, resolved.exploration) == (1.0, None)
    assert resolved.rules.pins == (
        Pin(rule_id="rules.pins[0]", item_id="i1", position=1),
        Pin(rule_id="launch", item_id="i3", position=1),
    )
    nothing = resolve(request(), RankingParameters(), balance=0.7)
    assert (nothing.balance, nothing.diversifier, nothing.exploration, bool(nothing.rules)) == (0.7, "mmr", None, False)


def test_rules_hold_without_a_worker_and_are_written_down_with_the_slate() -> None:
    given = Surfaces({"home": HOME}).parameters("home")
    answer = by_prior(request(), "r", "RANKER_TIMEOUT", given)
    assert [(item.item_id, item.position, item.propensity) for item in answer.items] == [("i3", 1, 1.0)]
    assert not answer.HasField("exploration")
    slate = slate_of(request(), answer, None, datetime(2026, 1, 1, tzinfo=UTC))
    assert [(one["rule_id"], one["kind"], one["item_id"], one["position_before"], one["position"]) for one in slate["rule_effects"]] == [
        ("launch", "pin", "i3", 4, 1),
        ("surfaces.home.exclusions[0]", "exclusion", "i0", 1, 0),
        ("surfaces.home.caps[0]", "cap", "i1", 2, 0),
        ("surfaces.home.caps[0]", "cap", "i2", 3, 0),
    ]


def test_what_was_explored_is_written_down_with_the_slate() -> None:
    answer = pb.RankResponse(exploration=pb.ExplorationRecord(policy=pb.EXPLORATION_POLICY_THOMPSON, spread=0.2, seed=2**62, pool_size=9))
    slate = slate_of(request(), answer, None, datetime(2026, 1, 1, tzinfo=UTC))
    assert slate["exploration"] == {"policy": "thompson", "spread": 0.2, "seed": 2**62, "pool_size": 9}


@pytest.mark.parametrize(
    "wrong",
    [
        {"pins": [{"item_id": "a"}]},
        {"pins": [{"item_id": "a", "position": 0}]},
        {"boosts": [{"factor": 2}]},
        {"boosts": [{"tag": "a", "item_id": "b"}]},
        {"exclusions": [{}]},
        {"caps": [{"max_count": -1}]},
        {"exploration": {"policy": "sometimes"}},
        {"exploration": {"epsilon": 2}},
        {"mmr_lambda": 2},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SurfaceSettings.model_validate(wrong)
