"""Page tokens: ours come back as they went, and nobody else's pass."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InvalidInput
from server.paging import last_of, page_size, token_after

TIMES = st.integers(-62_135_596_800_000, 253_402_300_799_999)
IDS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=64)


@given(TIMES, IDS, st.lists(st.one_of(IDS, st.integers(), st.none()), max_size=4))
def test_a_token_says_where_the_page_ended(time: int, entry_id: str, question: list[object]) -> None:
    assert last_of(token_after(question, [time, entry_id]), question, int, str) == [time, entry_id]


def test_no_token_is_the_first_page() -> None:
    assert last_of("", ["q"], str) is None


@given(
    st.one_of(
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1),
        st.binary(min_size=1).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
    )
)
def test_whatever_a_stranger_makes_up_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        last_of(token, ["q"], int, str)
    assert [(one.field, one.reason) for one in refusal.value.violations] == [("page_token", "INVALID")]


def forged(last: object, question: list[object]) -> str:
    """The right question, and another end."""
    ours = json.loads(base64.urlsafe_b64decode(token_after(question, [0])))
    return base64.urlsafe_b64encode(json.dumps([ours[0], last]).encode()).decode()


@pytest.mark.parametrize(
    "last",
    [
        [10**30, "x"],
        [-(10**15), "x"],
        [True, "x"],
        [1.0, "x"],
        [0, 1],
        [0, "\ud800"],
        [0, "x" * 257],
        [0],
        [0, "x", "y"],
        {"a": 0, "b": ""},
        None,
        3,
    ],
)
def test_an_end_that_we_would_not_have_put_there_is_refused(last: object) -> None:
    with pytest.raises(InvalidInput):
        last_of(forged(last, ["q"]), ["q"], int, str)


def test_a_token_belongs_to_its_question() -> None:
    token = token_after(["items", "book"], ["a"])
    for other in (["items", "film"], ["items"], ["items", "book", ""], ["item", "sbook"]):
        with pytest.raises(InvalidInput, match="belongs to another question"):
            last_of(token, other, str)


def test_deep_nesting_is_no_way_in() -> None:
    with pytest.raises(InvalidInput):
        last_of(base64.urlsafe_b64encode(b"[" * 200_000).decode(), ["q"], str)


@pytest.mark.parametrize(("wanted", "size"), [(0, 100), (1, 1), (1000, 1000)])
def test_page_sizes(wanted: int, size: int) -> None:
    assert page_size(wanted) == size


@pytest.mark.parametrize("wanted", [-1, 1001, 2**31 - 1])
def test_page_sizes_out_of_range(wanted: int) -> None:
    with pytest.raises(InvalidInput):
        page_size(wanted)
