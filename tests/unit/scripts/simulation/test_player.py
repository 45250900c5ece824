"""What leaves the simulation: what a caller knows, and nothing of what is hidden. (That it plays is shown end to end.)"""

import asyncio

import grpc.aio
import numpy as np
import pytest

from scripts.connection import CallFailed, Connection
from scripts.simulation.player import Pace, Player
from scripts.simulation.priors import make_priors
from scripts.simulation.truth import truth_of
from scripts.simulation.world import TYPES, make_world

NOW = 1_700_000_000.0


def make_player(connection: Connection) -> Player:
    world = make_world(seed=3, item_count=60, user_count=10)
    truth = truth_of(world)
    priors = make_priors(world, truth, candidate_count=20)
    return Player(connection, world, truth, priors, run_id="run", pace=Pace(candidate_count=20, top_k=5), now=lambda: NOW)


async def test_nothing_hidden_is_sent() -> None:
    async with Connection("127.0.0.1:1") as connection:
        player = make_player(connection)
        world, truth = player.world, player.truth
        request = player.request(4, np.arange(20))
        items, users = player.items(), player.users()
    hidden = {
        *world.catalogue.qualities.tolist(),
        *world.people.log_budgets.tolist(),
        *np.exp(world.people.log_budgets).tolist(),
        *world.people.attention_exponents.tolist(),
        *world.people.type_tastes.ravel().tolist(),
        *world.people.tag_tastes.ravel().tolist(),
        *truth.utilities.ravel().tolist(),
        *truth.appeals.ravel().tolist(),
    }
    sent = [number for item in items for number in item.numbers.values()]
    sent += [number for user in users for number in user.numbers.values()]
    sent += [number for candidate in request.candidates for number in (candidate.prior_score, *candidate.features.values())]
    assert len(sent) == 60 * 2 + 10 + 20 * 3
    assert not hidden & set(sent)
    assert {name for item in items for name in item.numbers} == {"cost", "roi_potential"}
    assert {name for user in users for name in user.numbers} == {"budget"}


async def test_a_request_holds_the_candidates_with_the_callers_guess() -> None:
    async with Connection("127.0.0.1:1") as connection:
        player = make_player(connection)
        request = player.request(4, np.array([7, 2]), "visit-9")
    catalogue = player.world.catalogue
    assert (request.user_id, request.request_id, request.top_k) == (player.world.people.ids[4], "visit-9", 5)
    assert [candidate.item_id for candidate in request.candidates] == [catalogue.ids[7], catalogue.ids[2]]
    assert [candidate.item_type for candidate in request.candidates] == [TYPES[catalogue.types[7]], TYPES[catalogue.types[2]]]
    assert [candidate.prior_score for candidate in request.candidates] == [player.priors.scores[4, 7], player.priors.scores[4, 2]]


async def test_items_came_into_being_in_the_past() -> None:
    async with Connection("127.0.0.1:1") as connection:
        assert all(NOW - 366 * 86_400 < item.create_time.ToSeconds() <= NOW for item in make_player(connection).items())


async def test_a_call_that_is_refused_ends_the_run() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()  # it serves nothing, so every call is UNIMPLEMENTED
    try:
        async with Connection(f"127.0.0.1:{port}") as connection, asyncio.timeout(20):
            await connection.reach()
            with pytest.raises(CallFailed, match="UNIMPLEMENTED"):
                await make_player(connection).publish()
    finally:
        await server.stop(None)
