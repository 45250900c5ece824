"""Track, rank, train, swap, measure: the whole loop through the public API, on one stack from its first call on."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import lightgbm
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rankloop.v1 import catalog_pb2, model_pb2, stats_pb2, tracking_pb2
from rankloop.v1.catalog_pb2 import Item
from rankloop.v1.ranking_pb2 import Candidate, FeatureMatrix, RankRequest, RankResponse
from runtime.mongo import Mongo
from runtime.settings import MongoSettings
from tests.e2e.stack import CALL_SECONDS, Client, Stack, details_of, eventually, failure_of, rankloop, running
from tests.recount import DIMENSIONS, Sent, traffic
from tests.recount_types import type_metrics

FIRST, LAST = datetime(2025, 12, 30, 20, tzinfo=UTC), datetime(2026, 1, 1, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack of this file; its tests come in the order in which the loop turns. Rankers get time: a busy machine is not their fault."""
    with running(tmp_path_factory.mktemp("loop"), RANKLOOP_SERVER_RANK_TIMEOUT_SECONDS="10") as stack:
        yield stack


@pytest.fixture
async def caller(looped: Stack) -> AsyncIterator[Client]:
    async with Client(looped.address) as opened:
        yield opened


async def slate_document(stack: Stack, ranking_id: str) -> tuple[dict[str, Any], list[str]]:
    """A recorded slate as the trainer reads it, and the names of its feature columns."""
    mongo = await Mongo.open(MongoSettings(uri=stack.mongo_uri))
    try:

        async def recorded() -> dict[str, Any] | None:
            return await mongo.collection("slates").find_one({"_id": ranking_id})

        slate = await eventually(recorded)
        assert slate is not None
        schema = await mongo.collection("feature_schemas").find_one({"_id": slate["schema_hash"]})
        assert schema is not None
        return slate, schema["names"]
    finally:
        await mongo.close()


async def rank(client: Client, **fields: Any) -> RankResponse:
    answer: RankResponse = await client.ranking.Rank(RankRequest(**fields), timeout=CALL_SECONDS)
    assert [item.position for item in answer.items] == list(range(1, len(answer.items) + 1))
    return answer


async def test_the_catalogue_keeps_what_it_is_told(caller: Client) -> None:
    created = Timestamp(seconds=1_760_000_000)
    items = [
        Item(
            item_id="lamp",
            item_type="thing",
            tags=["home", "light"],
            attributes={"tier": "gold"},
            numbers={"cost": 20},
            create_time=created,
        ),
        Item(item_id="book", item_type="read", tags=["home"], available=False, embedding=[0.5, -1.0]),
    ]
    answer = await caller.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=items), timeout=CALL_SECONDS)
    assert answer.accepted_count == 2
    found = (await caller.catalog.GetItem(catalog_pb2.GetItemRequest(item_id="lamp"), timeout=CALL_SECONDS)).item
    items[0].available = True
    assert found == items[0]
    listed = await caller.catalog.ListItems(catalog_pb2.ListItemsRequest(item_type="read"), timeout=CALL_SECONDS)
    assert [(one.item_id, one.available, list(one.embedding)) for one in listed.items] == [("book", False, [0.5, -1.0])]
    users = [catalog_pb2.User(user_id="ann", attributes={"plan": "free"}, numbers={"age": 40}, create_time=created)]
    await caller.catalog.UpsertUsers(catalog_pb2.UpsertUsersRequest(users=users), timeout=CALL_SECONDS)
    assert (await caller.catalog.GetUser(catalog_pb2.GetUserRequest(user_id="ann"), timeout=CALL_SECONDS)).user == users[0]
    gone = catalog_pb2.DeleteItemsRequest(item_ids=["book", "never there"])
    assert (await caller.catalog.DeleteItems(gone, timeout=CALL_SECONDS)).deleted_count == 1
    error = await failure_of(caller.catalog.GetItem(catalog_pb2.GetItemRequest(item_id="book"), timeout=CALL_SECONDS))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_the_first_ranking_is_by_prior_and_is_recorded_with_its_features(caller: Client, looped: Stack) -> None:
    candidates = [
        Candidate(item_id="pen", item_type="thing", prior_score=0.2, features={"cost": 3.0}, attributes={"tier": "tin"}),
        Candidate(item_id="lamp", prior_score=0.9),
        Candidate(item_id="new", item_type="thing"),
        Candidate(item_id="cup", item_type="thing", prior_score=0.9, features={"cost": 5.0, "nobody declared this": 1.0}),
    ]

    async def catalogue_is_known() -> bool:
        seen = await rank(caller, candidates=candidates)
        document, columns = await slate_document(looped, seen.ranking_id)
        found = np.frombuffer(document["features"], dtype="<f8").reshape(4, len(columns))[:, columns.index("cost")]
        return bool(found[1] == 20.0)

    await eventually(catalogue_is_known)
    ranked = await rank(caller, user_id="ann", surface="home", context={"device": "phone"}, candidates=candidates)
    # Larger priors first, equal ones by id, and those without one behind.
    assert [item.item_id for item in ranked.items] == ["cup", "lamp", "pen", "new"]
    assert (ranked.ml_ranking_applied, ranked.fallback_reason, ranked.algorithm) == (False, "NO_MODEL", "prior_score")
    assert ranked.model_version == ""
    slate, names = await slate_document(looped, ranked.ranking_id)
    assert [item["item_id"] for item in slate["items"]] == ["cup", "lamp", "pen", "new"]
    assert (slate["user_id"], slate["surface"], slate["algorithm"]) == ("ann", "home", "prior_score")
    values = np.frombuffer(slate["features"], dtype="<f8").reshape(4, len(names))
    assert len(names) >= 50
    column = dict(zip(names, values.T, strict=True))
    assert np.array_equal(column["prior_score"], [0.9, 0.9, 0.2, np.nan], equal_nan=True)
    # The lamp's cost is the catalogue's; nobody knows that of what is new.
    assert np.array_equal(column["cost"], [5.0, 20.0, 3.0, np.nan], equal_nan=True)
    # Types and tiers come from the catalogue, too.
    assert [(item["item_type"], item.get("tier", "")) for item in slate["items"]] == [
        ("thing", ""),
        ("thing", "gold"),
        ("thing", "tin"),
        ("thing", ""),
    ]

    async def measured() -> bool:
        stats = (await caller.stats.GetUserStats(stats_pb2.GetUserStatsRequest(user_id="ann"), timeout=CALL_SECONDS)).stats
        return bool((stats.slate_count, stats.impression_count) == (1, 4))

    await eventually(measured)


async def test_without_priors_the_callers_order_stays(caller: Client) -> None:
    ranked = await rank(caller, candidates=[Candidate(item_id=item_id) for item_id in ("b", "a", "c")], top_k=2)
    assert ([item.item_id for item in ranked.items], ranked.algorithm) == (["b", "a"], "caller_order")


async def send(client: Client, sent: Sent, seed: int) -> None:
    """Everything in random order, over several callers at once, a quarter of it twice: also events before their slate."""
    random_ = random.Random(seed)
    items = [Item(item_id=item_id, item_type=item_type) for item_id, item_type in sent.catalogue.items()]
    await client.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=items), timeout=CALL_SECONDS)
    for session in sent.sessions:
        await client.tracking.StartSession(tracking_pb2.StartSessionRequest(session=session), timeout=CALL_SECONDS)
    calls: list[Any] = []
    accepted: Counter[str] = Counter()
    for name, entries, method, request_of in (
        ("slates", sent.slates, client.tracking.RecordSlates, lambda some: tracking_pb2.RecordSlatesRequest(slates=some)),
        (
            "interactions",
            sent.interactions,
            client.tracking.TrackInteractions,
            lambda some: tracking_pb2.TrackInteractionsRequest(interactions=some),
        ),
        ("outcomes", sent.outcomes, client.tracking.RecordOutcomes, lambda some: tracking_pb2.RecordOutcomesRequest(outcomes=some)),
    ):
        listed: list[Any] = [*entries, *random_.sample(entries, len(entries) // 4)]
        random_.shuffle(listed)
        while listed:
            count = random_.randint(1, 25)
            calls.append((name, method, request_of(listed[:count]), count))
            listed = listed[count:]
    random_.shuffle(calls)

    async def one_caller(number: int) -> None:
        for name, method, request, _ in calls[number::4]:
            answer = await method(request, timeout=CALL_SECONDS)
            assert not answer.rejected
            accepted[name] += answer.accepted_count

    await asyncio.gather(*(one_caller(number) for number in range(4)))
    assert accepted == {"slates": len(sent.slates), "interactions": len(sent.interactions), "outcomes": len(sent.outcomes)}


async def test_every_figure_equals_a_recount_of_what_was_sent(caller: Client) -> None:
    sent = traffic(7, first=FIRST, last=LAST, slates=60, interactions=500, outcomes=50, prefix="recounted-")
    began = datetime.now(UTC)
    await send(caller, sent, seed=8)
    await caller.folded()
    start, end = FIRST + timedelta(minutes=31, milliseconds=7), LAST - timedelta(minutes=12)
    period = {"start_time": stamp(start), "end_time": stamp(end)}
    for item_id in sorted({item.item_id for slate in sent.slates for item in slate.items}):
        answer = await caller.stats.GetItemStats(stats_pb2.GetItemStatsRequest(item_id=item_id, **period), timeout=CALL_SECONDS)
        same(answer.stats, sent.item(item_id, start, end))
        assert answer.as_of_time.ToDatetime(tzinfo=UTC) > began
    for user_id in sorted({slate.user_id for slate in sent.slates}):
        answer = await caller.stats.GetUserStats(stats_pb2.GetUserStatsRequest(user_id=user_id, **period), timeout=CALL_SECONDS)
        for name in ("engagement", "engagement_score"):  # among all users of this stack, not among those of this test
            answer.stats.ClearField(name)
        same(answer.stats, sent.user(user_id, start, end))
        await history_agrees(caller, sent, user_id, start, end)
    for names in ([], ["algorithm"], ["variant"], ["surface", "model_version"], ["position"], ["tier", "algorithm"]):
        request = stats_pb2.GetPerformanceRequest(group_by=[DIMENSIONS[name][0] for name in names], **period)
        rows = (await caller.stats.GetPerformance(request, timeout=CALL_SECONDS)).rows
        expected = sent.performance(start, end, *((name, DIMENSIONS[name][1]) for name in names))
        assert {tuple(row.dimensions[name] for name in names) for row in rows} == expected.keys()
        for row in rows:
            same(row, expected[tuple(row.dimensions[name] for name in names)])
    overview = await caller.stats.GetOverview(stats_pb2.GetOverviewRequest(**period), timeout=CALL_SECONDS)
    inside = [one for one in sent.interactions if start <= one.occur_time.ToDatetime(tzinfo=UTC) < end]
    assert dict(overview.counts) == Counter(one.type for one in inside)
    assert overview.interaction_count == len(inside) == sum(day.interaction_count for day in overview.days)
    same(overview.performance, sent.performance(start, end)[()])
    for day in overview.days:
        since = day.day_time.ToDatetime(tzinfo=UTC)
        shown = sent.impressions(max(start, since), min(end, since + timedelta(days=1)))
        assert day.impression_count == len(shown)
        assert day.clicked_impression_count == sum(one.has("click") for one in shown)
        assert day.slate_count == len({one.slate.ranking_id for one in shown})
    await further_figures_agree(caller, sent, start, end)


async def further_figures_agree(client: Client, sent: Sent, start: datetime, end: datetime) -> None:
    """Lifecycles, engagement, outcomes and rankings through the public API; what they are in detail, storage tests recount."""
    period = {"start_time": stamp(start), "end_time": stamp(end)}
    types = (await client.stats.GetTypeMetrics(stats_pb2.GetTypeMetricsRequest(**period), timeout=CALL_SECONDS)).types
    expected = type_metrics(sent, start, end)
    assert {row.item_type for row in types} == expected.keys()
    for row in types:
        assert row.dropoff_intervals.keys() == expected[row.item_type].dropoff_intervals.keys()
        for one in (row, expected[row.item_type]):
            one.ClearField("dropoff_intervals")
        same(row, expected[row.item_type])
    inside = [one for one in sent.interactions if start <= one.occur_time.ToDatetime(tzinfo=UTC) < end]
    users = Counter(one.user_id for one in inside)
    engagement = await client.stats.GetEngagement(stats_pb2.GetEngagementRequest(**period), timeout=CALL_SECONDS)
    assert (engagement.active_user_count, engagement.interaction_count) == (len(users), len(inside))
    assert engagement.sessions.session_count == sum(start <= began < end for user in users for began in sent.session_starts(user))
    active = await client.stats.ListActiveUsers(stats_pb2.ListActiveUsersRequest(**period), timeout=CALL_SECONDS)
    assert {one.user_id: one.interaction_count for one in active.users} == users
    top = await client.stats.ListTopItems(stats_pb2.ListTopItemsRequest(**period), timeout=CALL_SECONDS)
    clicks = Counter(one.item_id for one in inside if one.type == "click")
    assert [one.score for one in top.items] == sorted(clicks.values(), reverse=True)
    earned = await client.stats.GetOutcomeMetrics(stats_pb2.GetOutcomeMetricsRequest(**period), timeout=CALL_SECONDS)
    values = [one.value for one in sent.outcomes if start <= one.occur_time.ToDatetime(tzinfo=UTC) < end]
    assert [(row.type, row.outcome_count) for row in earned.types] == [("revenue", len(values))]
    assert earned.types[0].value_sum == pytest.approx(sum(values))
    quality = await client.stats.GetSlateQuality(stats_pb2.GetSlateQualityRequest(**period), timeout=CALL_SECONDS)
    assert [row.impression_count for row in quality.rows] == [len(sent.impressions(start, end))]
    watching = client.stats.WatchOverview(stats_pb2.WatchOverviewRequest(lifetime=Duration(seconds=1), **period), timeout=CALL_SECONDS)
    told = [one.overview.interaction_count async for one in watching]
    assert told[0] == len(inside)


async def history_agrees(client: Client, sent: Sent, user_id: str, start: datetime, end: datetime) -> None:
    """The user's history, page by page, is what was sent, newest first."""
    mine = [one for one in sent.interactions if one.user_id == user_id and start <= one.occur_time.ToDatetime(tzinfo=UTC) < end]
    mine.sort(key=lambda one: (one.occur_time.ToNanoseconds(), one.event_id), reverse=True)
    request = stats_pb2.ListUserInteractionsRequest(user_id=user_id, start_time=stamp(start), end_time=stamp(end), page_size=33)
    listed = []
    while True:
        page = await client.stats.ListUserInteractions(request, timeout=CALL_SECONDS)
        listed += [one.interaction for one in page.interactions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert listed == mine, "as sent, field by field"


def stamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


def same(found: Message, expected: Message) -> None:
    """Equal figures, up to what floating point and a mean span's rounding allow; what is undefined is absent in both."""
    for descriptor in found.DESCRIPTOR.fields:
        ours, theirs = getattr(found, descriptor.name), getattr(expected, descriptor.name)
        if descriptor.has_presence:
            assert found.HasField(descriptor.name) == expected.HasField(descriptor.name), descriptor.name
        if isinstance(ours, Duration):
            assert ours.ToMilliseconds() == pytest.approx(theirs.ToMilliseconds(), abs=1), descriptor.name
        elif isinstance(ours, Message):
            same(ours, theirs)
        elif isinstance(ours, str):
            assert ours == theirs, descriptor.name
        elif isinstance(ours, (int, float)):
            assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-7), descriptor.name
        else:
            assert dict(ours) == pytest.approx(dict(theirs)), descriptor.name


async def test_a_repeated_request_gets_the_same_slate_even_from_another_server(caller: Client, looped: Stack) -> None:
    def request(prior: float, **fields: Any) -> RankRequest:
        candidates = [Candidate(item_id="x", prior_score=prior), Candidate(item_id="y", prior_score=1.0)]
        return RankRequest(**{"user_id": "rita", "request_id": "checkout-1", "candidates": candidates, **fields})

    # At once and one after the other; what the candidates are by then makes no difference.
    answers = await asyncio.gather(*(caller.ranking.Rank(request(0.0), timeout=CALL_SECONDS) for _ in range(8)))
    answers.append(await caller.ranking.Rank(request(2.0), timeout=CALL_SECONDS))
    assert all(answer == answers[0] for answer in answers)
    assert [item.item_id for item in answers[0].items] == ["y", "x"]
    await slate_document(looped, answers[0].ranking_id)
    other = [
        await caller.ranking.Rank(request(2.0, **fields), timeout=CALL_SECONDS)
        for fields in ({"user_id": "tom"}, {"request_id": "checkout-2"}, {"request_id": ""})
    ]
    assert len({answers[0].ranking_id, *(answer.ranking_id for answer in other)}) == 4
    assert [item.item_id for item in other[0].items] == ["x", "y"]
    pid = looped.send("server", signal.SIGTERM)

    async def is_another() -> bool:
        return looped.pid("server") != pid

    await eventually(is_another)
    again = await eventually(lambda: caller.ranking.Rank(request(2.0), timeout=CALL_SECONDS))
    assert again == answers[0], "remembered by the ledger, not by a process"

    async def recorded_once() -> bool:
        stats = (await caller.stats.GetUserStats(stats_pb2.GetUserStatsRequest(user_id="rita"), timeout=CALL_SECONDS)).stats
        return bool(stats.slate_count == 3)

    await eventually(recorded_once)


def train(stack: Stack, folder: Path, *arguments: str) -> dict[str, Any]:
    """One run of the trainer; returns its report."""
    report = folder / "report.json"
    done = rankloop("train", "--json", str(report), *arguments, variables={"RANKLOOP_MONGO_URI": stack.mongo_uri}, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


async def test_training_on_too_little_says_how_much_is_missing(caller: Client, looped: Stack, tmp_path: Path) -> None:
    few = [tracking_pb2.Interaction(event_id=f"few-{number}", user_id="u", item_id="i", type="view") for number in range(7)]
    await caller.tracking.TrackInteractions(tracking_pb2.TrackInteractionsRequest(interactions=few), timeout=CALL_SECONDS)
    # All that this file sent before lies further back.
    report = tmp_path / "report.json"
    done = rankloop(
        "train",
        "--min-interactions",
        "5000",
        "--lookback-days",
        "1",
        "--json",
        str(report),
        variables={"RANKLOOP_MONGO_URI": looped.mongo_uri},
    )
    assert done.returncode == 1
    assert "7 interactions in the last day" in done.stderr or "7 interactions in the last 1 day" in done.stderr, done.stderr
    assert "4993 are missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(report.read_text())["promoted"] is False
    runs = await caller.models.ListTrainingRuns(model_pb2.ListTrainingRunsRequest(), timeout=CALL_SECONDS)
    assert runs.runs[0].status == model_pb2.TRAINING_RUN_STATUS_FAILED
    assert "4993 are missing" in runs.runs[0].result
    error = await failure_of(caller.models.GetModel(model_pb2.GetModelRequest(), timeout=CALL_SECONDS))
    assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


@dataclass(frozen=True, slots=True)
class Champion:
    """The model that the trainer let serve."""

    version: str
    report: dict[str, Any]


@pytest.fixture(scope="module")
def champion(looped: Stack, tmp_path_factory: pytest.TempPathFactory) -> Champion:
    """People use the stack until a model passes the gate; the first one nearly always does."""
    folder = tmp_path_factory.mktemp("trained")
    for draw in ("1", "2", "3"):
        play = ["simulate", "--server", looped.address, "--users", "80", "--slates", "700", "--items", "120", "--candidates", "30"]
        done = rankloop(*play, "--draw", draw, "--json", str(folder / "play.json"), cwd=folder)
        assert done.returncode == 0, done.stderr
        played = json.loads((folder / "play.json").read_text())
        assert (played["slate_count"], played["rejected_count"]) == (700, 0)
        report = train(looped, folder, "--num-boost-round", "60")
        if report["promoted"]:
            return Champion(report["model_version"], report)
    raise AssertionError(report["decision"])


def people(count: int = 20) -> list[Candidate]:
    """Candidates that differ in what a model can see; some alike in type and tags, so that diversity has something to do."""
    return [
        Candidate(
            item_id=f"offer-{number:02}",
            item_type=f"type{number % 3}",
            prior_score=(number * 7 % 20) / 20,
            features={"cost": float(number * 5 % 13), "roi_potential": float(number * 11 % 17)},
            tags=["common", f"tag{number % 4}"],
        )
        for number in range(count)
    ]


async def ranked_by_model(client: Client, version: str, **fields: Any) -> RankResponse:
    """A ranking by this champion, as soon as rankers have it."""

    async def applied() -> RankResponse | None:
        answer = await rank(client, **{"candidates": people(), "user_id": "ann", **fields})
        return answer if answer.model_version == version else None

    answer = await eventually(applied)
    assert answer is not None
    assert (answer.ml_ranking_applied, answer.fallback_reason, answer.algorithm) == (True, "", "lambdarank")
    return answer


async def test_a_trained_model_serves_within_seconds_and_is_listed(caller: Client, looped: Stack, champion: Champion) -> None:
    answer = await ranked_by_model(caller, champion.version)
    assert len(answer.items) == 20
    assert max(item.relevance for item in answer.items) == 1.0 == answer.items[0].relevance
    assert all(0.0 <= item.relevance <= 1.0 and item.propensity == 1.0 for item in answer.items)
    assert 0.0 < answer.diversity_score < 1.0
    model = (await caller.models.GetModel(model_pb2.GetModelRequest(), timeout=CALL_SECONDS)).model
    assert (model.model_version, model.status, model.source) == (champion.version, model_pb2.MODEL_STATUS_CHAMPION, "train")
    assert model.tree_count == champion.report["tree_count"] > 0
    assert len(model.feature_names) >= 50
    assert {metric.name for metric in model.metrics} >= {"test.model.ndcg_at_5", "test.model.ndcg_at_10"}
    assert 1 <= len(model.top_features) <= 10
    assert 0.0 < sum(one.gain_share for one in model.top_features) <= 1.0 + 1e-9
    listed = await caller.models.ListModels(model_pb2.ListModelsRequest(), timeout=CALL_SECONDS)
    assert model in list(listed.models)
    overview = await caller.stats.GetOverview(stats_pb2.GetOverviewRequest(), timeout=CALL_SECONDS)
    assert overview.champion_version == champion.version
    runs = await caller.models.ListTrainingRuns(model_pb2.ListTrainingRunsRequest(), timeout=CALL_SECONDS)
    newest = runs.runs[0]
    assert (newest.model_version, newest.promoted, newest.status) == (champion.version, True, model_pb2.TRAINING_RUN_STATUS_SUCCEEDED)
    slate, names = await slate_document(looped, answer.ranking_id)
    assert slate["model_version"] == champion.version
    assert names == list(model.feature_names)
    assert len(slate["features"]) == 8 * 20 * len(names)

    async def measured() -> bool:
        request = stats_pb2.GetPerformanceRequest(group_by=[stats_pb2.DIMENSION_MODEL_VERSION])
        rows = (await caller.stats.GetPerformance(request, timeout=CALL_SECONDS)).rows
        return any(row.dimensions["model_version"] == champion.version and row.slate_count for row in rows)

    await eventually(measured)


async def test_lambda_one_is_relevance_alone_and_less_is_more_diverse(caller: Client, champion: Champion) -> None:
    many = people(60)
    for place, one in enumerate(many):  # three of four alike, each fourth like no other
        one.item_type = "type1" if place % 4 else "type0"
        one.tags[:] = ["common"] if place % 4 else [f"tag{place}"]
    pure = await ranked_by_model(caller, champion.version, candidates=many, mmr_lambda=1.0)
    order = [(-item.score, item.item_id) for item in pure.items]
    assert order == sorted(order)
    assert len({item.score for item in pure.items}) > 1
    assert [item.relevance for item in pure.items] == sorted((item.relevance for item in pure.items), reverse=True)
    ten = await ranked_by_model(caller, champion.version, candidates=many, mmr_lambda=1.0, top_k=10)
    assert [(item.item_id, item.score) for item in ten.items] == [(item.item_id, item.score) for item in pure.items[:10]]
    mixed = await ranked_by_model(caller, champion.version, candidates=many, mmr_lambda=0.0, top_k=10)
    assert mixed.items[0].item_id == pure.items[0].item_id, "the first has nothing beside it to be unlike"
    assert mixed.diversity_score > ten.diversity_score
    alike = {one.item_id for one in many if one.item_type == "type1"}
    assert len([item for item in mixed.items if item.item_id in alike]) <= 1 < len([item for item in ten.items if item.item_id in alike])
    by_score = {item.item_id: item.score for item in pure.items}
    assert all(item.score == by_score[item.item_id] for item in mixed.items), "diversity moves items, not scores"


async def test_top_k_cuts_and_does_not_care_for_more_than_there_are(caller: Client, champion: Champion) -> None:
    whole = await ranked_by_model(caller, champion.version)
    for wanted, count in ((1, 1), (7, 7), (20, 20), (500, 20)):
        cut = await ranked_by_model(caller, champion.version, top_k=wanted)
        assert [item.item_id for item in cut.items] == [item.item_id for item in whole.items[:count]]
        assert cut.HasField("diversity_score") == (count > 1)


async def test_a_feature_matrix_says_what_the_maps_say(caller: Client, looped: Stack, champion: Champion) -> None:
    by_map = await ranked_by_model(caller, champion.version)
    bare = people()
    names = ["roi_potential", "nobody declared this", "cost"]
    values = np.array([[one.features["roi_potential"], np.nan, one.features["cost"]] for one in bare], dtype="<f8")
    for one in bare:
        one.ClearField("features")
    bare[0].features["cost"] = 1e6  # the matrix wins
    by_matrix = await ranked_by_model(
        caller, champion.version, candidates=bare, feature_matrix=FeatureMatrix(names=names, values=values.tobytes())
    )
    assert [(item.item_id, item.score) for item in by_matrix.items] == [(item.item_id, item.score) for item in by_map.items]
    columns = []
    for answer in (by_map, by_matrix):
        slate, known = await slate_document(looped, answer.ranking_id)
        values = np.frombuffer(slate["features"], dtype="<f8").reshape(20, len(known))
        columns.append(values[:, [known.index(name) for name in ("roi_potential", "cost", "prior_score", "list_prior_rank")]])
    assert np.array_equal(columns[0], columns[1]), "and the ledger cannot tell them apart"


async def test_contributions_add_up_to_the_score_and_are_told_in_words(caller: Client, champion: Champion) -> None:
    answer = await ranked_by_model(caller, champion.version, explain=True)
    assert all(not item.contributions for item in (await ranked_by_model(caller, champion.version)).items)
    assert len({item.score for item in answer.items}) > 1
    for item in answer.items:
        assert sum(one.contribution for one in item.contributions) == pytest.approx(item.score, abs=1e-9)
        *listed, base = item.contributions
        assert base.feature == "(base)"
        named = [one for one in listed if one.feature != "(others)"]
        assert 1 <= len(named) <= 5
        sizes = [abs(one.contribution) for one in named]
        assert sizes == sorted(sizes, reverse=True)
        assert len({one.feature for one in item.contributions}) == len(item.contributions)
        assert all(one.meaning and one.words.endswith(f"({one.contribution:+.2f})") for one in item.contributions)


async def test_a_version_can_be_asked_for_and_one_that_is_not_there_is_not_found(caller: Client, champion: Champion) -> None:
    pinned = await ranked_by_model(caller, champion.version, model_version=champion.version)
    plain = await ranked_by_model(caller, champion.version)
    assert [item.item_id for item in pinned.items] == [item.item_id for item in plain.items]
    error = await failure_of(caller.ranking.Rank(RankRequest(candidates=people(), model_version="m-nobody-made"), timeout=CALL_SECONDS))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert details_of(error)[0].reason == "MODEL_NOT_FOUND"


async def test_what_users_do_changes_what_is_ranked_by(caller: Client, looped: Stack, champion: Champion) -> None:
    async def features_of(user_id: str) -> dict[str, float]:
        answer = await ranked_by_model(caller, champion.version, user_id=user_id, top_k=1)
        slate, names = await slate_document(looped, answer.ranking_id)
        return dict(zip(names, np.frombuffer(slate["features"], dtype="<f8").tolist(), strict=True))

    before = await features_of("newcomer")
    clicks = [
        tracking_pb2.Interaction(event_id=f"newcomer-{number}", user_id="newcomer", item_id="offer-03", type="click", item_type="type0")
        for number in range(5)
    ]
    await caller.tracking.TrackInteractions(tracking_pb2.TrackInteractionsRequest(interactions=clicks), timeout=CALL_SECONDS)
    # At once: the server that took it in tells the ranker.
    after = await features_of("newcomer")
    changed = [name for name in after if name.startswith("user_") and not np.array_equal(after[name], before[name], equal_nan=True)]
    assert after["user_interactions_all"] == 5
    assert any("count" in name or "clicks" in name or "interactions" in name for name in changed), changed


def forest_by_prior(rounds: int = 30) -> bytes:
    """A forest whose score is the prior, in LightGBM's text format."""
    prior = np.linspace(0, 1, 201)
    parameters = {"objective": "regression", "num_leaves": 31, "min_data_in_leaf": 1, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(prior[:, None], prior, params=parameters), num_boost_round=rounds)
    return booster.model_to_string().encode()


async def test_models_are_promoted_and_rolled_back_without_a_failed_call(
    caller: Client, looped: Stack, champion: Champion, tmp_path: Path
) -> None:
    second = "brought-along"
    brought = model_pb2.ImportModelRequest(model_version=second, forest=forest_by_prior(), feature_names=["prior_score"])
    imported = (await caller.models.ImportModel(brought, timeout=CALL_SECONDS)).model
    assert (imported.model_version, imported.status, imported.source) == (second, model_pb2.MODEL_STATUS_CANDIDATE, "import")
    other = model_pb2.ImportModelRequest(model_version=second, forest=forest_by_prior(rounds=3), feature_names=["prior_score"])
    assert (await failure_of(caller.models.ImportModel(other, timeout=CALL_SECONDS))).code() is grpc.StatusCode.ALREADY_EXISTS
    pinned = await ranked_by_model(caller, second, model_version=second, mmr_lambda=1.0)
    priors = {one.item_id: one.prior_score for one in people()}
    assert [priors[item.item_id] for item in pinned.items[:3]] == [0.95, 0.9, 0.85], "it serves whom it is asked for by"
    stop = asyncio.Event()
    served: Counter[str] = Counter()

    async def keep_ranking() -> None:
        while not stop.is_set():
            answer = await rank(caller, candidates=people(), user_id="ann")
            assert answer.ml_ranking_applied or answer.fallback_reason == "RANKER_TIMEOUT", answer.fallback_reason
            served[answer.model_version] += 1

    ranking = [asyncio.create_task(keep_ranking()) for _ in range(3)]
    try:
        promoted = (await caller.models.PromoteModel(model_pb2.PromoteModelRequest(model_version=second), timeout=CALL_SECONDS)).model
        assert (promoted.model_version, promoted.status) == (second, model_pb2.MODEL_STATUS_CHAMPION)
        await ranked_by_model(caller, second)
        retired = (await caller.models.GetModel(model_pb2.GetModelRequest(model_version=champion.version), timeout=CALL_SECONDS)).model
        assert retired.status == model_pb2.MODEL_STATUS_RETIRED
        await ranked_by_model(caller, champion.version, model_version=champion.version)
        # Who means to leave another champion than the one that serves was too late.
        late = model_pb2.RollbackModelRequest(model_version=champion.version)
        assert (await failure_of(caller.models.RollbackModel(late, timeout=CALL_SECONDS))).code() is grpc.StatusCode.ABORTED
        back = await caller.models.RollbackModel(model_pb2.RollbackModelRequest(model_version=second), timeout=CALL_SECONDS)
        assert (back.model.model_version, back.model.status) == (champion.version, model_pb2.MODEL_STATUS_CHAMPION)
        await ranked_by_model(caller, champion.version)
    finally:
        stop.set()
        await asyncio.gather(*ranking)
    assert served[second] > 0
    assert served[champion.version] > 0


async def test_a_ranker_that_comes_back_comes_back_with_its_model(caller: Client, looped: Stack, champion: Champion) -> None:
    await ranked_by_model(caller, champion.version)
    looped.send("ranker", signal.SIGKILL)
    reasons: Counter[str] = Counter()
    async with asyncio.timeout(60):
        while not (reasons["RANKER_UNAVAILABLE"] and (answer := await rank(caller, candidates=people())).ml_ranking_applied):
            reasons[(await rank(caller, candidates=people())).fallback_reason] += 1
            await asyncio.sleep(0.02)
    assert answer.model_version == champion.version
    assert reasons.keys() <= {"", "RANKER_UNAVAILABLE", "RANKER_TIMEOUT"}, "NO_MODEL never: it is healthy only with its model"


async def test_evaluating_changes_nothing(caller: Client, looped: Stack, champion: Champion, tmp_path: Path) -> None:
    before = await caller.models.ListModels(model_pb2.ListModelsRequest(), timeout=CALL_SECONDS)
    report = train(looped, tmp_path, "--evaluate-only")
    assert report["promoted"] is False
    assert "test.champion.ndcg_at_10" in report["metrics"]
    assert await caller.models.ListModels(model_pb2.ListModelsRequest(), timeout=CALL_SECONDS) == before


async def test_a_request_for_training_waits_for_the_trainer(caller: Client) -> None:
    request = model_pb2.RequestTrainingRequest(reason="new season")
    first = (await caller.models.RequestTraining(request, timeout=CALL_SECONDS)).run
    second = (await caller.models.RequestTraining(request, timeout=CALL_SECONDS)).run
    assert first == second, "one that waits is enough"
    assert first.status == model_pb2.TRAINING_RUN_STATUS_REQUESTED
