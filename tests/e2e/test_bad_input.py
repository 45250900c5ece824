"""What no caller should send, sent over the wire to a running stack: every fault is named, and nothing of it is ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rankloop.v1 import catalog_pb2, model_pb2, stats_pb2, tracking_pb2
from rankloop.v1.ranking_pb2 import Candidate, FeatureMatrix, RankRequest
from rankloop.v1.tracking_pb2 import SlateItem
from tests.e2e.entries import (
    FAR,
    HOSTILE_KEYS,
    INFINITY,
    LONGEST,
    NAN,
    TOO_LONG,
    in_two_days,
    interaction,
    item,
    new_id,
    outcome,
    session,
    slate,
    user,
)
from tests.e2e.stack import CALL_SECONDS, Client, Stack, details_of, eventually, failure_of

OUR_FAULT = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.DATA_LOSS}


def candidates(count: int = 3) -> list[Candidate]:
    return [Candidate(item_id=f"c{number}") for number in range(count)]


BATCHES: dict[str, tuple[Callable[[Client], Any], Callable[[list[Any]], Any], Callable[..., Any]]] = {
    "interactions": (
        lambda client: client.tracking.TrackInteractions,
        lambda entries: tracking_pb2.TrackInteractionsRequest(interactions=entries),
        interaction,
    ),
    "slates": (lambda client: client.tracking.RecordSlates, lambda entries: tracking_pb2.RecordSlatesRequest(slates=entries), slate),
    "outcomes": (
        lambda client: client.tracking.RecordOutcomes,
        lambda entries: tracking_pb2.RecordOutcomesRequest(outcomes=entries),
        outcome,
    ),
    "items": (lambda client: client.catalog.UpsertItems, lambda entries: catalog_pb2.UpsertItemsRequest(items=entries), item),
    "users": (lambda client: client.catalog.UpsertUsers, lambda entries: catalog_pb2.UpsertUsersRequest(users=entries), user),
}
"""Lists by their field: the method, a request of entries, and one sound entry with other fields."""

BAD_ENTRIES: list[tuple[str, dict[str, Any], str, str]] = [
    ("interactions", {"event_id": ""}, "event_id", "MISSING"),
    ("interactions", {"event_id": TOO_LONG}, "event_id", "TOO_LONG"),
    ("interactions", {"user_id": ""}, "user_id", "MISSING"),
    ("interactions", {"user_id": TOO_LONG}, "user_id", "TOO_LONG"),
    ("interactions", {"item_id": ""}, "item_id", "MISSING"),
    ("interactions", {"item_id": TOO_LONG}, "item_id", "TOO_LONG"),
    ("interactions", {"ranking_id": TOO_LONG}, "ranking_id", "TOO_LONG"),
    ("interactions", {"session_id": TOO_LONG}, "session_id", "TOO_LONG"),
    ("interactions", {"item_type": TOO_LONG}, "item_type", "TOO_LONG"),
    ("interactions", {"surface": TOO_LONG}, "surface", "TOO_LONG"),
    ("interactions", {"dropoff_point": TOO_LONG}, "dropoff_point", "TOO_LONG"),
    ("interactions", {"type": ""}, "type", "MISSING"),
    ("interactions", {"type": "$where"}, "type", "UNKNOWN_TYPE"),
    ("interactions", {"type": "CLICK"}, "type", "UNKNOWN_TYPE"),
    ("interactions", {"value": NAN}, "value", "NOT_FINITE"),
    ("interactions", {"value": INFINITY}, "value", "NOT_FINITE"),
    ("interactions", {"value": -1.0}, "value", "OUT_OF_RANGE"),
    ("interactions", {"type": "rate"}, "value", "MISSING"),
    ("interactions", {"type": "rate", "value": 5.5}, "value", "OUT_OF_RANGE"),
    ("interactions", {"occur_time": in_two_days()}, "occur_time", "IN_THE_FUTURE"),
    ("interactions", {"occur_time": FAR}, "occur_time", "OUT_OF_RANGE"),
    ("interactions", {"occur_time": Timestamp(seconds=1, nanos=-1)}, "occur_time", "OUT_OF_RANGE"),
    ("interactions", {"position": 0}, "position", "OUT_OF_RANGE"),
    ("interactions", {"position": -(2**31)}, "position", "OUT_OF_RANGE"),
    ("interactions", {"context": {str(number): "" for number in range(65)}}, "context", "TOO_MANY"),
    ("interactions", {"context": {"": "x"}}, 'context[""]', "MISSING"),
    ("interactions", {"context": {"page": "x" * 1025}}, 'context["page"]', "TOO_LONG"),
    ("slates", {"ranking_id": ""}, "ranking_id", "MISSING"),
    ("slates", {"ranking_id": TOO_LONG}, "ranking_id", "TOO_LONG"),
    ("slates", {"user_id": ""}, "user_id", "MISSING"),
    ("slates", {"show_time": in_two_days()}, "show_time", "IN_THE_FUTURE"),
    ("slates", {"show_time": FAR}, "show_time", "OUT_OF_RANGE"),
    ("slates", {"variant_id": "b", "variant_propensity": 0.0}, "variant_propensity", "OUT_OF_RANGE"),
    ("slates", {"variant_id": "b", "variant_propensity": NAN}, "variant_propensity", "NOT_FINITE"),
    ("slates", {"variant_propensity": 0.5}, "variant_propensity", "OUT_OF_RANGE"),
    ("slates", {"items": []}, "items", "MISSING"),
    ("slates", {"items": [SlateItem(item_id=f"{number}") for number in range(1001)]}, "items", "TOO_MANY"),
    ("slates", {"items": [SlateItem(item_id="a"), SlateItem(item_id="a")]}, "items[1].item_id", "DUPLICATE"),
    ("slates", {"items": [SlateItem()]}, "items[0].item_id", "MISSING"),
    ("slates", {"items": [SlateItem(item_id=TOO_LONG)]}, "items[0].item_id", "TOO_LONG"),
    ("slates", {"items": [SlateItem(item_id="a", score=NAN)]}, "items[0].score", "NOT_FINITE"),
    ("slates", {"items": [SlateItem(item_id="a", propensity=0.0)]}, "items[0].propensity", "OUT_OF_RANGE"),
    ("slates", {"items": [SlateItem(item_id="a", propensity=1.1)]}, "items[0].propensity", "OUT_OF_RANGE"),
    ("slates", {"items": [SlateItem(item_id="a", variant_id="x")]}, "items[0].variant_id", "INVALID"),
    ("slates", {"experiment_id": "e", "items": [SlateItem(item_id="a", variant_id=TOO_LONG)]}, "items[0].variant_id", "TOO_LONG"),
    ("slates", {"items": [SlateItem(item_id="a", position=-1)]}, "items[0].position", "OUT_OF_RANGE"),
    ("slates", {"items": [SlateItem(item_id="a", features={"x": INFINITY})]}, 'items[0].features["x"]', "NOT_FINITE"),
    (
        "slates",
        {"items": [SlateItem(item_id=f"{row}", features={f"{row}-{column}": 1.0 for column in range(200)}) for row in range(2)]},
        "items",
        "TOO_MANY",
    ),
    ("slates", {"items": [SlateItem(item_id=f"{row}", tags=["x" * 256] * 64) for row in range(300)]}, "items", "TOO_LONG"),
    ("outcomes", {"event_id": ""}, "event_id", "MISSING"),
    ("outcomes", {"user_id": TOO_LONG}, "user_id", "TOO_LONG"),
    ("outcomes", {"type": ""}, "type", "MISSING"),
    ("outcomes", {"value": NAN}, "value", "NOT_FINITE"),
    ("outcomes", {"before_value": -INFINITY}, "before_value", "NOT_FINITE"),
    ("outcomes", {"value": 1e300}, "value", "OUT_OF_RANGE"),
    ("outcomes", {"occur_time": in_two_days()}, "occur_time", "IN_THE_FUTURE"),
    ("outcomes", {"occur_time": FAR}, "occur_time", "OUT_OF_RANGE"),
    ("items", {"item_id": ""}, "item_id", "MISSING"),
    ("items", {"item_id": TOO_LONG}, "item_id", "TOO_LONG"),
    ("items", {"item_type": TOO_LONG}, "item_type", "TOO_LONG"),
    ("items", {"tags": ["x"] * 65}, "tags", "TOO_MANY"),
    ("items", {"tags": [""]}, "tags[0]", "MISSING"),
    ("items", {"numbers": {"cost": NAN}}, 'numbers["cost"]', "NOT_FINITE"),
    ("items", {"numbers": {str(number): 1.0 for number in range(65)}}, "numbers", "TOO_MANY"),
    ("items", {"attributes": {"tier": "x" * 1025}}, 'attributes["tier"]', "TOO_LONG"),
    ("items", {"attributes": {"a\0b": "x"}}, "attributes", "INVALID"),
    ("items", {"embedding": [0.0] * 4097}, "embedding", "WRONG_SIZE"),
    ("items", {"create_time": in_two_days()}, "create_time", "IN_THE_FUTURE"),
    ("items", {"create_time": FAR}, "create_time", "OUT_OF_RANGE"),
    ("users", {"user_id": ""}, "user_id", "MISSING"),
    ("users", {"user_id": TOO_LONG}, "user_id", "TOO_LONG"),
    ("users", {"numbers": {"age": -INFINITY}}, 'numbers["age"]', "NOT_FINITE"),
    ("users", {"create_time": FAR}, "create_time", "OUT_OF_RANGE"),
]


@pytest.mark.parametrize("kind", BATCHES)
async def test_each_bad_entry_is_refused_by_its_field_and_the_rest_is_stored(client: Client, kind: str) -> None:
    method, request_of, sound = BATCHES[kind]
    bad = [(fields, field, reason) for of_kind, fields, field, reason in BAD_ENTRIES if of_kind == kind]
    entries = [entry for fields, _, _ in bad for entry in (sound(**fields), sound())]
    answer = await method(client)(request_of(entries), timeout=CALL_SECONDS)
    assert answer.accepted_count == len(bad)
    assert [(one.index, one.field, one.reason) for one in answer.rejected] == [
        (2 * place, f"{kind}[{2 * place}].{field}", reason) for place, (_, field, reason) in enumerate(bad)
    ]
    assert all(one.description for one in answer.rejected)
    if kind in ("interactions", "slates", "outcomes"):
        assert answer.duplicate_count == 0
        again = await method(client)(request_of(entries), timeout=CALL_SECONDS)
        assert (again.accepted_count, again.duplicate_count, len(again.rejected)) == (0, len(bad), len(bad))
        quarantined = await client.stats.GetOverview(stats_pb2.GetOverviewRequest(), timeout=CALL_SECONDS)
        assert quarantined.quarantined_count >= len(bad) - 1, "the same entry refused twice is kept once, others each"


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(("count", "reason"), [(0, "MISSING"), (1001, "TOO_MANY")])
async def test_a_list_that_is_empty_or_too_long_refuses_the_call(client: Client, kind: str, count: int, reason: str) -> None:
    method, request_of, sound = BATCHES[kind]
    error = await failure_of(method(client)(request_of([sound()] * count), timeout=CALL_SECONDS))
    refused(error, (kind, reason))


@pytest.mark.parametrize("kind", BATCHES)
async def test_a_list_of_a_thousand_is_welcome(client: Client, kind: str) -> None:
    method, request_of, sound = BATCHES[kind]
    answer = await method(client)(request_of([sound() for _ in range(1000)]), timeout=CALL_SECONDS)
    assert (answer.accepted_count, len(answer.rejected)) == (1000, 0)


def refused(error: grpc.aio.AioRpcError, *violations: tuple[str, str]) -> None:
    """INVALID_ARGUMENT that names exactly these fields, with these reasons."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    info, found = details_of(error)
    assert info.reason == "INVALID_INPUT"
    assert [(one.field, one.reason) for one in found] == list(violations)
    assert all(one.description for one in found)
    assert error.details()


BAD_RANKINGS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"candidates": []}, [("candidates", "MISSING")]),
    ({"candidates": candidates(1001)}, [("candidates", "OUT_OF_RANGE")]),
    ({"candidates": [*candidates(), Candidate(item_id="c1")]}, [("candidates[3].item_id", "DUPLICATE")]),
    ({"candidates": [*candidates(), Candidate()]}, [("candidates[3].item_id", "MISSING")]),
    ({"candidates": [Candidate(item_id=TOO_LONG)]}, [("candidates[0].item_id", "TOO_LONG")]),
    ({"candidates": [Candidate(item_id="a", item_type=TOO_LONG)]}, [("candidates[0].item_type", "TOO_LONG")]),
    ({"candidates": [Candidate(item_id="a", prior_score=NAN)]}, [("candidates[0].prior_score", "NOT_FINITE")]),
    ({"candidates": [Candidate(item_id="a", features={"cost": -INFINITY})]}, [('candidates[0].features["cost"]', "NOT_FINITE")]),
    (
        {"candidates": [Candidate(item_id="a", features={str(number): 1.0 for number in range(257)})]},
        [("candidates[0].features", "TOO_MANY")],
    ),
    ({"candidates": [Candidate(item_id="a", tags=["x"] * 65)]}, [("candidates[0].tags", "TOO_MANY")]),
    ({"candidates": [Candidate(item_id="a", tags=[TOO_LONG])]}, [("candidates[0].tags[0]", "TOO_LONG")]),
    (
        {"candidates": [Candidate(item_id="a", attributes={str(number): "" for number in range(65)})]},
        [("candidates[0].attributes", "TOO_MANY")],
    ),
    ({"candidates": [Candidate(item_id="a", attributes={"tier": "x" * 1025})]}, [('candidates[0].attributes["tier"]', "TOO_LONG")]),
    ({"candidates": [Candidate(item_id="a", embedding=[NAN])]}, [("candidates[0].embedding", "NOT_FINITE")]),
    (
        {"candidates": [Candidate(item_id="a", embedding=[1.0, 2.0]), Candidate(item_id="b", embedding=[1.0])]},
        [("candidates[1].embedding", "WRONG_SIZE")],
    ),
    ({"candidates": [Candidate(item_id="a", create_time=FAR)]}, [("candidates[0].create_time", "OUT_OF_RANGE")]),
    ({"user_id": TOO_LONG}, [("user_id", "TOO_LONG")]),
    ({"session_id": TOO_LONG}, [("session_id", "TOO_LONG")]),
    ({"surface": TOO_LONG}, [("surface", "TOO_LONG")]),
    ({"request_id": TOO_LONG}, [("request_id", "TOO_LONG")]),
    ({"model_version": TOO_LONG}, [("model_version", "TOO_LONG")]),
    ({"top_k": -1}, [("top_k", "OUT_OF_RANGE")]),
    ({"mmr_lambda": NAN}, [("mmr_lambda", "OUT_OF_RANGE")]),
    ({"mmr_lambda": 1.5}, [("mmr_lambda", "OUT_OF_RANGE")]),
    ({"context_numbers": {"x": INFINITY}}, [('context_numbers["x"]', "NOT_FINITE")]),
    ({"context": {str(number): "" for number in range(65)}}, [("context", "TOO_MANY")]),
    ({"context": {"page": "x" * 1025}}, [('context["page"]', "TOO_LONG")]),
    ({"feature_matrix": FeatureMatrix(names=["cost"], values=b"\0" * 8)}, [("feature_matrix.values", "WRONG_SIZE")]),
    ({"feature_matrix": FeatureMatrix(names=["cost", "cost"], values=b"\0" * 48)}, [("feature_matrix.names[1]", "DUPLICATE")]),
    (
        {"feature_matrix": FeatureMatrix(names=["cost"], values=b"\0" * 16 + b"\0\0\0\0\0\0\xf0\x7f")},
        [('feature_matrix.values[2]["cost"]', "NOT_FINITE")],
    ),
    ({"user_id": TOO_LONG, "top_k": -1}, [("user_id", "TOO_LONG"), ("top_k", "OUT_OF_RANGE")]),
]


@pytest.mark.parametrize(("fields", "violations"), BAD_RANKINGS, ids=lambda value: ",".join(value) if isinstance(value, dict) else "")
async def test_a_bad_ranking_is_refused_by_its_fields(client: Client, fields: dict[str, Any], violations: list[tuple[str, str]]) -> None:
    request = RankRequest(**{"candidates": candidates(), **fields})
    refused(await failure_of(client.ranking.Rank(request, timeout=CALL_SECONDS)), *violations)


async def test_many_faults_with_long_names_still_arrive_as_faults(client: Client) -> None:
    # More than metadata may hold; a client that refuses the metadata would see a status that is not ours.
    names = {f"{number}-" + "ß" * 2000: NAN for number in range(40)}
    request = RankRequest(candidates=[Candidate(item_id="é" * 4000, features=names) for _ in range(20)])
    error = await failure_of(client.ranking.Rank(request, timeout=CALL_SECONDS))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, found = details_of(error)
    assert info.reason == "INVALID_INPUT"
    assert found[0].field == "candidates[0].item_id"


@pytest.mark.parametrize("longest", [LONGEST, "x" * 256, "𝄞" * 64])
async def test_ids_of_256_bytes_are_welcome_everywhere(client: Client, longest: str) -> None:
    marked = longest[:-32] + new_id() if longest.isascii() else longest
    assert len(marked.encode()) == 256
    sound = {
        "items": item(item_id=marked, item_type=longest, tags=[longest], attributes={longest: "x" * 1024}),
        "users": user(user_id=marked, attributes={longest: "x"}),
        "slates": slate(ranking_id=marked, user_id=marked, surface=longest, items=[SlateItem(item_id=marked, item_type=longest)]),
        "interactions": interaction(event_id=marked, user_id=marked, item_id=marked, ranking_id=marked, session_id=longest),
        "outcomes": outcome(event_id=marked, user_id=marked, type=longest, item_id=marked),
    }
    for kind, entry in sound.items():
        method, request_of, _ = BATCHES[kind]
        answer = await method(client)(request_of([entry]), timeout=CALL_SECONDS)
        assert (answer.accepted_count, len(answer.rejected)) == (1, 0), answer
    ranked = RankRequest(user_id=marked, request_id=marked, surface=longest, candidates=[Candidate(item_id=marked, item_type=longest)])
    assert [one.item_id for one in (await client.ranking.Rank(ranked, timeout=CALL_SECONDS)).items] == [marked]
    assert (await client.catalog.GetItem(catalog_pb2.GetItemRequest(item_id=marked), timeout=CALL_SECONDS)).item.item_type == longest
    assert (await client.catalog.GetUser(catalog_pb2.GetUserRequest(user_id=marked), timeout=CALL_SECONDS)).user.user_id == marked
    history = stats_pb2.ListUserInteractionsRequest(user_id=marked, item_id=marked, ranking_id=marked)
    listed = await client.stats.ListUserInteractions(history, timeout=CALL_SECONDS)
    assert [one.interaction.event_id for one in listed.interactions] == [marked]


async def test_one_byte_more_is_refused_everywhere(client: Client) -> None:
    calls = {
        "item_id": [
            client.catalog.GetItem(catalog_pb2.GetItemRequest(item_id=TOO_LONG), timeout=CALL_SECONDS),
            client.stats.GetItemStats(stats_pb2.GetItemStatsRequest(item_id=TOO_LONG), timeout=CALL_SECONDS),
            client.stats.ListUserInteractions(stats_pb2.ListUserInteractionsRequest(user_id="u", item_id=TOO_LONG), timeout=CALL_SECONDS),
        ],
        "user_id": [
            client.catalog.GetUser(catalog_pb2.GetUserRequest(user_id=TOO_LONG), timeout=CALL_SECONDS),
            client.stats.GetUserStats(stats_pb2.GetUserStatsRequest(user_id=TOO_LONG), timeout=CALL_SECONDS),
            client.stats.ListUserInteractions(stats_pb2.ListUserInteractionsRequest(user_id=TOO_LONG), timeout=CALL_SECONDS),
        ],
        "item_ids[1]": [client.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(item_ids=["a", TOO_LONG]), timeout=CALL_SECONDS)],
        "session.session_id": [
            client.tracking.StartSession(tracking_pb2.StartSessionRequest(session=session(session_id=TOO_LONG)), timeout=CALL_SECONDS)
        ],
        "session_id": [client.tracking.EndSession(tracking_pb2.EndSessionRequest(session_id=TOO_LONG), timeout=CALL_SECONDS)],
    }
    for field, of_field in calls.items():
        for call in of_field:
            refused(await failure_of(call), (field, "TOO_LONG"))


async def test_an_id_that_is_missing_is_missed_everywhere(client: Client) -> None:
    calls = {
        "item_id": [
            client.catalog.GetItem(catalog_pb2.GetItemRequest(), timeout=CALL_SECONDS),
            client.stats.GetItemStats(stats_pb2.GetItemStatsRequest(), timeout=CALL_SECONDS),
        ],
        "user_id": [
            client.catalog.GetUser(catalog_pb2.GetUserRequest(), timeout=CALL_SECONDS),
            client.stats.GetUserStats(stats_pb2.GetUserStatsRequest(), timeout=CALL_SECONDS),
            client.stats.ListUserInteractions(stats_pb2.ListUserInteractionsRequest(), timeout=CALL_SECONDS),
        ],
        "session_id": [client.tracking.EndSession(tracking_pb2.EndSessionRequest(), timeout=CALL_SECONDS)],
        "model_version": [client.models.PromoteModel(model_pb2.PromoteModelRequest(), timeout=CALL_SECONDS)],
    }
    for field, of_field in calls.items():
        for call in of_field:
            refused(await failure_of(call), (field, "MISSING"))


async def test_sessions_are_checked(client: Client) -> None:
    for bad, field, reason in (
        (session(user_id=""), "session.user_id", "MISSING"),
        (session(start_time=FAR), "session.start_time", "OUT_OF_RANGE"),
        (session(start_time=in_two_days()), "session.start_time", "IN_THE_FUTURE"),
        (session(end_time=Timestamp(seconds=1)), "session.end_time", "INVALID"),
        (session(pages=[""]), "session.pages[0]", "MISSING"),
        (session(pages=["x"] * 1001), "session.pages", "TOO_MANY"),
    ):
        error = await failure_of(client.tracking.StartSession(tracking_pb2.StartSessionRequest(session=bad), timeout=CALL_SECONDS))
        refused(error, (field, reason))
    begun = session(start_time=Timestamp(seconds=1_700_000_000))
    await client.tracking.StartSession(tracking_pb2.StartSessionRequest(session=begun), timeout=CALL_SECONDS)
    too_early = tracking_pb2.EndSessionRequest(session_id=begun.session_id, end_time=Timestamp(seconds=1_600_000_000))
    refused(await failure_of(client.tracking.EndSession(too_early, timeout=CALL_SECONDS)), ("end_time", "OUT_OF_RANGE"))
    unknown = tracking_pb2.EndSessionRequest(session_id=new_id())
    assert (await failure_of(client.tracking.EndSession(unknown, timeout=CALL_SECONDS))).code() is grpc.StatusCode.NOT_FOUND


async def test_the_same_id_with_other_content_is_a_conflict_and_the_first_stands(client: Client) -> None:
    first = interaction(type="view", user_id=new_id())
    other = interaction(event_id=first.event_id, type="click", user_id=first.user_id)
    request = tracking_pb2.TrackInteractionsRequest(interactions=[first])
    await client.tracking.TrackInteractions(request, timeout=CALL_SECONDS)
    answer = await client.tracking.TrackInteractions(
        tracking_pb2.TrackInteractionsRequest(interactions=[interaction(), other]), timeout=CALL_SECONDS
    )
    assert answer.accepted_count == 1
    assert [(one.index, one.field, one.reason) for one in answer.rejected] == [(1, "interactions[1].event_id", "CONFLICT")]
    asked = stats_pb2.ListUserInteractionsRequest(user_id=first.user_id)
    listed = await client.stats.ListUserInteractions(asked, timeout=CALL_SECONDS)
    assert [one.interaction.type for one in listed.interactions] == ["view"]


async def test_an_embedding_of_another_size_is_refused_once_one_is_known(own_stack: Stack) -> None:
    async with Client(own_stack.address) as client:
        first = catalog_pb2.UpsertItemsRequest(items=[item(item_id="first", embedding=[1.0, 2.0, 3.0])])
        await client.catalog.UpsertItems(first, timeout=CALL_SECONDS)
        mixed = catalog_pb2.UpsertItemsRequest(items=[item(embedding=[1.0, 2.0]), item(embedding=[4.0, 5.0, 6.0])])
        answer = await client.catalog.UpsertItems(mixed, timeout=CALL_SECONDS)
        assert answer.accepted_count == 1
        assert [(one.field, one.reason) for one in answer.rejected] == [("items[0].embedding", "WRONG_SIZE")]
        request = RankRequest(candidates=[Candidate(item_id="first"), Candidate(item_id="b", embedding=[1.0, 2.0])])

        async def refusal() -> grpc.aio.AioRpcError | None:
            # The ranker hears of the catalogue within a second or so.
            try:
                await client.ranking.Rank(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                return error
            return None

        error = await eventually(refusal)
        assert error is not None
        refused(error, ("candidates[1].embedding", "WRONG_SIZE"))


async def test_a_refused_item_does_not_hide_the_sound_one_of_its_id(client: Client) -> None:
    item_id = new_id()
    entries = [item(item_id=item_id, item_type="sound"), item(item_id=item_id, numbers={"cost": NAN})]
    answer = await client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=entries), timeout=CALL_SECONDS)
    assert (answer.accepted_count, [one.index for one in answer.rejected]) == (1, [1])
    stored = await client.catalog.GetItem(catalog_pb2.GetItemRequest(item_id=item_id), timeout=CALL_SECONDS)
    assert stored.item.item_type == "sound"


async def test_keys_that_mean_something_to_a_database_come_back_as_they_were(client: Client) -> None:
    texts, numbers = (dict.fromkeys(HOSTILE_KEYS, value) for value in ("x", 1.5))
    first, second = item(attributes=texts, numbers=numbers), user(attributes=texts, numbers=numbers)
    await client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[first]), timeout=CALL_SECONDS)
    await client.catalog.UpsertUsers(catalog_pb2.UpsertUsersRequest(users=[second]), timeout=CALL_SECONDS)
    stored = (await client.catalog.GetItem(catalog_pb2.GetItemRequest(item_id=first.item_id), timeout=CALL_SECONDS)).item
    assert (dict(stored.attributes), dict(stored.numbers)) == (texts, numbers)
    known = (await client.catalog.GetUser(catalog_pb2.GetUserRequest(user_id=second.user_id), timeout=CALL_SECONDS)).user
    assert (dict(known.attributes), dict(known.numbers)) == (texts, numbers)
    happened = interaction(user_id=new_id(), context=texts)
    await client.tracking.TrackInteractions(tracking_pb2.TrackInteractionsRequest(interactions=[happened]), timeout=CALL_SECONDS)
    asked = stats_pb2.ListUserInteractionsRequest(user_id=happened.user_id)
    listed = await client.stats.ListUserInteractions(asked, timeout=CALL_SECONDS)
    assert dict(listed.interactions[0].interaction.context) == texts


FORGED = [
    "x",
    "é",
    "\0",
    base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    base64.urlsafe_b64encode(b"{}").decode(),
    base64.urlsafe_b64encode(b'["", []]').decode(),
    base64.urlsafe_b64encode(b"9" * 10_000).decode(),
    base64.urlsafe_b64encode(b"\xff\xfe").decode(),
]


async def test_page_tokens_from_elsewhere_are_refused(client: Client) -> None:
    user_id = new_id()
    request = tracking_pb2.TrackInteractionsRequest(interactions=[interaction(user_id=user_id) for _ in range(3)])
    await client.tracking.TrackInteractions(request, timeout=CALL_SECONDS)
    upsert = catalog_pb2.UpsertItemsRequest(items=[item() for _ in range(3)])
    await client.catalog.UpsertItems(upsert, timeout=CALL_SECONDS)
    asked = stats_pb2.ListUserInteractionsRequest(user_id=user_id, page_size=2)
    of_history = (await client.stats.ListUserInteractions(asked, timeout=CALL_SECONDS)).next_page_token
    of_items = (await client.catalog.ListItems(catalog_pb2.ListItemsRequest(page_size=2), timeout=CALL_SECONDS)).next_page_token
    assert of_history
    assert of_items
    fingerprint = json.loads(base64.urlsafe_b64decode(of_history))[0]
    # The right question, and values that we would never have put there.
    forged = [
        base64.urlsafe_b64encode(json.dumps([fingerprint, last]).encode()).decode()
        for last in ([10**30, "x"], [True, "x"], [0, "\ud800"], [0, {"$gt": ""}], [0.5, "x"], [0], ["x", 0], {"a": 1})
    ]
    for token in [*FORGED, *forged, of_items]:
        call = client.stats.ListUserInteractions(
            stats_pb2.ListUserInteractionsRequest(user_id=user_id, page_token=token), timeout=CALL_SECONDS
        )
        refused(await failure_of(call), ("page_token", "INVALID"))
    for other in ({"user_id": "another"}, {"user_id": user_id, "types": ["view"]}):
        call = client.stats.ListUserInteractions(
            stats_pb2.ListUserInteractionsRequest(**other, page_token=of_history), timeout=CALL_SECONDS
        )
        refused(await failure_of(call), ("page_token", "INVALID"))
    for token in [*FORGED, of_history]:
        for call in (
            client.catalog.ListItems(catalog_pb2.ListItemsRequest(page_token=token), timeout=CALL_SECONDS),
            client.models.ListModels(model_pb2.ListModelsRequest(page_token=token), timeout=CALL_SECONDS),
            client.models.ListTrainingRuns(model_pb2.ListTrainingRunsRequest(page_token=token), timeout=CALL_SECONDS),
        ):
            refused(await failure_of(call), ("page_token", "INVALID"))
    for size in (-1, 1001):
        call = client.catalog.ListItems(catalog_pb2.ListItemsRequest(page_size=size), timeout=CALL_SECONDS)
        refused(await failure_of(call), ("page_size", "OUT_OF_RANGE"))


async def test_periods_that_are_none_are_refused(client: Client) -> None:
    questions: list[tuple[Any, Any]] = [
        (client.stats.GetItemStats, stats_pb2.GetItemStatsRequest(item_id="i")),
        (client.stats.GetUserStats, stats_pb2.GetUserStatsRequest(user_id="u")),
        (client.stats.ListUserInteractions, stats_pb2.ListUserInteractionsRequest(user_id="u")),
        (client.stats.GetPerformance, stats_pb2.GetPerformanceRequest()),
        (client.stats.GetOverview, stats_pb2.GetOverviewRequest()),
        (client.stats.GetTypeMetrics, stats_pb2.GetTypeMetricsRequest()),
        (client.stats.ListTopItems, stats_pb2.ListTopItemsRequest()),
        (client.stats.ListActiveUsers, stats_pb2.ListActiveUsersRequest()),
        (client.stats.GetEngagement, stats_pb2.GetEngagementRequest()),
        (client.stats.GetOutcomeMetrics, stats_pb2.GetOutcomeMetricsRequest()),
        (client.stats.GetSlateQuality, stats_pb2.GetSlateQualityRequest()),
        (lambda request, timeout: client.stats.WatchOverview(request, timeout=timeout).read(), stats_pb2.WatchOverviewRequest()),
    ]
    noon, later = Timestamp(seconds=1_700_000_000), Timestamp(seconds=1_700_000_001)
    periods: list[tuple[dict[str, Timestamp], tuple[str, str]]] = [
        ({"start_time": later, "end_time": noon}, ("end_time", "OUT_OF_RANGE")),
        ({"start_time": noon, "end_time": noon}, ("end_time", "OUT_OF_RANGE")),
        ({"start_time": FAR}, ("start_time", "OUT_OF_RANGE")),
        ({"end_time": FAR}, ("end_time", "OUT_OF_RANGE")),
        ({"end_time": Timestamp(seconds=1, nanos=2_000_000_000)}, ("end_time", "OUT_OF_RANGE")),
        ({"end_time": Timestamp(seconds=-62_135_596_800)}, ("end_time", "OUT_OF_RANGE")),
    ]
    for method, question in questions:
        for times, violation in periods:
            request = type(question)()
            request.CopyFrom(question)
            for name, stamp in times.items():
                getattr(request, name).CopyFrom(stamp)
            refused(await failure_of(method(request, timeout=CALL_SECONDS)), violation)
    groupings: list[tuple[list[Any], list[tuple[str, str]]]] = [
        ([stats_pb2.DIMENSION_UNSPECIFIED], [("group_by[0]", "INVALID")]),
        ([99], [("group_by[0]", "INVALID")]),
        ([stats_pb2.DIMENSION_TIER] * 2, [("group_by[1]", "DUPLICATE")]),
        ([stats_pb2.DIMENSION_TIER, stats_pb2.DIMENSION_SURFACE, stats_pb2.DIMENSION_POSITION], [("group_by", "TOO_MANY")]),
    ]
    for group_by, violations in groupings:
        call = client.stats.GetPerformance(stats_pb2.GetPerformanceRequest(group_by=group_by), timeout=CALL_SECONDS)
        refused(await failure_of(call), *violations)


async def test_periods_as_long_as_the_calendar_are_answered(client: Client) -> None:
    first, last = Timestamp(seconds=-62_135_596_800), Timestamp(seconds=253_402_300_799, nanos=999_999_999)
    early, late = Timestamp(seconds=-62_135_596_000), Timestamp(seconds=253_402_214_400)
    calendars: list[dict[str, Any]] = [
        {"start_time": first, "end_time": last},
        {"end_time": last},
        {"end_time": late},
        {"start_time": first, "end_time": early},
    ]
    for times in calendars:
        for method, question in (
            (client.stats.GetItemStats, stats_pb2.GetItemStatsRequest(item_id="i", **times)),
            (client.stats.GetUserStats, stats_pb2.GetUserStatsRequest(user_id="u", **times)),
            (client.stats.ListUserInteractions, stats_pb2.ListUserInteractionsRequest(user_id="u", **times)),
            (client.stats.GetPerformance, stats_pb2.GetPerformanceRequest(group_by=[stats_pb2.DIMENSION_TIER], **times)),
            (client.stats.GetOverview, stats_pb2.GetOverviewRequest(**times)),
            (client.stats.GetTypeMetrics, stats_pb2.GetTypeMetricsRequest(**times)),
            (client.stats.ListTopItems, stats_pb2.ListTopItemsRequest(**times)),
            (client.stats.ListActiveUsers, stats_pb2.ListActiveUsersRequest(**times)),
            (client.stats.GetEngagement, stats_pb2.GetEngagementRequest(**times)),
            (client.stats.GetOutcomeMetrics, stats_pb2.GetOutcomeMetricsRequest(**times)),
            (client.stats.GetSlateQuality, stats_pb2.GetSlateQualityRequest(by_algorithm=True, **times)),
        ):
            await method(question, timeout=CALL_SECONDS)


async def test_unknown_ids_have_empty_statistics_and_no_page(client: Client) -> None:
    nobody = new_id()
    item_stats = await client.stats.GetItemStats(stats_pb2.GetItemStatsRequest(item_id=nobody), timeout=CALL_SECONDS)
    assert item_stats.stats == stats_pb2.ItemStats(item_id=nobody)
    user_stats = await client.stats.GetUserStats(stats_pb2.GetUserStatsRequest(user_id=nobody), timeout=CALL_SECONDS)
    assert user_stats.stats == stats_pb2.UserStats(user_id=nobody)
    listed = await client.stats.ListUserInteractions(stats_pb2.ListUserInteractionsRequest(user_id=nobody), timeout=CALL_SECONDS)
    assert (len(listed.interactions), listed.next_page_token) == (0, "")
    for call, reason in (
        (client.catalog.GetItem(catalog_pb2.GetItemRequest(item_id=nobody), timeout=CALL_SECONDS), "ITEM_NOT_FOUND"),
        (client.catalog.GetUser(catalog_pb2.GetUserRequest(user_id=nobody), timeout=CALL_SECONDS), "USER_NOT_FOUND"),
        (client.models.GetModel(model_pb2.GetModelRequest(model_version=nobody), timeout=CALL_SECONDS), ""),
        (client.models.PromoteModel(model_pb2.PromoteModelRequest(model_version=nobody), timeout=CALL_SECONDS), ""),
        (
            client.ranking.Rank(RankRequest(model_version=nobody, candidates=candidates()), timeout=CALL_SECONDS),
            "MODEL_NOT_FOUND",
        ),
    ):
        error = await failure_of(call)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert not reason or details_of(error)[0].reason == reason


async def test_models_that_are_none_are_refused(client: Client) -> None:
    for request, fields in (
        (model_pb2.ImportModelRequest(), {"forest", "feature_names"}),
        (model_pb2.ImportModelRequest(forest=b"\xff\0garbage", feature_names=["prior_score"]), {"forest"}),
        (model_pb2.ImportModelRequest(forest=b"tree\nversion=v4\n" + b"9" * 5000, feature_names=["prior_score"]), {"forest"}),
        (model_pb2.ImportModelRequest(forest=b"tree\n", feature_names=["prior_score"], model_version="../x"), {"forest", "model_version"}),
    ):
        error = await failure_of(client.models.ImportModel(request, timeout=CALL_SECONDS))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
        assert {one.field.partition("[")[0] for one in details_of(error)[1]} <= fields
    error = await failure_of(client.models.RequestTraining(model_pb2.RequestTrainingRequest(reason="x" * 1025), timeout=CALL_SECONDS))
    refused(error, ("reason", "TOO_LONG"))


METHODS = [
    "TrackingService/TrackInteractions",
    "TrackingService/RecordSlates",
    "RankingService/Rank",
    "CatalogService/UpsertItems",
    "StatsService/GetOverview",
    "ModelService/ImportModel",
]


@pytest.mark.parametrize("method", METHODS)
async def test_bytes_that_are_no_message_are_the_callers_fault(client: Client, method: str) -> None:
    whole = tracking_pb2.TrackInteractionsRequest(interactions=[interaction()]).SerializeToString()
    call: Any = client.channel.unary_unary(f"/rankloop.v1.{method}")
    for wrong in (b"\x0a\xff\x01abc", b"\x07", b"\x0a\x02\xff\xfe", whole[:-3]):
        error = await failure_of(call(wrong, timeout=CALL_SECONDS))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (wrong, error)
        details_of(error)


async def test_what_is_not_there_is_unimplemented(client: Client) -> None:
    call: Any = client.channel.unary_unary("/rankloop.v1.TrackingService/DropEverything")
    assert (await failure_of(call(b"", timeout=CALL_SECONDS))).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_beyond_the_limit_is_refused_before_it_is_read(client: Client) -> None:
    # 64 MiB of zeros are 64 KiB on the wire: the limit holds for what comes out.
    call: Any = client.channel.unary_unary("/rankloop.v1.TrackingService/TrackInteractions")
    large = tracking_pb2.TrackInteractionsRequest(interactions=[interaction(context={"x": "\0" * 64 * 2**20})]).SerializeToString()
    error = await failure_of(call(large, timeout=CALL_SECONDS, compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_ranked_slate_larger_than_a_document_is_recorded_all_the_same(client: Client, stack: Stack) -> None:
    user_id = new_id()
    heavy = [Candidate(item_id=f"h{number}", tags=["x" * 250 for _ in range(60)]) for number in range(1000)]
    ranked = await client.ranking.Rank(RankRequest(user_id=user_id, candidates=heavy), timeout=CALL_SECONDS)
    assert len(ranked.items) == 1000

    async def recorded() -> bool:
        answer = await client.stats.GetUserStats(stats_pb2.GetUserStatsRequest(user_id=user_id), timeout=CALL_SECONDS)
        return bool(answer.stats.impression_count == 1000)

    await eventually(recorded)
