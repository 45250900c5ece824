"""The catalogue's columns."""

from __future__ import annotations

import datetime
import math
import struct
from typing import Any

import numpy as np

from ranker.state.catalogue import Catalogue
from ranker.state.rows import Rows

MOMENT = datetime.datetime(2026, 3, 5, tzinfo=datetime.UTC)


def item(item_id: str, *, updated: float = 0.0, **fields: Any) -> dict[str, Any]:
    return {"_id": item_id, "update_time": MOMENT + datetime.timedelta(seconds=updated), **fields}


def catalogue(capacity: int = 1000) -> tuple[Catalogue, Rows]:
    rows = Rows(capacity)
    return Catalogue(rows, ("cost", "price")), rows


def test_a_deleted_item_is_as_if_never_known() -> None:
    known, rows = catalogue()
    full = {"item_type": "t", "tags": ["a"], "attributes": {"tier": "gold"}, "numbers": {"cost": 1.0}, "create_time": MOMENT}
    known.replace([item("a", embedding=struct.pack("<2f", 3, 4), **full)])
    at = rows.find(["a"], 1)
    assert known.available(at).tolist() == [True]
    embedded = known.embeddings(at)
    assert embedded is not None
    np.testing.assert_allclose(embedded[0], [[0.6, 0.8]], rtol=1e-6)
    known.replace([item("a", updated=1, deleted=True, **full)])
    assert known.available(at).tolist() == [False]
    assert (known.item_types[at[0]], known.tags[at[0]], known.tiers[at[0]]) == ("", (), "")
    assert np.isnan(known.numbers(at)).all()
    assert np.isnan(known.create_seconds(at)).all()
    gone = known.embeddings(at)
    assert gone is not None
    assert not gone[0].any()
    assert not gone[1].any()


def test_fields_left_out_later_are_gone() -> None:
    known, rows = catalogue()
    known.replace([item("a", tags=["x", "x", "y"], numbers={"price": 2.0}, available=False)])
    at = rows.find(["a"], 1)
    assert known.tags[at[0]] == ("x", "y")
    assert known.available(at).tolist() == [False]
    known.replace([item("a", updated=1)])
    assert known.tags[at[0]] == ()
    assert known.available(at).tolist() == [True]
    assert np.isnan(known.numbers(at)).all()


def test_embeddings_of_another_size_zero_length_or_infinite_are_none() -> None:
    known, rows = catalogue()
    known.replace(
        [
            item("a", embedding=struct.pack("<2f", 1, 0)),
            item("b", embedding=struct.pack("<3f", 1, 0, 0)),
            item("c", embedding=struct.pack("<2f", 0, 0)),
            item("d", embedding=struct.pack("<2f", math.inf, 0)),
            item("e"),
        ]
    )
    found = known.embeddings(rows.find("abcde", 5))
    assert found is not None
    assert found[1].tolist() == [True, False, False, False, False]
    assert known.embedding_size == 2


def test_columns_grow_with_items_and_with_rows_others_added() -> None:
    known, rows = catalogue()
    known.replace([item(f"i{n}", numbers={"cost": float(n)}) for n in range(500)])
    rows.add("counted before it was described")
    at = rows.find(["i0", "i499", "counted before it was described", "unknown"], 4)
    assert known.numbers(at)[:2, 0].tolist() == [0.0, 499.0]
    assert np.isnan(known.numbers(at)[2:]).all()
    assert known.available(at).tolist() == [True, True, False, False]


def test_settled_items_are_passed_over_and_fresh_ones_are_not() -> None:
    known, rows = catalogue()
    known.replace([item("a", item_type="first")])
    at = rows.get("a")
    known.replace([item("a", item_type="second")], settled_before=MOMENT.timestamp())
    assert known.item_types[at] == "second"
    known.replace([item("a", item_type="third")], settled_before=MOMENT.timestamp() + 1)
    assert known.item_types[at] == "second"
    known.replace([item("a", updated=0.5, item_type="fourth")], settled_before=MOMENT.timestamp() + 1)
    assert known.item_types[at] == "fourth"
    assert known.newest_update_seconds == MOMENT.timestamp() + 0.5
