"""The caller's guess is as good as the documentation says, in any world, and by construction."""

import numpy as np
import pytest

from scripts.simulation.priors import make_priors
from scripts.simulation.truth import ndcg, truth_of
from scripts.simulation.visits import offer
from scripts.simulation.world import make_world


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_guess_has_a_true_ndcg_near_the_target_on_requests_of_its_own(seed: int) -> None:
    world = make_world(seed=seed, item_count=400, user_count=200)
    truth = truth_of(world)
    priors = make_priors(world, truth, candidate_count=50)
    assert priors.ndcg == pytest.approx(0.62, abs=0.005)
    # Fresh requests, counted one by one: not those over which the noise was found.
    rng, reached = np.random.default_rng(99), []
    for _ in range(1_500):
        user = int(rng.integers(200))
        candidates = offer(400, 50, rng)
        order = candidates[np.argsort(-priors.scores[user, candidates])][:10]
        reached.append(ndcg(truth.utilities[user, order], truth.utilities[user, candidates]))
    assert np.mean(reached) == pytest.approx(0.62, abs=0.03)


def test_the_guess_follows_from_the_world_alone() -> None:
    world = make_world(seed=5, item_count=100, user_count=50)
    truth = truth_of(world)
    one, other = (make_priors(world, truth, candidate_count=30) for _ in range(2))
    np.testing.assert_array_equal(one.scores, other.scores)
    assert ((one.scores > 0) & (one.scores < 1)).all()


def test_a_better_target_needs_less_noise() -> None:
    world = make_world(seed=5, item_count=100, user_count=50)
    truth = truth_of(world)
    good, bad = (make_priors(world, truth, candidate_count=30, target=target) for target in (0.9, 0.6))
    assert good.noise < bad.noise
    assert good.ndcg == pytest.approx(0.9, abs=0.005)


def test_a_target_out_of_reach_is_missed_and_said() -> None:
    world = make_world(seed=5, item_count=5, user_count=10)
    assert make_priors(world, truth_of(world), candidate_count=50).ndcg > 0.65  # five items are in a good order whatever one does
