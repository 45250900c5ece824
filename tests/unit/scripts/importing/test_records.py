"""Lines of records in their JSON form."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from rankloop.v1.catalog_pb2 import Item, User
from rankloop.v1.record_pb2 import Record
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Session, Slate, SlateItem
from scripts.importing.records import KINDS, parse, read

RECORDS = [
    Record(item=Item(item_id="i1", tags=["a"], numbers={"cost": 2.5})),
    Record(user=User(user_id="u1")),
    Record(slate=Slate(ranking_id="r1", user_id="u1", items=[SlateItem(item_id="i1", propensity=0.5)])),
    Record(interaction=Interaction(event_id="e1", user_id="u1", item_id="i1", type="click")),
    Record(outcome=Outcome(event_id="o1", user_id="u1", type="revenue", value=3)),
    Record(session=Session(session_id="s1", user_id="u1", pages=["/"])),
]


def test_every_kind_comes_back_as_it_was_written() -> None:
    assert {record.WhichOneof("kind") for record in RECORDS} == set(KINDS)
    for record in RECORDS:
        line = json_format.MessageToJson(record, indent=None)
        assert parse(7, line).records == (record,)


def test_both_spellings_of_field_names_are_read() -> None:
    camel, snake = parse(1, '{"interaction": {"eventId": "e"}}'), parse(1, '{"interaction": {"event_id": "e"}}')
    assert camel.records == snake.records == (Record(interaction=Interaction(event_id="e")),)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("not json", "not the JSON form of a Record"),
        ('{"interaction": {"eventId": "e"}', "not the JSON form of a Record"),
        ("[]", "this one holds none"),
        ("3", "not the JSON form of a Record"),
        ('{"item": {"itemId": "\\ud800"}}', "not the JSON form of a Record"),
        ('{"item": {"createTime": "9999-99-99T00:00:00Z"}}', "not the JSON form of a Record"),
        ('{"interaction": {"position": 1e300}}', "not the JSON form of a Record"),
        ('{"interaction": {"evntId": "e"}}', 'no field named "evntId"'),
        ('{"interaction": {"occurTime": "yesterday"}}', "occurTime"),
        ('{"interaction": {}, "slate": {}}', "oneof"),
        ("{}", "this one holds none"),
        ("null", "not the JSON form of a Record"),
        ('{"item":' * 500 + "1" + "}" * 500, "not the JSON form of a Record"),
        ("[" * 100_000, "not the JSON form of a Record"),
    ],
)
def test_a_bad_line_says_why(text: str, fault: str) -> None:
    line = parse(3, text)
    assert (line.number, line.text, line.records) == (3, text, ())
    assert fault in line.fault


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KINDS, "itemId", "items", "occurTime", "features"]), inner, max_size=3)
    ),
)


@given(JSON)
def test_no_json_whatever_breaks_the_import_off(value: object) -> None:
    line = parse(1, json.dumps(value))
    assert bool(line.fault) != bool(line.records)


def test_blank_lines_and_those_dealt_with_are_passed_over() -> None:
    lines = [(1, b"{}"), (2, b"  "), (3, b'{"item": {}}'), (4, b""), (5, b"\xff"), (6, b'{"user": {}}')]
    found = list(read(lines, after=1))
    assert [line.number for line in found] == [3, 5, 6]
    assert [bool(line.fault) for line in found] == [False, True, False]
