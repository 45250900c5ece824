"""Logs of the Open Bandit Dataset."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rankloop.v1.record_pb2 import Record
from runtime.errors import InvalidInput
from scripts.importing.arm import Arm
from scripts.importing.lines import Line
from scripts.importing.open_bandit import read, read_items

HEADER = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user-item_affinity_0"
ROWS = [
    "0,2019-11-24 00:03:13.442536+00:00,14,3,0,0.029411764705882353,aa,bb,0.0",
    "1,2019-11-24 00:05:39.519963+00:00,31,1,1,0.5,aa,cc,0.0",
    "2,2019-11-24 00:05:40+00:00,31,2,0,1.0,aa,bb,0.0",
]


def lines(*rows: str, header: str = HEADER) -> list[tuple[int, bytes]]:
    return [(number, line.encode()) for number, line in enumerate([header, *rows], start=1)]


def parsed(*rows: str, after: int = 0) -> list[Line]:
    return list(read(lines(*rows), policy="random", after=after))


def of_kind(found: list[Line], kind: str) -> list[Record]:
    return [record for line in found for record in line.records if record.WhichOneof("kind") == kind]


def test_a_row_is_a_slate_of_one_impression() -> None:
    slate = of_kind(parsed(*ROWS), "slate")[0].slate
    (item,) = slate.items
    assert (slate.algorithm, item.item_id, item.position, item.propensity) == ("random", "14", 3, 0.029411764705882353)
    assert slate.show_time.ToDatetime(UTC) == datetime(2019, 11, 24, 0, 3, 13, 442536, UTC)


def test_a_clicked_row_is_a_click_on_that_impression() -> None:
    found = parsed(*ROWS)
    (click,) = [record.interaction for record in of_kind(found, "interaction")]
    slate = of_kind(found, "slate")[1].slate
    assert (click.type, click.item_id, click.ranking_id, click.user_id) == ("click", "31", slate.ranking_id, slate.user_id)
    assert click.occur_time == slate.show_time


def test_the_same_hashed_features_are_the_same_user() -> None:
    found = parsed(*ROWS)
    first, second, third = (record.slate.user_id for record in of_kind(found, "slate"))
    assert first == third != second
    users = [record.user for record in of_kind(found, "user")]
    assert [(user.user_id, dict(user.attributes)) for user in users] == [
        (first, {"user_feature_0": "aa", "user_feature_1": "bb"}),
        (second, {"user_feature_0": "aa", "user_feature_1": "cc"}),
    ]


def test_ids_come_from_policy_row_and_content_and_nothing_else() -> None:
    def ids(found: list[Line]) -> list[str]:
        return [record.slate.ranking_id for record in of_kind(found, "slate")]

    assert ids(parsed(*ROWS)) == ids(parsed(*ROWS))
    assert ids(parsed(*ROWS, after=2)) == ids(parsed(*ROWS))[1:]
    assert len(set(ids(parsed(ROWS[0], ROWS[0])))) == 2  # two impressions that look alike are two
    assert not set(ids(parsed(*ROWS))) & set(ids(list(read(lines(*ROWS), policy="other"))))
    assert not set(ids(parsed(ROWS[0]))) & set(ids(parsed(ROWS[2])))  # another log under the same name


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("0,yesterday,14,3,0,0.5,aa,bb,0.0", "timestamp: 'yesterday'"),
        ("0,2019-11-24 00:03:13+00:00,14,top,0,0.5,aa,bb,0.0", "position: 'top'"),
        ("0,2019-11-24 00:03:13+00:00,14,0,0,0.5,aa,bb,0.0", "position: '0'"),
        ("0,2019-11-24 00:03:13+00:00,14,3,2,0.5,aa,bb,0.0", "click: '2'"),
        ("0,2019-11-24 00:03:13+00:00,14,3,0,0,aa,bb,0.0", "propensity_score: '0'"),
        ("0,2019-11-24 00:03:13+00:00,14,3,0,nan,aa,bb,0.0", "propensity_score: 'nan'"),
        ("0,2019-11-24 00:03:13+00:00,14,3,0,1.01,aa,bb,0.0", "propensity_score: '1.01'"),
        ("0,2019-11-24 00:03:13+00:00,14,3,0", "the row has 5 values, the header 9"),
        ('0,"2019-11-24', "not CSV"),
    ],
)
def test_a_bad_row_says_why_and_spoils_no_other(row: str, fault: str) -> None:
    before, bad, after = parsed(ROWS[0], row, ROWS[1])
    assert (bad.number, bad.text, bad.records) == (3, row, ())
    assert fault in bad.fault
    assert before.records
    assert after.records


def test_a_time_without_zone_is_utc() -> None:
    slate = of_kind(parsed("0,2019-11-24 00:03:13,14,3,0,0.5,aa,bb,0.0"), "slate")[0].slate
    assert slate.show_time.ToDatetime(UTC) == datetime(2019, 11, 24, 0, 3, 13, tzinfo=UTC)


@pytest.mark.parametrize("column", ["timestamp", "item_id", "position", "click", "propensity_score"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(InvalidInput, match=f"has a column {column}, and this one has not"):
        list(read(lines(*ROWS, header=HEADER.replace(column, "other")), policy="random"))


def test_items_have_hashed_attributes_and_numbers() -> None:
    table = lines("0,7,-0.5,ceca,eb6f", header=",item_id,item_feature_0,item_feature_1,item_feature_2")
    (line,) = read_items(table)
    item = line.records[0].item
    assert (item.item_id, dict(item.numbers)) == ("7", {"item_feature_0": -0.5})
    assert dict(item.attributes) == {"item_feature_1": "ceca", "item_feature_2": "eb6f"}


def test_as_an_arm_the_user_is_the_arrival() -> None:
    """The features at that moment: the third row is on the page of the first, the fourth is the same features later."""
    page = "2,2019-11-24 00:03:13.442536+00:00,31,2,1,1.0,aa,bb,0.0"
    later = "3,2019-11-25 00:03:13.442536+00:00,14,3,0,0.5,aa,bb,0.0"
    rows = [*ROWS[:2], page, later]
    arms = {name: list(read(lines(*rows), policy="random", arm=Arm("shop", name))) for name in ("uniform", "thompson")}
    slates = [record.slate for record in of_kind(arms["uniform"], "slate")]
    assert {(slate.experiment_id, slate.variant_id, slate.algorithm) for slate in slates} == {("shop", "uniform", "random")}
    users = [slate.user_id for slate in slates]
    assert users[0] == users[2]
    assert len(set(users)) == 3
    assert dict(slates[0].context) == {"user_feature_0": "aa", "user_feature_1": "bb"}
    clicks = [record.interaction for record in of_kind(arms["uniform"], "interaction")]
    assert [(click.user_id, click.ranking_id) for click in clicks] == [(slate.user_id, slate.ranking_id) for slate in slates[1:3]]
    # Nobody of it is anybody of another arm, or of the log without an arm; and an arrival is no person for the catalogue.
    others = [*of_kind(arms["thompson"], "slate"), *of_kind(parsed(*rows), "slate")]
    assert not {one.slate.user_id for one in others} & set(users)
    assert not {one.slate.ranking_id for one in others} & {one.ranking_id for one in slates}
    assert not of_kind(arms["uniform"], "user")
