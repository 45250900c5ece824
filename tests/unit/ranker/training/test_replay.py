"""Replayed features are those that a ranker's state, recounted from scratch for each slate, would have given."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from ranker.features import request
from ranker.features.extraction import extract
from ranker.features.history import NO_HISTORY
from ranker.features.schema import default_schema
from ranker.state.history import history_of
from ranker.state.items import ItemState, day_of
from ranker.training.replay import Replay, columns_of

SCHEMA = default_schema(["fit"])
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = {"view": (0.1, False), "click": (0.4, True), "implement": (1.0, True), "dismiss": (0.0, False)}
CATALOGUE = [
    {
        "_id": f"i{number}",
        "item_type": ("post", "video")[number % 2],
        "tags": [f"t{number % 3}"],
        "create_time": BEGIN - timedelta(days=number),
        "update_time": BEGIN,
        "numbers": {"cost": float(number)},
    }
    for number in range(6)
]


def happened(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Slates and interactions over 70 days, some of them on impressions of days before."""
    random = np.random.default_rng(seed)
    slates: list[dict[str, Any]] = []
    interactions: list[dict[str, Any]] = []
    for number in range(60):
        moment = BEGIN + timedelta(minutes=int(random.integers(0, 70 * 24 * 60)))
        shown = [f"i{item}" for item in random.permutation(7)[:4]]
        items = [
            {"item_id": item_id, "item_type": ("post", "video")[int(item_id[1:]) % 2], "position": place}
            for place, item_id in enumerate(shown, start=1)
        ]
        user_id = f"u{random.integers(4)}" if random.random() < 0.9 else ""
        slates.append({"_id": f"r{number:03d}", "user_id": user_id, "surface": "home", "show_time": moment, "items": items})
        for event in range(random.integers(0, 12)):
            kind = str(random.choice(list(TYPES)))
            item = items[random.integers(4)]
            interactions.append(
                {
                    "_id": f"e{number}-{event}",
                    "user_id": user_id,
                    "item_id": item["item_id"],
                    "type": kind,
                    "label": TYPES[kind][0],
                    "acts": TYPES[kind][1],
                    "occur_time": moment + timedelta(minutes=int(random.integers(1, 6000))),
                    **({"ranking_id": f"r{number:03d}"} if random.random() < 0.8 else {}),
                    **({"item_type": item["item_type"]} if random.random() < 0.5 else {}),
                }
            )
    return sorted(slates, key=lambda one: one["show_time"]), sorted(interactions, key=lambda one: one["occur_time"])


def recounted(slate: dict[str, Any], slates: list[dict[str, Any]], interactions: list[dict[str, Any]]) -> np.ndarray:
    """The features of a slate, from a state made anew of all that happened before it."""
    now = slate["show_time"]
    before = [one for one in interactions if one["occur_time"] < now]
    counted: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0] * 8)

    def count(item_id: str, item_type: str, day: int, **changes: int) -> None:
        names = ("impressions", "clicked", "acted", "positions", "interactions", "label_nanos", "type_view", "type_dismiss")
        for scope, key in (("item", item_id), ("all", ""), *((("type", item_type),) if item_type else ())):
            for name, change in changes.items():
                counted[scope, key, day][names.index(name)] += change

    for one in before:
        kind = {f"type_{one['type']}": 1} if one["type"] in ("view", "dismiss") else {}
        day = day_of(one["occur_time"].timestamp())
        count(one["item_id"], one.get("item_type", ""), day, interactions=1, label_nanos=round(one["label"] * 1e9), **kind)
    for past in slates:
        if past["show_time"] >= now:
            continue
        for item in past["items"]:
            mine = [one for one in before if one.get("ranking_id") == past["_id"] and one["item_id"] == item["item_id"]]
            count(
                item["item_id"],
                item["item_type"],
                day_of(past["show_time"].timestamp()),
                impressions=1,
                positions=item["position"],
                clicked=int(any(one["type"] == "click" for one in mine)),
                acted=int(any(one["acts"] for one in mine)),
            )
    items = ItemState(SCHEMA.names[SCHEMA.families[request.FAMILY]], today=day_of(now.timestamp()))
    items.catalogue.replace(CATALOGUE)
    for scope, tallies in (("item", items.tallies), ("type", items.type_tallies), ("all", items.overall_tallies)):
        rows = [(key, day, values) for (of, key, day), values in counted.items() if of == scope]
        tallies.replace([key for key, _, _ in rows], [day for _, day, _ in rows], [values for _, _, values in rows])
    own = [one for one in reversed(before) if one["user_id"] == slate["user_id"] != ""]
    columns = columns_of(slate, (), SCHEMA)
    return extract(SCHEMA, columns, items.join(columns), history_of(own, items) if own else NO_HISTORY)


def test_every_slate_has_the_features_of_its_moment() -> None:
    slates, interactions = happened(seed=1)
    replay = Replay(SCHEMA)
    replay.items.catalogue.replace(CATALOGUE)
    waiting = list(interactions)
    for slate in slates:
        while waiting and waiting[0]["occur_time"] < slate["show_time"]:
            replay.interacted(waiting.pop(0))
        np.testing.assert_array_equal(replay.features(slate, ()), recounted(slate, slates, interactions))
        replay.showed(slate)
    assert len(waiting) < len(interactions) / 2


def test_what_the_caller_brought_wins_and_unknown_names_are_passed_over() -> None:
    values = np.array([[0.9, 7.0, 1.0], [0.2, np.nan, 2.0]], dtype="<f8")
    slate = {
        "_id": "r",
        "user_id": "",
        "show_time": BEGIN,
        "items": [{"item_id": "i1"}, {"item_id": "i2"}],
        "features": values.tobytes(),
    }
    replay = Replay(SCHEMA)
    replay.items.catalogue.replace(CATALOGUE)
    found = replay.features(slate, ("prior_score", "cost", "never_heard_of"))
    assert list(found[:, SCHEMA.index["prior_score"]]) == [0.9, 0.2]
    # Where the caller said nothing, the catalogue's number holds.
    assert list(found[:, SCHEMA.index["cost"]]) == [7.0, 2.0]
    assert list(found[:, SCHEMA.index["list_prior_rank"]]) == [0.0, 1.0]


@pytest.mark.parametrize(("algorithm", "expected"), [("prior_score", [0.9, 0.1]), ("editorial", [np.nan, np.nan])])
def test_scores_are_priors_only_where_the_priors_ranked(algorithm: str, expected: list[float]) -> None:
    items = [{"item_id": "i1", "score": 0.9}, {"item_id": "i2", "score": 0.1}]
    slate = {"_id": "r", "user_id": "u", "show_time": BEGIN, "items": items, "algorithm": algorithm}
    np.testing.assert_array_equal(Replay(SCHEMA).features(slate, ())[:, SCHEMA.index["prior_score"]], expected)
