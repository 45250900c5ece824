"""Rules, exploration and explanations through the public API, on a stack with a surface of its own and an imported model."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import lightgbm
import numpy as np
import pytest
from google.protobuf import text_format

from rankloop.v1 import catalog_pb2, model_pb2, stats_pb2
from rankloop.v1 import ranking_pb2 as pb
from runtime.mongo import Mongo
from runtime.settings import MongoSettings
from tests.e2e.stack import CALL_SECONDS, Client, Stack, details_of, eventually, failure_of, running

SURFACES = {
    "home": {
        "mmr_lambda": 1.0,
        "pins": [{"item_id": "i09", "position": 2, "rule_id": "launch"}],
        "exclusions": [{"tag": "adult", "rule_id": "decency"}],
        "caps": [{"item_type": "ad", "max_count": 1, "rule_id": "few ads"}],
    },
    "lab": {"mmr_lambda": 1.0, "exploration": {"policy": "epsilon_greedy", "epsilon": 0.5}},
    "varied": {"mmr_lambda": 0.1, "diversifier": "dpp"},
}


@pytest.fixture(scope="module")
def slates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    variables = {"RANKLOOP_SERVER_SURFACES": json.dumps(SURFACES), "RANKLOOP_SERVER_RANK_TIMEOUT_SECONDS": "10"}
    with running(tmp_path_factory.mktemp("slates"), **variables) as stack:
        yield stack


@pytest.fixture
async def caller(slates: Stack) -> AsyncIterator[Client]:
    """A client of a stack whose champion goes by cost alone: the dearer, the better."""
    async with Client(slates.address) as client:
        answer = await rank(client)
        if not answer.ml_ranking_applied:
            cost = np.linspace(0, 1, 201)
            parameters = {"objective": "regression", "num_leaves": 31, "min_data_in_leaf": 1, "verbosity": -1, "num_threads": 1}
            booster = lightgbm.train(parameters, lightgbm.Dataset(cost[:, None], cost, params=parameters), num_boost_round=60)
            forest = booster.model_to_string().encode()
            asked = model_pb2.ImportModelRequest(model_version="by-cost", forest=forest, feature_names=["cost"])
            await client.models.ImportModel(asked, timeout=CALL_SECONDS)
            await client.models.PromoteModel(model_pb2.PromoteModelRequest(model_version="by-cost"), timeout=CALL_SECONDS)

            async def serves() -> bool:
                return bool((await rank(client)).ml_ranking_applied)

            await eventually(serves)
        yield client


async def rank(client: Client, text: str = "", count: int = 10, **fields: Any) -> pb.RankResponse:
    """Ten candidates, i00 the best; i01 and i02 are ads, i00 is tagged adult, odd ones of one type."""
    candidates = [
        pb.Candidate(
            item_id=f"i{place:02}",
            item_type="ad" if place in (1, 2) else f"type{place % 2}",
            features={"cost": 1.0 - place / 10},
            tags=["adult"] if place == 0 else [],
        )
        for place in range(count)
    ]
    request = pb.RankRequest(**{"candidates": candidates, "mmr_lambda": 1.0, **fields})
    text_format.Parse(text, request)
    if request.mmr_lambda == -1:
        request.ClearField("mmr_lambda")
    answer: pb.RankResponse = await client.ranking.Rank(request, timeout=CALL_SECONDS)
    assert [item.position for item in answer.items] == list(range(1, len(answer.items) + 1))
    return answer


def order(answer: pb.RankResponse) -> str:
    return " ".join(item.item_id[1:] for item in answer.items)


def effects(answer: pb.RankResponse) -> set[tuple[str, str, int, int]]:
    return {(one.rule_id, one.item_id, one.position_before, one.position) for one in answer.rule_effects}


async def recorded(stack: Stack, ranking_id: str) -> dict[str, Any]:
    mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
    try:

        async def found() -> dict[str, Any] | None:
            return await mongo.collection("slates").find_one({"_id": ranking_id})

        slate = await eventually(found)
        assert slate is not None
        return slate
    finally:
        await mongo.close()


async def test_rules_of_a_request_hold_and_stay_with_the_slate(caller: Client, slates: Stack) -> None:
    assert order(await rank(caller)) == "00 01 02 03 04 05 06 07 08 09"
    answer = await rank(
        caller,
        """rules {
            pins { item_id: 'i07' position: 1 rule_id: 'campaign' }
            exclusions { target { item_id: 'i00' } }
            caps { item_type: 'ad' max_count: 1 }
            boosts { target { item_id: 'i05' } addend: 1 }
        }""",
        top_k=5,
    )
    assert order(answer) == "07 05 01 03 04"
    assert {item.propensity for item in answer.items} == {1.0}
    told = effects(answer)
    assert told >= {
        ("campaign", "i07", 0, 1),
        ("rules.exclusions[0]", "i00", 1, 0),
        ("rules.caps[0]", "i02", 3, 0),
        ("rules.boosts[0]", "i05", 0, 2),
    }
    slate = await recorded(slates, answer.ranking_id)
    kept = {(one["rule_id"], one["item_id"], one["position_before"], one["position"]) for one in slate["rule_effects"]}
    assert kept == told
    assert "exploration" not in slate


async def test_a_slate_of_which_rules_leave_nothing_is_none(caller: Client, slates: Stack) -> None:
    user_id = uuid.uuid4().hex
    excluded = " ".join(f"exclusions {{ target {{ item_type: '{name}' }} }}" for name in ("ad", "type0", "type1"))
    nothing = await rank(caller, f"rules {{ {excluded} }}", user_id=user_id)
    assert not nothing.items
    assert len(nothing.rule_effects) == 10
    something = await rank(caller, user_id=user_id)
    await recorded(slates, something.ranking_id)
    # Nobody was shown anything the first time, and what counts goes on counting.
    await caller.folded()
    stats = (await caller.stats.GetUserStats(stats_pb2.GetUserStatsRequest(user_id=user_id), timeout=CALL_SECONDS)).stats
    assert (stats.slate_count, stats.impression_count) == (1, 10)


async def test_rules_of_a_surface_hold_beside_those_of_the_request(caller: Client) -> None:
    answer = await rank(caller, surface="home")
    assert order(answer) == "01 09 03 04 05 06 07 08"
    assert effects(answer) >= {("launch", "i09", 10, 2), ("decency", "i00", 1, 0), ("few ads", "i02", 3, 0)}
    both = await rank(caller, "rules { pins { item_id: 'i08' position: 2 } exclusions { target { item_type: 'ad' } } }", surface="home")
    assert order(both) == "03 08 04 05 06 07 09"
    assert order(await rank(caller, surface="elsewhere")) == "00 01 02 03 04 05 06 07 08 09"


async def test_types_and_tags_of_the_catalogue_count_for_rules(caller: Client) -> None:
    items = [catalog_pb2.Item(item_id=f"known{number}", item_type="shoe", tags=["red"]) for number in range(3)]
    await caller.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=items), timeout=CALL_SECONDS)
    asked = [pb.Candidate(item_id=f"known{number}", features={"cost": number / 4}) for number in range(3)] + [pb.Candidate(item_id="other")]

    async def bounded() -> bool:
        answer = await rank(caller, "rules { caps { item_type: 'shoe' max_count: 1 } }", candidates=asked)
        return [item.item_id for item in answer.items] == ["known2", "other"]

    await eventually(bounded)
    answer = await rank(caller, "rules { exclusions { target { tag: 'red' } } }", candidates=asked)
    assert [item.item_id for item in answer.items] == ["other"]


async def test_a_surface_has_its_own_diversity_and_the_request_wins(caller: Client) -> None:
    varied = await rank(caller, surface="varied", mmr_lambda=-1, top_k=3)
    assert len({"ad" if item.item_id in ("i01", "i02") else int(item.item_id[1:]) % 2 for item in varied.items}) == 3
    assert order(await rank(caller, surface="varied", top_k=3)) == "00 01 02"


@pytest.mark.parametrize(
    "exploration", ["", "exploration { policy: EXPLORATION_POLICY_THOMPSON spread: 0.3 }"], ids=["epsilon of the surface", "thompson"]
)
async def test_what_happens_is_what_the_propensities_say(caller: Client, exploration: str) -> None:
    draws = 250
    shown: dict[tuple[str, int], list[float]] = defaultdict(list)
    rules = "rules { pins { item_id: 'i08' position: 2 } caps { item_type: 'ad' max_count: 1 } }"
    for _ in range(draws):
        answer = await rank(caller, f"{exploration} {rules}", surface="lab", top_k=4)
        assert len(answer.items) == 4
        assert sum(item.item_id in ("i01", "i02") for item in answer.items) <= 1
        assert (answer.items[1].item_id, answer.items[1].propensity) == ("i08", 1.0)
        for item in answer.items:
            assert 0 < item.propensity <= 1
            shown[item.item_id, item.position].append(item.propensity)
    assert len(shown) >= 8, "chance had its say"
    # What was shown with probability p stands for 1 ÷ p requests: each cell stands for all of them. (Thompson's probabilities move a little
    # from call to call, since what is shown becomes better known.)
    for cell, propensities in shown.items():
        least = min(propensities)
        if least > 0.05:
            standing_for = sum(1 / propensity for propensity in propensities) / draws
            assert abs(standing_for - 1) <= 5 * ((1 / least - 1) / draws) ** 0.5 + 1e-9, (cell, least)


async def test_chance_is_written_down_and_the_same_request_id_draws_the_same(caller: Client, slates: Stack) -> None:
    answer = await rank(caller, surface="lab", request_id="again")
    assert answer.exploration.policy == pb.EXPLORATION_POLICY_EPSILON_GREEDY
    assert (answer.exploration.epsilon, answer.exploration.pool_size) == (0.5, 10)
    assert await rank(caller, surface="lab", request_id="again") == answer
    slate = await recorded(slates, answer.ranking_id)
    assert slate["exploration"] == {"policy": "epsilon_greedy", "epsilon": 0.5, "seed": answer.exploration.seed, "pool_size": 10}
    assert [item["propensity"] for item in slate["items"]] == [item.propensity for item in answer.items]
    calm = await rank(caller, "exploration { policy: EXPLORATION_POLICY_NONE }", surface="lab")
    assert order(calm) == "00 01 02 03 04 05 06 07 08 09"
    assert not calm.HasField("exploration")


async def test_an_explanation_adds_up_to_the_score_whatever_else_moved_the_item(caller: Client) -> None:
    answer = await rank(caller, "explain: true rules { pins { item_id: 'i09' position: 1 } }", surface="lab", top_k=6)
    assert answer.items[0].item_id == "i09"
    for item in answer.items:
        assert sum(one.contribution for one in item.contributions) == pytest.approx(item.score, abs=1e-9)
        assert item.contributions[-1].feature == "(base)"
    best = next(item for item in answer.items if item.score == max(one.score for one in answer.items))
    assert best.contributions[0].words.startswith("its cost is ")


async def test_wrong_rules_are_named_by_their_paths(caller: Client) -> None:
    wrong = """
        rules {
            pins { item_id: 'nobody' position: 3 } pins { item_id: 'i01' position: 3 }
            exclusions {} caps { max_count: -1 }
            boosts { target { tag: 'x' } factor: -2 }
        }
        exploration { policy: EXPLORATION_POLICY_EPSILON_GREEDY epsilon: 2 }
    """
    error = await failure_of(rank(caller, wrong))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert {one.field for one in details_of(error)[1]} == {
        "rules.pins[0].item_id",
        "rules.pins[1].position",
        "rules.exclusions[0].target",
        "rules.caps[0].max_count",
        "rules.boosts[0].factor",
        "exploration.epsilon",
    }
