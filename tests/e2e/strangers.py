"""Requests as strangers make them up: nearly sound, with a few hostile fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from rankloop.v1 import catalog_pb2, tracking_pb2
from rankloop.v1.catalog_pb2 import Item
from rankloop.v1.ranking_pb2 import Boost, Candidate, Cap, Exclusion, Exploration, FeatureMatrix, Pin, RankRequest, Rules, Target
from rankloop.v1.tracking_pb2 import SlateItem
from tests.e2e.entries import HOSTILE_KEYS, INFINITY, LONGEST, NAN, TOO_LONG, interaction, outcome, session, slate

TEXT = st.one_of(
    st.sampled_from(["", "i1", "u1", "click", "rate", "view", "\0", "$set", "$", "a.b", "\0$", *HOSTILE_KEYS, "ﬀ", "‮", LONGEST, TOO_LONG]),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40),
)
NUMBER = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308, NAN, INFINITY]))
TIME = st.builds(
    Timestamp,
    seconds=st.one_of(
        st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -62_135_596_800, 253_402_300_799, 253_402_300_800, 1_700_000_000])
    ),
    nanos=st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, 999_999_999])),
)
INTEGER = st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, 2]))
TEXTS = st.dictionaries(TEXT, TEXT, max_size=4)
NUMBERS = st.dictionaries(TEXT, NUMBER, max_size=4)


def messages(kind: Callable[..., Any], sure: dict[str, Any] | None = None, **fields: Any) -> Any:
    """Messages of a kind with a few hostile fields: with many of them hardly any would be sound enough to go all the way."""
    few = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)
    chosen = few.flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))
    return st.builds(lambda ours, theirs: kind(**{**ours, **theirs}), st.fixed_dictionaries(sure or {}), chosen)


SOUND_ID = st.sampled_from(["i1", "i2", "\0", "$a.b", "é"])
INTERACTIONS = messages(
    interaction,
    user_id=TEXT,
    item_id=TEXT,
    type=TEXT,
    value=NUMBER,
    occur_time=TIME,
    ranking_id=TEXT,
    position=INTEGER,
    session_id=TEXT,
    item_type=TEXT,
    surface=TEXT,
    dropoff_point=TEXT,
    context=TEXTS,
)
SLATE_ITEMS = messages(
    SlateItem,
    {"item_id": SOUND_ID},
    item_id=TEXT,
    item_type=TEXT,
    position=INTEGER,
    score=NUMBER,
    propensity=NUMBER,
    tags=st.lists(TEXT, max_size=3),
    attributes=TEXTS,
    features=NUMBERS,
    variant_id=TEXT,
)
SLATES = messages(
    slate,
    user_id=TEXT,
    session_id=TEXT,
    surface=TEXT,
    algorithm=TEXT,
    model_version=TEXT,
    show_time=TIME,
    context=TEXTS,
    items=st.lists(SLATE_ITEMS, max_size=3),
    experiment_id=TEXT,
    variant_id=TEXT,
    variant_propensity=NUMBER,
)
OUTCOMES = messages(
    outcome,
    user_id=TEXT,
    type=TEXT,
    before_value=NUMBER,
    value=NUMBER,
    item_id=TEXT,
    ranking_id=TEXT,
    occur_time=TIME,
    attributes=TEXTS,
)
SESSIONS = messages(
    session,
    {"session_id": SOUND_ID},
    session_id=TEXT,
    user_id=TEXT,
    start_time=TIME,
    end_time=TIME,
    pages=st.lists(TEXT, max_size=3),
)
ITEMS = messages(
    Item,
    {"item_id": SOUND_ID},
    item_id=TEXT,
    item_type=TEXT,
    tags=st.lists(TEXT, max_size=3),
    attributes=TEXTS,
    numbers=NUMBERS,
    create_time=TIME,
    available=st.booleans(),
)
CANDIDATES = messages(
    Candidate,
    {"item_id": SOUND_ID},
    item_id=TEXT,
    item_type=TEXT,
    prior_score=NUMBER,
    features=NUMBERS,
    tags=st.lists(TEXT, max_size=3),
    embedding=st.lists(st.floats(width=32), max_size=2),
    attributes=TEXTS,
    create_time=TIME,
)
TARGETS = st.one_of(st.builds(Target, item_id=TEXT), st.builds(Target, item_type=TEXT), st.builds(Target, tag=TEXT), st.just(Target()))
RANKINGS = messages(
    RankRequest,
    {"candidates": st.lists(CANDIDATES, min_size=1, max_size=3)},
    user_id=TEXT,
    session_id=TEXT,
    surface=TEXT,
    context=TEXTS,
    context_numbers=NUMBERS,
    candidates=st.lists(CANDIDATES, max_size=4),
    top_k=INTEGER,
    mmr_lambda=NUMBER,
    explain=st.booleans(),
    request_id=TEXT,
    model_version=st.one_of(st.just(""), TEXT),
    feature_matrix=st.builds(FeatureMatrix, names=st.lists(TEXT, max_size=3), values=st.binary(max_size=64)),
    exploration=messages(Exploration, {}, policy=st.integers(0, 4), epsilon=NUMBER, spread=NUMBER),
    rules=messages(
        Rules,
        {},
        pins=st.lists(messages(Pin, {"item_id": SOUND_ID}, item_id=TEXT, position=INTEGER), max_size=2),
        boosts=st.lists(messages(Boost, {"target": TARGETS}, target=TARGETS, factor=NUMBER, addend=NUMBER), max_size=2),
        exclusions=st.lists(messages(Exclusion, {"target": TARGETS}, target=TARGETS, rule_id=TEXT), max_size=2),
        caps=st.lists(messages(Cap, {}, item_type=TEXT, max_count=INTEGER), max_size=2),
    ),
)
HOSTILE = {
    "TrackInteractions": st.builds(
        lambda entries: tracking_pb2.TrackInteractionsRequest(interactions=entries), st.lists(INTERACTIONS, max_size=4)
    ),
    "RecordSlates": st.builds(lambda entries: tracking_pb2.RecordSlatesRequest(slates=entries), st.lists(SLATES, max_size=3)),
    "UpsertItems": st.builds(lambda entries: catalog_pb2.UpsertItemsRequest(items=entries), st.lists(ITEMS, max_size=4)),
    "RecordOutcomes": st.builds(lambda entries: tracking_pb2.RecordOutcomesRequest(outcomes=entries), st.lists(OUTCOMES, max_size=4)),
    "StartSession": st.builds(lambda entry: tracking_pb2.StartSessionRequest(session=entry), SESSIONS),
    "EndSession": messages(
        tracking_pb2.EndSessionRequest,
        {"session_id": SOUND_ID},
        session_id=TEXT,
        end_time=TIME,
        pages=st.lists(TEXT, max_size=3),
    ),
    "Rank": RANKINGS,
}
"""By method. What is sound in them is about few ids, so that what one request brings meets what others brought."""
SERVICES = dict.fromkeys(HOSTILE, "tracking") | {"UpsertItems": "catalog", "Rank": "ranking"}
