"""What is exported: everything, once, in an order that does not depend on how it came in, over as many streams as it takes."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ranker.models.registry import ModelRegistry
from rankloop.v1 import export_pb2 as pb
from rankloop.v1.experiment_pb2 import EXPERIMENT_STATE_DRAFT, Experiment
from rankloop.v1.record_pb2 import Record
from runtime.errors import InvalidInput, Overloaded
from runtime.mongo import InsertOne, Long, Mongo
from runtime.timestamps import to_timestamp
from server.experiments.store import ExperimentStore
from server.export import exporter as exporting
from server.export import ordered
from server.export.exporter import Exporter
from server.export.ordered import by_time
from tests.integration.bundles import bundle

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
START = NOW - timedelta(days=2)


class Seconds:
    """A clock that goes on by so much whenever it is looked at."""

    def __init__(self, step: float) -> None:
        self._step = step
        self._now = 0.0

    def __call__(self) -> float:
        self._now += self._step
        return self._now


def exporter(mongo: Mongo, *, step_seconds: float = 0.0) -> Exporter:
    return Exporter(mongo, lambda: NOW, Seconds(step_seconds))


def interaction(number: int, moment: datetime) -> dict[str, Any]:
    return {
        "_id": f"e{number:04d}",
        "user_id": "u",
        "item_id": "i",
        "type": "click",
        "label": 0.4,
        "occur_time": moment,
        "receive_time": NOW,
    }


async def written(mongo: Mongo, collection: str, documents: list[dict[str, Any]]) -> None:
    """Stores documents in another order than they are in."""
    shuffled = list(documents)
    random.Random(3).shuffle(shuffled)
    await mongo.collection(collection).bulk_write([InsertOne(document) for document in shuffled])


async def pieces(made: Exporter, request: pb.ExportRecordsRequest) -> list[pb.ExportRecordsResponse]:
    return [piece async for piece in made.export(request)]


async def all_of(made: Exporter, request: pb.ExportRecordsRequest) -> tuple[list[Record], int]:
    """The records of as many streams as it takes, and how many it took."""
    records: list[Record] = []
    asked = pb.ExportRecordsRequest()
    asked.CopyFrom(request)
    for streams in range(1, 1000):
        answers = await pieces(made, asked)
        records += [record for answer in answers for record in answer.records]
        asked.resume_token = answers[-1].resume_token
        if not asked.resume_token:
            return records, streams
    raise AssertionError("it never ends")


async def test_of_one_moment_however_many_all_come_by_id(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "MOST_AT_A_MOMENT", 20)
    moments = [START] * 3 + [START + timedelta(hours=1)] * 90 + [START + timedelta(hours=2 + number % 4) for number in range(60)]
    documents = [interaction(number, moment) for number, moment in enumerate(moments)]
    await written(mongo, "interactions", documents)
    expected = [(one["occur_time"], one["_id"]) for one in sorted(documents, key=lambda one: (one["occur_time"], one["_id"]))]
    interactions = mongo.collection("interactions")

    async def found(after: tuple[datetime, str] | None = None) -> list[tuple[datetime, str]]:
        batches = by_time(interactions, "occur_time", START, NOW, after=after, batch_size=7)
        return [(one["occur_time"], one["_id"]) async for batch in batches for one in batch]

    assert await found() == expected
    for place in range(0, len(expected), 11):
        assert await found(expected[place]) == expected[place + 1 :]
    assert [one async for one in by_time(interactions, "occur_time", NOW, NOW + timedelta(days=1))] == []


@pytest.mark.parametrize("step_seconds", [0.0, 1000.0], ids=["one stream", "a stream for each piece"])
async def test_all_of_a_period_comes_once_whatever_the_streams(
    mongo_both: Mongo, monkeypatch: pytest.MonkeyPatch, step_seconds: float
) -> None:
    monkeypatch.setattr(exporting, "PIECE_RECORDS", 7)
    documents = [interaction(number, START + timedelta(seconds=number // 3)) for number in range(100)]
    await written(mongo_both, "interactions", documents)
    request = pb.ExportRecordsRequest(kind=pb.RECORD_KIND_INTERACTION)
    request.start_time.CopyFrom(to_timestamp(START + timedelta(seconds=1)))
    request.end_time.CopyFrom(to_timestamp(START + timedelta(seconds=30)))
    made = exporter(mongo_both, step_seconds=step_seconds)
    records, streams = await all_of(made, request)
    assert [record.interaction.event_id for record in records] == [f"e{number:04d}" for number in range(3, 90)]
    assert streams == (1 if not step_seconds else 13), "87 records of 7 a piece"
    first, *others = await pieces(exporter(mongo_both), request)
    assert first.total_count == 87
    assert not any(one.HasField("total_count") for one in others)


async def test_a_token_goes_on_behind_every_piece(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PIECE_RECORDS", 3)
    day = START.replace(hour=0)
    tallies = [
        {
            "_id": {"scope": scope, "start": day, "key": key},
            "revision": Long(1),
            "day": {"views": number},
            "hours": {"3": {"views": number}},
        }
        for number, (scope, key) in enumerate(
            [("item", f"i{number}") for number in range(8)]
            + [("performance:algorithm+surface", [f"a{number}", "home"]) for number in range(8)]
        )
    ]
    await written(mongo, "tallies", tallies)
    request = pb.ExportRecordsRequest(kind=pb.RECORD_KIND_TALLY)
    whole = await pieces(exporter(mongo), request)
    records = [record for piece in whole for record in piece.records]
    assert [list(record.tally.key) for record in records] == [
        *([f"i{number}"] for number in range(8)),
        *([f"a{number}", "home"] for number in range(8)),
    ]
    assert records[5].tally.day == {"views": 5}
    assert [(one.hour, dict(one.counters)) for one in records[5].tally.hours] == [(3, {"views": 5})]
    seen = 0
    for piece in whole[:-1]:
        seen += len(piece.records)
        request.resume_token = piece.resume_token
        assert (await all_of(exporter(mongo), request))[0] == records[seen:]


async def test_attributions_follow_their_slates(mongo: Mongo) -> None:
    slates = [
        {"_id": f"r{number}", "user_id": "u", "show_time": START + timedelta(seconds=9 - number), "receive_time": NOW, "items": items}
        for number, items in enumerate([[{"item_id": "b"}, {"item_id": "a"}], [{"item_id": "c"}], [{"item_id": "d"}]])
    ]
    await written(mongo, "slates", slates)
    impressions = [("r0", "a"), ("r0", "b"), ("r2", "d"), ("no slate", "x")]
    attributions: list[dict[str, Any]] = [
        {"_id": {"ranking_id": ranking_id, "item_id": item_id}, "ranking_id": ranking_id, "label": 0.4, "counts": {"click": 1}}
        for ranking_id, item_id in impressions
    ]
    attributions[0] |= {"first_click_time": NOW, "last_rating": [NOW, "e", 4.0], "last_abandon": [NOW, "e", "form"]}
    await written(mongo, "attributions", attributions)
    records, _ = await all_of(exporter(mongo), pb.ExportRecordsRequest(kind=pb.RECORD_KIND_ATTRIBUTION))
    found = [record.attribution for record in records]
    assert [(one.ranking_id, one.item_id) for one in found] == [("r2", "d"), ("r0", "b"), ("r0", "a")]
    assert (found[2].rating, found[2].dropoff_point, found[2].first_click_time) == (4.0, "form", to_timestamp(NOW))
    assert not found[1].HasField("rating")


FAULTS: list[tuple[str, str, Callable[[pb.ExportRecordsRequest], None]]] = [
    ("kind", "MISSING", lambda request: request.ClearField("kind")),
    ("kind", "OUT_OF_RANGE", lambda request: setattr(request, "kind", 99)),
    ("end_time", "OUT_OF_RANGE", lambda request: request.end_time.CopyFrom(request.start_time)),
    ("start_time", "IN_THE_FUTURE", lambda request: request.start_time.CopyFrom(to_timestamp(NOW + timedelta(days=3)))),
    ("start_time", "OUT_OF_RANGE", lambda request: setattr(request.start_time, "seconds", 10**12)),
    ("resume_token", "INVALID", lambda request: setattr(request, "resume_token", "nonsense")),
    ("resume_token", "INVALID", lambda request: setattr(request, "resume_token", "W10=")),
]


@pytest.mark.parametrize(("field", "reason", "spoil"), FAULTS)
async def test_what_is_wrong_is_named(mongo: Mongo, field: str, reason: str, spoil: Callable[[pb.ExportRecordsRequest], None]) -> None:
    request = pb.ExportRecordsRequest(kind=pb.RECORD_KIND_INTERACTION)
    request.start_time.CopyFrom(to_timestamp(START))
    spoil(request)
    with pytest.raises(InvalidInput) as refusal:
        await pieces(exporter(mongo), request)
    assert [(one.field, one.reason) for one in refusal.value.violations] == [(field, reason)]


async def test_a_token_of_another_period_or_with_another_place_is_refused(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PIECE_RECORDS", 1)
    await written(mongo, "interactions", [interaction(number, START) for number in range(3)])
    request = pb.ExportRecordsRequest(kind=pb.RECORD_KIND_INTERACTION)
    token = (await pieces(exporter(mongo), request))[0].resume_token
    for other in (pb.ExportRecordsRequest(kind=pb.RECORD_KIND_OUTCOME), pb.ExportRecordsRequest(kind=pb.RECORD_KIND_INTERACTION)):
        if other.kind == request.kind:
            other.end_time.CopyFrom(to_timestamp(NOW))
        other.resume_token = token
        with pytest.raises(InvalidInput, match="another question"):
            await pieces(exporter(mongo), other)
    for place in ([], [1], ["x", "y"], [10**30, "e"], [0, {"$gt": ""}], [0, "\ud800"]):
        question = ["export", "interaction", None, None]
        forged = pb.ExportRecordsRequest(kind=request.kind, resume_token=exporting.token_after(question, place))
        with pytest.raises(InvalidInput, match="resume_token"):
            await pieces(exporter(mongo), forged)


async def test_models_and_experiments_of_the_period_by_id(mongo: Mongo) -> None:
    registry, store = ModelRegistry(mongo), ExperimentStore(mongo)
    for number, version in enumerate(("m2", "m1", "m3")):
        await registry.publish(bundle(version), START + timedelta(days=number))
        experiment = Experiment(experiment_id=f"of {version}", state=EXPERIMENT_STATE_DRAFT, etag="e")
        experiment.create_time.CopyFrom(to_timestamp(START + timedelta(days=number)))
        await store.insert(experiment, NOW)
    request = pb.ExportRecordsRequest(kind=pb.RECORD_KIND_MODEL)
    request.end_time.CopyFrom(to_timestamp(NOW - timedelta(hours=1)))
    models = [record.model for record in (await all_of(exporter(mongo), request))[0]]
    assert [model.model_version for model in models] == ["m1", "m2"]
    assert models[0].file_sha256 == bundle("m1").sha256
    request.kind = pb.RECORD_KIND_EXPERIMENT
    experiments = [record.experiment for record in (await all_of(exporter(mongo), request))[0]]
    assert [experiment.experiment_id for experiment in experiments] == ["of m1", "of m2"]


async def test_the_history_of_experiments_by_experiment_and_then_as_it_happened(mongo: Mongo) -> None:
    store = ExperimentStore(mongo)
    for number, experiment_id in enumerate(("b", "a", "c")):
        experiment = Experiment(experiment_id=experiment_id, state=EXPERIMENT_STATE_DRAFT, etag="0")
        await store.insert(experiment, NOW - timedelta(days=number + 1))
    moments = [NOW - timedelta(hours=1) + timedelta(milliseconds=step) for step in range(3)]
    for step, moment in enumerate(moments):

        def changed(found: Experiment, _: list[Experiment], step: int = step) -> tuple[Experiment, str]:
            found.etag = str(step + 1)
            return found, f"weights, {step}"

        for experiment_id in ("a", "b"):
            await store.change(experiment_id, "", "update", moment, changed)
    every = [("a", "create", "0"), *(("a", "update", str(step + 1)) for step in range(3))]
    every += [("b", action, etag) for _, action, etag in every] + [("c", "create", "0")]

    def told(records: list[Record]) -> list[tuple[str, str, str]]:
        found = [record.experiment_change for record in records]
        return [(one.experiment_id, one.action, one.etag) for one in found]

    request = pb.ExportRecordsRequest(kind=pb.RECORD_KIND_EXPERIMENT_CHANGE)
    records, _ = await all_of(exporter(mongo), request)
    assert told(records) == every
    last = records[3].experiment_change
    assert (last.description, last.change_time) == ("weights, 2", to_timestamp(moments[2]))
    request.start_time.CopyFrom(to_timestamp(moments[1]))
    request.end_time.CopyFrom(to_timestamp(moments[2]))
    assert told((await all_of(exporter(mongo), request))[0]) == [("a", "update", "2"), ("b", "update", "2")]
    behind = pb.ExportRecordsRequest(kind=request.kind)
    behind.resume_token = exporting.token_after(["export", "experiment_change", None, None], ["a"])
    assert told((await all_of(exporter(mongo), behind))[0]) == every[4:]
    for place in ([], [1], ["a", 0]):
        behind.resume_token = exporting.token_after(["export", "experiment_change", None, None], place)
        with pytest.raises(InvalidInput, match="resume_token"):
            await pieces(exporter(mongo), behind)


async def test_so_many_exports_at_once_and_no_more(mongo: Mongo) -> None:
    made, request = exporter(mongo), pb.ExportRecordsRequest(kind=pb.RECORD_KIND_ITEM)
    streams = [made.export(request) for _ in range(exporting.STREAMS_AT_ONCE)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(Overloaded):
        await anext(made.export(request))
    await streams[0].aclose()  # type: ignore[attr-defined]
    await anext(made.export(request))
