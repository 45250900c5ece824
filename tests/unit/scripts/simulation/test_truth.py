"""True gains and NDCG by known answers, and by a second implementation."""

from math import log2

import numpy as np
import pytest

from scripts.simulation.truth import dcg, expected_ndcg, gain, ndcg, truth_of
from scripts.simulation.world import make_world


def test_gain_is_two_to_the_fourfold_utility_less_one() -> None:
    np.testing.assert_allclose(gain(np.array([0.0, 0.25, 0.5, 1.0])), [0.0, 1.0, 3.0, 15.0])


def test_dcg_by_hand() -> None:
    assert float(dcg(np.array([0.5, 0.25]))) == pytest.approx(3.0 / log2(2) + 1.0 / log2(3))


def test_dcg_ends_at_the_cutoff() -> None:
    assert float(dcg(np.array([0.5, 0.25, 1.0]), cutoff=2)) == pytest.approx(3.0 / log2(2) + 1.0 / log2(3))


def test_the_perfect_order_has_one() -> None:
    offered = np.random.default_rng(0).random(50)
    assert ndcg(np.sort(offered)[::-1][:10], offered) == pytest.approx(1.0)


def test_a_swap_by_hand() -> None:
    served, best = np.array([0.25, 0.5]), 3.0 / log2(2) + 1.0 / log2(3)
    assert ndcg(served, np.array([0.5, 0.25])) == pytest.approx((1.0 / log2(2) + 3.0 / log2(3)) / best)


def test_what_was_not_served_counts_against_the_slate() -> None:
    assert ndcg(np.array([0.25]), np.array([0.25, 0.5])) < ndcg(np.array([0.25]), np.array([0.25]))


def test_expectation_equals_the_mean_request_by_request() -> None:
    rng = np.random.default_rng(3)
    utilities, scores = rng.random((5, 30)), rng.random((5, 30))
    candidates = np.array([rng.permutation(30)[:12] for _ in range(5)])
    one_by_one = []
    for request in range(5):
        order = sorted(candidates[request], key=lambda item: -scores[request, item])
        one_by_one.append(ndcg(utilities[request, order], utilities[request, candidates[request]]))
    assert expected_ndcg(utilities, scores, candidates) == pytest.approx(sum(one_by_one) / 5)


def test_utility_is_made_of_the_documented_shares() -> None:
    truth = truth_of(make_world(seed=2, item_count=300, user_count=300))
    worth = (np.log(truth.utilities / (1 - truth.utilities)) + 1.0) / 1.2
    assert worth.mean() == pytest.approx(0.0, abs=1e-9)
    assert worth.std() == pytest.approx(1.0, abs=0.1)  # the parts are nearly uncorrelated, and their shares add up to 1
    hidden = worth - truth.appeals  # what shows only once an item is opened: half of the quality
    np.testing.assert_allclose(hidden, np.broadcast_to(hidden[0], hidden.shape), atol=1e-9)
    assert hidden[0].std() == pytest.approx(0.5 * 0.30**0.5)
