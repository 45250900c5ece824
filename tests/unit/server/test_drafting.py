"""One slate of two rankings: whose pick is what, within the rules, and what the ledger keeps of it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankloop.v1.ranking_pb2 import Candidate, Cap, Exclusion, Pin, RankRequest, RankResponse, Rules, Target
from rankloop.worker.v1.worker_pb2 import RankingParameters, ServedItems
from server.drafting import Outcome, Ranked, drafted, outcome_of
from server.experiments.interleaving import Team
from server.ranking import by_prior
from server.slates import slate_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = {Team.CONTROL: "usual", Team.TREATMENT: "new"}
IDS = "abcdefghij"


def request(**fields: object) -> RankRequest:
    """Ten items of two types: a to e of `x`, the others of `y`."""
    candidates = [Candidate(item_id=one, item_type="x" if one < "f" else "y", attributes={"tier": f"t-{one}"}) for one in IDS]
    return RankRequest(candidates=candidates, **fields)  # type: ignore[arg-type]


def ranked(asked: RankRequest, order: str, rules: Rules | None = None, *, reason: str = "", ranking_id: str = "r") -> Ranked:
    """The candidates in an order, within rules, as the server ranks without a worker."""
    priors = RankRequest()
    priors.CopyFrom(asked)
    for candidate in priors.candidates:
        candidate.prior_score = -order.index(candidate.item_id)
    parameters = RankingParameters(rules=rules)
    return Ranked(by_prior(priors, ranking_id, reason, parameters), None, parameters)


def served(asked: RankRequest, order: str, number: float, *, schema_hash: str = "h") -> Ranked:
    """The same as a worker tells it, with one feature: `number` and the candidate's place."""
    found = ranked(asked, order)
    places = [IDS.index(item.item_id) for item in found.response.items]
    features = np.array([[number, place] for place in places], dtype="<f8").tobytes()
    types = [asked.candidates[place].item_type for place in places]
    told = ServedItems(candidate_indexes=places, item_types=types, tiers=[""] * len(places), features=features, schema_hash=schema_hash)
    found.response.model_version, found.response.ml_ranking_applied, found.response.algorithm = f"m-{number:g}", True, "lambdarank"
    return Ranked(found.response, told, found.parameters)


def teams(response: RankResponse) -> dict[str, list[str]]:
    return {name: [item.item_id for item in response.items if item.variant_id == name] for name in ("usual", "new", "")}


@settings(max_examples=150, deadline=None)
@given(st.permutations(IDS), st.permutations(IDS), st.integers(0, 10), st.integers(0, 99), st.booleans())
def test_teams_even_orders_kept_pins_fixed_and_caps_held(one: list[str], other: list[str], top_k: int, number: int, ruled: bool) -> None:
    rules = None
    length = top_k or len(IDS)
    if ruled and length >= 3:
        rules = Rules(
            pins=[Pin(item_id="c", position=2)], exclusions=[Exclusion(target=Target(item_id="j"))], caps=[Cap(item_type="x", max_count=3)]
        )
    asked = request(top_k=top_k)
    control, treatment = (ranked(asked, "".join(order), rules, ranking_id=f"r{number}") for order in (one, other))
    response = drafted(asked, control, treatment, NAMES).response
    ids = [item.item_id for item in response.items]
    assert [item.position for item in response.items] == list(range(1, len(ids) + 1))
    assert len(ids) == len(set(ids)) == (min(length, 7) if rules else length)  # 3 of x and the 4 of y that are not excluded
    own = [item for item in response.items if item.variant_id]
    for end in range(len(own) + 1):
        sizes = Counter(item.variant_id for item in own[:end])
        if not rules:  # with rules one ranking may have nothing left
            assert abs(sizes["usual"] - sizes["new"]) <= 1
    for name, side in (("usual", control), ("new", treatment)):
        ranking = [item.item_id for item in side.response.items]
        places = [ranking.index(item.item_id) for item in own if item.variant_id == name]
        assert places == sorted(places)
    if rules:
        assert (ids[1], response.items[1].variant_id) == ("c", "")
        assert "j" not in ids
        assert sum(item_id < "f" for item_id in ids) <= 3
        pin = next(effect for effect in response.rule_effects if effect.rule_id == "rules.pins[0]")
        assert (pin.item_id, pin.position) == ("c", 2)
        assert all(effect.position == 0 or ids[effect.position - 1] == effect.item_id for effect in response.rule_effects)
    assert response == drafted(asked, control, treatment, NAMES).response


def test_items_are_told_as_their_ranking_saw_them() -> None:
    asked = request(top_k=4)
    control, treatment = served(asked, IDS, 1.0), served(asked, IDS[::-1], 2.0)
    found = drafted(asked, control, treatment, NAMES)
    response = found.response
    assert teams(response) == {"usual": ["a", "b"], "new": ["j", "i"], "": []}
    scores = {item.item_id: item.score for side in (control, treatment) for item in side.response.items}
    assert all(item.score == scores[item.item_id] for item in response.items)
    assert {item.propensity for item in response.items} == {0.0}
    assert (response.algorithm, response.model_version, response.ml_ranking_applied) == ("interleaved", "", True)
    assert not response.HasField("diversity_score")
    assert not response.HasField("exploration")
    response.experiment_id = "e"
    slate = slate_of(asked, response, found.served, NOW)
    assert [item["variant_id"] for item in slate["items"]] == [item.variant_id for item in response.items]
    assert not any("propensity" in item for item in slate["items"])
    features = np.frombuffer(slate["features"], dtype="<f8").reshape(4, 2)
    side = {"usual": 1.0, "new": 2.0}
    assert features.tolist() == [[side[item.variant_id], IDS.index(item.item_id)] for item in response.items]
    assert [item["item_type"] for item in slate["items"]] == ["x" if item.item_id < "f" else "y" for item in response.items]


@pytest.mark.parametrize("other", ["no worker", "another schema"])
def test_features_that_are_not_known_of_all_are_not_kept(other: str) -> None:
    asked = request(top_k=4)
    control = served(asked, IDS, 1.0)
    treatment = ranked(asked, IDS[::-1]) if other == "no worker" else served(asked, IDS[::-1], 2.0, schema_hash="h2")
    found = drafted(asked, control, treatment, NAMES)
    slate = slate_of(asked, found.response, found.served, NOW)
    assert "features" not in slate
    assert "schema_hash" not in slate
    assert {item["item_id"]: item["item_type"] for item in slate["items"]} == {"a": "x", "b": "x", "j": "y", "i": "y"}


def test_two_variants_of_one_model_are_its_slate() -> None:
    asked = request()
    assert drafted(asked, served(asked, IDS, 1.0), served(asked, IDS[::-1], 1.0), NAMES).response.model_version == "m-1"


def test_a_rule_of_one_variant_is_its_rankings_own_affair() -> None:
    asked = request(top_k=6)
    rules = Rules(pins=[Pin(item_id="i", position=1)], exclusions=[Exclusion(target=Target(item_id="a"))])
    response = drafted(asked, ranked(asked, IDS), ranked(asked, IDS, rules), NAMES).response
    assert teams(response)["new"][0] == "i"  # its best, as any other
    assert teams(response)["usual"][0] == "a"  # which the other one does not show
    assert [(effect.item_id, effect.position > 0) for effect in response.rule_effects] == [("i", True)]


def test_pins_beyond_a_short_slate_stand_at_its_end() -> None:
    asked = request()
    pins = [Pin(item_id="c", position=9), Pin(item_id="d", position=10)]
    rules = Rules(pins=pins, exclusions=[Exclusion(target=Target(item_type="y"))])
    response = drafted(asked, ranked(asked, IDS, rules), ranked(asked, IDS[::-1], rules), NAMES).response
    assert [item.item_id for item in response.items][3:] == ["c", "d"]
    assert len(response.items) == 5


@pytest.mark.parametrize(
    ("control", "treatment", "outcome"),
    [
        ("", "", Outcome.DRAFTED),
        ("NO_MODEL", "", Outcome.TREATMENT),
        ("", "RANKER_TIMEOUT", Outcome.CONTROL),
        ("NO_MODEL", "NO_MODEL", Outcome.NEITHER),
    ],
)
def test_a_ranking_that_fell_back_is_none(control: str, treatment: str, outcome: Outcome) -> None:
    asked = request()
    assert outcome_of(ranked(asked, IDS, reason=control), ranked(asked, IDS, reason=treatment)) is outcome
