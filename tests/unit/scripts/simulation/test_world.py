"""The world follows from its seed, and its hidden part is distributed as the documentation says."""

import numpy as np
import pytest

from scripts.simulation.seeds import generator
from scripts.simulation.world import TAG_COUNT, TYPES, make_world


def test_the_same_seed_makes_the_same_world() -> None:
    one, other = (make_world(seed=7, item_count=50, user_count=20) for _ in range(2))
    assert one.catalogue.ids == other.catalogue.ids
    np.testing.assert_array_equal(one.catalogue.tags, other.catalogue.tags)
    np.testing.assert_array_equal(one.catalogue.qualities, other.catalogue.qualities)
    np.testing.assert_array_equal(one.people.tag_tastes, other.people.tag_tastes)


def test_another_seed_makes_another_world_with_other_ids() -> None:
    one, other = make_world(seed=7, item_count=50, user_count=20), make_world(seed=8, item_count=50, user_count=20)
    assert not set(one.catalogue.ids) & set(other.catalogue.ids)
    assert not np.array_equal(one.catalogue.qualities, other.catalogue.qualities)


def test_streams_of_different_purposes_are_different() -> None:
    first = generator(1, "visit", "before", 3).random(4)
    np.testing.assert_array_equal(first, generator(1, "visit", "before", 3).random(4))
    for other in (generator(1, "visit", "before", 4), generator(1, "visit", "after", 3), generator(2, "visit", "before", 3)):
        assert not np.array_equal(first, other.random(4))


def test_items_are_as_documented() -> None:
    catalogue = make_world(seed=1, item_count=2_000, user_count=1).catalogue
    assert len(set(catalogue.ids)) == len(catalogue) == 2_000
    assert catalogue.tags.shape == (2_000, TAG_COUNT)
    assert set(catalogue.tags.sum(axis=1)) == {2, 3, 4}
    assert set(catalogue.types) == set(range(len(TYPES)))
    assert np.bincount(catalogue.tiers).tolist() == pytest.approx([2_000 / 3] * 3, abs=1)
    assert np.corrcoef(catalogue.appraisals, catalogue.qualities)[0, 1] == pytest.approx(0.5, abs=0.06)
    assert catalogue.prices[catalogue.tiers == 0].max() <= catalogue.prices[catalogue.tiers == 2].min()
    assert catalogue.tag_names(0) == [f"topic-{tag + 1:02d}" for tag in range(TAG_COUNT) if catalogue.tags[0, tag]]


def test_people_come_by_their_activity() -> None:
    people = make_world(seed=1, item_count=1, user_count=500).people
    assert people.activities.sum() == pytest.approx(1.0)
    assert people.activities.min() > 0


@pytest.mark.parametrize(("items", "users"), [(0, 1), (1, 0)])
def test_an_empty_world_is_refused(items: int, users: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        make_world(seed=1, item_count=items, user_count=users)
