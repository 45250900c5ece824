"""Who comes, what is offered, and how diverse a slate is."""

import numpy as np
import pytest

from scripts.simulation.seeds import generator
from scripts.simulation.visits import arrivals, diversity, offer
from scripts.simulation.world import make_world


def test_arrivals_follow_activity_and_the_phase() -> None:
    world = make_world(seed=1, item_count=1, user_count=20)
    coming = arrivals(world, 50_000, "before")
    np.testing.assert_array_equal(coming, arrivals(world, 50_000, "before"))
    assert not np.array_equal(coming, arrivals(world, 50_000, "after"))
    np.testing.assert_allclose(np.bincount(coming, minlength=20) / 50_000, world.people.activities, atol=0.01)


def test_an_offer_holds_as_many_items_as_asked_for_each_once() -> None:
    candidates = offer(30, 10, generator(1, "test"))
    assert len(set(candidates.tolist())) == 10
    assert set(offer(30, 50, generator(1, "test")).tolist()) == set(range(30))


def test_every_item_is_offered_as_often() -> None:
    rng = generator(1, "test")
    counts = np.bincount(np.concatenate([offer(20, 5, rng) for _ in range(8_000)]), minlength=20)
    np.testing.assert_allclose(counts / 8_000, 5 / 20, atol=0.02)


def test_diversity_by_hand() -> None:
    world = make_world(seed=3, item_count=200, user_count=1)
    catalogue = world.catalogue
    alike, other = (int(item) for item in np.flatnonzero(catalogue.types == catalogue.types[0])[:2])
    served = [alike, other, int(np.flatnonzero(catalogue.types != catalogue.types[0])[0])]

    def similarity(one: int, another: int) -> float:
        a, b = set(catalogue.tag_names(one)), set(catalogue.tag_names(another))
        equal = int(catalogue.types[one] == catalogue.types[another])
        return (len(a & b) + equal) / (len(a | b) + equal)

    similar = [similarity(served[0], served[1]), similarity(served[0], served[2]), similarity(served[1], served[2])]
    assert similar[0] > 0  # the type that both have
    assert diversity(world, np.array(served)) == pytest.approx(1 - sum(similar) / 3)


def test_one_item_has_no_diversity() -> None:
    world = make_world(seed=3, item_count=40, user_count=1)
    assert diversity(world, np.array([1])) is None
    assert diversity(world, np.array([], dtype=np.int64)) is None
