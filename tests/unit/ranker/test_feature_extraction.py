"""From requests to feature values: known answers and laws."""

from __future__ import annotations

import datetime
import math
import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.features.counters import COUNTERS
from ranker.features.decoding import decode
from ranker.features.extraction import extract
from ranker.features.history import NO_HISTORY, History
from ranker.features.rates import STRENGTH
from ranker.features.schema import FeatureSchema, default_schema
from ranker.state.history import history_of
from ranker.state.items import ItemState, day_of
from rankloop.v1.ranking_pb2 import Candidate, FeatureMatrix, RankRequest

SCHEMA = default_schema()
MOMENT = datetime.datetime(2026, 3, 5, 15, 30, tzinfo=datetime.UTC)  # a Thursday
NOW = MOMENT.timestamp()
TODAY = day_of(NOW)
DAY = 86_400.0


def state(schema: FeatureSchema = SCHEMA) -> ItemState:
    return ItemState(schema.names[schema.families["request"]], today=TODAY)


def item(item_id: str, **fields: Any) -> dict[str, Any]:
    return {"_id": item_id, "update_time": MOMENT, **fields}


def counted(**counters: int) -> list[int]:
    return [counters.get(name, 0) for name in COUNTERS]


def did(
    item_id: str, kind: str = "click", *, label: float = 0.4, acts: bool = True, days_ago: float = 1.0, **fields: Any
) -> dict[str, Any]:
    occurred = datetime.datetime.fromtimestamp(NOW - days_ago * DAY, datetime.UTC)
    return {"item_id": item_id, "type": kind, "label": label, "acts": acts, "occur_time": occurred, **fields}


def values(
    request: RankRequest, items: ItemState | None = None, history: History = NO_HISTORY, schema: FeatureSchema = SCHEMA
) -> dict[str, list[float]]:
    items = items or state(schema)
    columns = decode(request, schema, NOW)
    matrix = extract(schema, columns, items.join(columns), history)
    assert matrix.shape == (len(request.candidates), len(schema))
    assert matrix.dtype == np.float64
    assert matrix.flags.c_contiguous
    assert not np.isinf(matrix).any()
    return {name: matrix[:, column].tolist() for column, name in enumerate(schema.names)}


def near(*expected: float) -> object:
    return pytest.approx(list(expected), nan_ok=True)


def test_an_unknown_item_for_a_stranger_has_the_defaults() -> None:
    found = values(RankRequest(candidates=[Candidate(item_id="nobody knows")]))
    known = {"hour": 15.5, "weekday": 3.0, "list_size": 1.0, "list_type_share": 0.0}
    for one in SCHEMA.features:
        assert found[one.name] == near(known.get(one.name, one.default)), one.name


def test_request_values_by_map_by_matrix_by_context_and_by_catalogue() -> None:
    items = state()
    items.catalogue.replace([item("a", numbers={"cost": 1.0, "price": 2.0, "unheard": 3.0})])
    found = values(
        RankRequest(
            candidates=[
                Candidate(item_id="a", prior_score=0.25, features={"duration": 5.0, "quality": 6.0}),
                Candidate(item_id="b", features={"duration": 7.0, "cost": 8.0, "never heard of": 1.0}),
            ],
            context_numbers={"match_score": 9.0, "quality": 10.0},
            feature_matrix=FeatureMatrix(names=["price", "duration"], values=struct.pack("<4d", math.nan, 50.0, 20.0, math.nan)),
        ),
        items,
    )
    assert found["prior_score"] == near(0.25, math.nan)
    assert found["cost"] == near(1.0, 8.0)
    assert found["price"] == near(2.0, 20.0)
    assert found["duration"] == near(50.0, 7.0)
    assert found["match_score"] == near(9.0, 9.0)
    assert found["quality"] == near(6.0, 10.0)


def test_unknown_names_are_counted_once_each() -> None:
    request = RankRequest(
        candidates=[Candidate(item_id=str(n), features={"x": 1.0, "cost": 1.0}) for n in range(3)],
        context_numbers={"y": 1.0},
        feature_matrix=FeatureMatrix(names=["x", "z"], values=bytes(48)),
    )
    columns = decode(request, SCHEMA, NOW)
    assert columns.unknown_names == 3
    assert set(columns.given) == {"cost"}


def test_a_value_sent_under_the_name_of_a_computed_feature_wins() -> None:
    found = values(RankRequest(candidates=[Candidate(item_id="a", features={"item_ctr_7d": 0.9}), Candidate(item_id="b")]))
    assert found["item_ctr_7d"] == near(0.9, 0.05)


def test_declared_features_are_read() -> None:
    schema = default_schema(("commute_minutes",))
    assert values(RankRequest(candidates=[Candidate(item_id="a", features={"commute_minutes": 12.0})]), schema=schema)[
        "commute_minutes"
    ] == [12.0]


def test_what_the_request_says_of_an_item_wins_over_the_catalogue() -> None:
    items = state()
    old = MOMENT - datetime.timedelta(days=10)
    items.catalogue.replace([item("a", item_type="t", tags=["x", "y"], create_time=old, attributes={"tier": "gold"})])
    request = RankRequest(
        candidates=[
            Candidate(item_id="a"),
            Candidate(item_id="a2", item_type="t", tags=["z"], attributes={"tier": "gold"}, create_time=Timestamp(seconds=int(NOW - DAY))),
        ]
    )
    found = values(request, items)
    assert found["item_age_days"] == near(10.0, 1.0)
    assert found["item_tag_count"] == [2.0, 1.0]
    assert found["item_type_code"][0] == found["item_type_code"][1]
    assert found["item_tier_code"][0] == found["item_tier_code"][1]
    assert found["list_type_share"] == [1.0, 1.0]


def test_rates_are_drawn_towards_the_types_and_that_towards_everythings() -> None:
    items = state()
    items.catalogue.replace([item("seen", item_type="t"), item("new", item_type="t")])
    items.tallies.replace(["seen"], [TODAY - 3], [counted(impressions=100, clicked=30)])
    items.type_tallies.replace(["t"], [TODAY - 3], [counted(impressions=200, clicked=40)])
    items.overall_tallies.replace([""], [TODAY - 3], [counted(impressions=1000, clicked=100)])
    found = values(RankRequest(candidates=[Candidate(item_id="seen"), Candidate(item_id="new"), Candidate(item_id="else")]), items)
    overall = (100 + STRENGTH * 0.05) / (1000 + STRENGTH)
    of_type = (40 + STRENGTH * overall) / (200 + STRENGTH)
    of_type_7d = (40 + STRENGTH * of_type) / (200 + STRENGTH)
    assert found["type_ctr_all"] == near(of_type, of_type, overall)
    assert found["item_ctr_all"] == near((30 + STRENGTH * of_type) / (100 + STRENGTH), of_type, overall)
    assert found["item_ctr_7d"] == near((30 + STRENGTH * of_type_7d) / (100 + STRENGTH), of_type_7d, overall)
    assert found["item_ctr_1d"] == near(of_type, of_type, overall)
    assert found["item_impressions_7d"] == [100.0, 0.0, 0.0]
    assert found["item_impressions_1d"] == [0.0, 0.0, 0.0]


def test_mean_label_and_position_of_an_item() -> None:
    items = state()
    items.tallies.replace(["a"], [TODAY], [counted(interactions=10, label_nanos=7 * 10**9, impressions=10, positions=30, type_dismiss=5)])
    found = values(RankRequest(candidates=[Candidate(item_id="a")]), items)
    assert found["item_label_all"] == near((7 + STRENGTH * 0.25) / (10 + STRENGTH))
    assert found["item_position_all"] == near((30 + STRENGTH * 5.0) / (10 + STRENGTH))
    assert found["item_dismiss_rate_all"] == near((5 + STRENGTH * 0.02) / (10 + STRENGTH))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=3 * len(COUNTERS), max_size=3 * len(COUNTERS)))
def test_rates_are_finite_whatever_was_counted(counts: list[int]) -> None:
    items = state()
    size = len(COUNTERS)
    items.tallies.replace(["a"], [TODAY], [counts[:size]])
    items.type_tallies.replace(["t"], [TODAY], [counts[size : 2 * size]])
    items.overall_tallies.replace([""], [TODAY], [counts[2 * size :]])
    found = values(RankRequest(candidates=[Candidate(item_id="a", item_type="t"), Candidate(item_id="never shown")]), items)
    for family in ("item_rates", "type_rates"):
        for name in SCHEMA.names[SCHEMA.families[family]]:
            assert np.isfinite(found[name]).all(), name


def test_the_users_history_by_type_tag_and_item() -> None:
    items = state()
    items.catalogue.replace([item("a", item_type="t", tags=["x"]), item("b", item_type="t", tags=["x", "y"]), item("c", item_type="u")])
    history = history_of(
        [
            did("a", label=0.4, days_ago=0.5),
            did("gone", label=1.0, days_ago=3.0, item_type="u"),
            did("b", "view", label=0.1, acts=False, days_ago=5.0),
            did("c", "dismiss", label=0.0, acts=False, days_ago=20.0),
        ],
        items,
    )
    assert history.dismissed == {"c"}
    found = values(
        RankRequest(candidates=[Candidate(item_id="a"), Candidate(item_id="c"), Candidate(item_id="new", tags=["y", "z"])]), items, history
    )
    assert found["user_interactions_1d"] == [1.0] * 3
    assert found["user_interactions_7d"] == [3.0] * 3
    assert found["user_interactions_30d"] == [4.0] * 3
    mean, acting = (1.5 + 5 * 0.25) / 9, (2 + 5 * 0.2) / 9
    assert found["user_label"] == near(mean, mean, mean)
    assert found["user_act_rate"] == near(acting, acting, acting)
    assert found["user_dismiss_rate"] == near(*[(1 + 5 * 0.02) / 9] * 3)
    assert found["user_days_since_last"] == near(0.5, 0.5, 0.5)
    assert found["user_distinct_items"] == [4.0] * 3
    assert found["user_distinct_types"] == [2.0] * 3
    assert found["user_type_interactions"] == [2.0, 2.0, 0.0]
    assert found["user_type_share"] == near(0.5, 0.5, 0.0)
    assert found["user_type_label"] == near((0.5 + 3 * mean) / 5, (1.0 + 3 * mean) / 5, mean)
    assert found["user_type_act_rate"] == near((1 + 3 * acting) / 5, (1 + 3 * acting) / 5, acting)
    assert found["user_type_days_since"] == near(0.5, 3.0, math.nan)
    x, y = (0.5 + 3 * mean) / 5, (0.1 + 3 * mean) / 4
    assert found["user_tag_label"] == near(x, mean, (y + mean) / 2)
    assert found["user_tag_label_best"] == near(x, mean, max(y, mean))
    assert found["user_tag_overlap"] == near(1.0, 0.0, 0.5)
    assert found["user_item_interactions"] == [1.0, 1.0, 0.0]
    assert found["user_item_best_label"] == near(0.4, 0.0, math.nan)
    assert found["user_item_days_since"] == near(0.5, 20.0, math.nan)
    assert found["user_item_dismissed"] == [0.0, 1.0, 0.0]


def test_closeness_to_what_the_user_liked() -> None:
    def packed(*numbers: float) -> bytes:
        return struct.pack(f"<{len(numbers)}f", *numbers)

    items = state()
    items.catalogue.replace(
        [item("liked", embedding=packed(3, 0)), item("loved", embedding=packed(0, 2)), item("a", embedding=packed(1, 1))]
    )
    # Clicked, and dismissed after that: not liked.
    items.catalogue.replace([item("disliked", embedding=packed(-1, -1))])
    disliked = [did("disliked", "dismiss", label=0.0, acts=False), did("disliked", label=0.4)]
    history = history_of([did("liked", label=0.4), did("loved", label=0.8), did("a", "view", label=0.1, acts=False), *disliked], items)
    found = values(
        RankRequest(candidates=[Candidate(item_id="a"), Candidate(item_id="b", embedding=[-1, 0]), Candidate(item_id="c")]), items, history
    )
    half = math.sqrt(0.5)
    assert found["embedding_match"] == pytest.approx([half, (0.4 * -1 + 0.8 * 0) / 1.2, math.nan], nan_ok=True, abs=1e-6)
    assert found["embedding_match_best"] == pytest.approx([half, 0.0, math.nan], nan_ok=True, abs=1e-6)


def test_moment_device_and_surface() -> None:
    found = values(RankRequest(candidates=[Candidate(item_id="a")], surface="Search", context={"device": "mobile"}))
    assert (found["hour"], found["weekday"]) == ([15.5], [3.0])
    assert [found[f"device_{name}"][0] for name in ("mobile", "desktop", "tablet")] == [1.0, 0.0, 0.0]
    assert [found[f"surface_{name}"][0] for name in ("home", "search", "email")] == [0.0, 1.0, 0.0]


def test_standing_within_the_list() -> None:
    priors = [3.0, 1.0, None, 3.0]
    found = values(
        RankRequest(
            candidates=[Candidate(item_id=str(n), prior_score=prior, item_type="t" if n < 3 else "u") for n, prior in enumerate(priors)]
        )
    )
    mean, spread = 7 / 3, math.sqrt(((3 - 7 / 3) ** 2 * 2 + (1 - 7 / 3) ** 2) / 3)
    assert found["list_size"] == [4.0] * 4
    assert found["list_prior_rank"] == near(0.0, 1.0, math.nan, 0.0)
    assert found["list_prior_z"] == near((3 - mean) / spread, (1 - mean) / spread, math.nan, (3 - mean) / spread)
    assert found["list_type_share"] == near(0.75, 0.75, 0.75, 0.25)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=10))
def test_list_relative_values_are_finite_for_any_prior(priors: list[float]) -> None:
    found = values(RankRequest(candidates=[Candidate(item_id=str(n), prior_score=prior) for n, prior in enumerate(priors)]))
    assert np.isfinite(found["list_prior_z"]).all()
    assert all(0.0 <= rank <= 1.0 for rank in found["list_prior_rank"])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_batch_equals_one_by_one(data: st.DataObject) -> None:
    """Except for what is relative to the list."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    items = state()
    items.catalogue.replace(
        [
            item(
                f"i{n}",
                item_type=f"t{n % 3}",
                tags=[f"g{tag}" for tag in rng.integers(0, 6, n % 4)],
                embedding=rng.normal(size=4).astype("<f4").tobytes(),
            )
            for n in range(8)
        ]
    )
    items.tallies.replace([f"i{n}" for n in range(8)], [TODAY - n for n in range(8)], rng.integers(0, 50, (8, len(COUNTERS))).tolist())
    items.type_tallies.replace([f"t{n}" for n in range(3)], [TODAY] * 3, rng.integers(0, 500, (3, len(COUNTERS))).tolist())
    history = history_of([did(f"i{n}", label=float(rng.random()), days_ago=float(n)) for n in range(int(rng.integers(0, 6)))], items)
    offered = [
        Candidate(
            item_id=f"i{n}",
            prior_score=float(rng.normal()),
            features={"cost": float(n)} if n % 2 else {},
            tags=["g1", "new"] if n % 5 == 0 else [],
        )
        for n in range(12)
    ]
    together = values(RankRequest(candidates=offered), items, history)
    alone = [values(RankRequest(candidates=[candidate]), items, history) for candidate in offered]
    for one in SCHEMA.features:
        if one.family != "list":
            expected = [found[one.name][0] for found in alone]
            assert together[one.name] == pytest.approx(expected, nan_ok=True, rel=1e-6, abs=1e-6), one.name
