"""Experiments on a real MongoDB: two editors, two starts, a restart, and readouts against a recount in plain Python."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1 import tracking_pb2
from runtime.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidInput, NotFound
from runtime.mongo import Mongo
from runtime.settings import MongoSettings
from server.experiments.experiments import Experiments
from server.experiments.running import RunningExperiments
from server.experiments.store import ExperimentStore
from tests.integration.measured import store
from tests.recount import Sent

START = datetime(2024, 3, 1, 9, tzinfo=UTC)
END = START + timedelta(days=3)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def service(mongo: Mongo, clock: Clock | None = None) -> tuple[Experiments, RunningExperiments]:
    ids = iter(f"made-{number}" for number in range(100))
    keeper = ExperimentStore(mongo)
    running = RunningExperiments(keeper, poll_seconds=0.01)
    return Experiments(mongo, keeper, running, new_id=lambda: next(ids), clock=clock or Clock()), running


def wanted(**changed: object) -> pb.Experiment:
    fields: dict[str, object] = {
        "experiment_id": "variety",
        "surface": "home",
        "variants": [
            pb.Variant(variant_id="a", weight=0.5, parameters=pb.VariantParameters(mmr_lambda=0.9)),
            pb.Variant(variant_id="b", weight=0.5, parameters=pb.VariantParameters(mmr_lambda=0.5, algorithm="prior_score")),
        ],
        "primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION, type="save"),
    }
    return pb.Experiment(**(fields | changed))  # type: ignore[arg-type]


async def test_a_life(mongo: Mongo) -> None:
    experiments, running = service(mongo)
    draft = await experiments.create(wanted())
    assert (await experiments.create(wanted(experiment_id=""))).experiment_id == "made-0"
    with pytest.raises(AlreadyExists):
        await experiments.create(wanted())
    await running.refresh()
    assert running.treatment("home", "u-1").assignments == ()
    await experiments.start("variety", draft.etag)
    found = running.treatment("home", "u-1")
    (assigned,) = found.assignments
    told = await experiments.assignment(pb.GetAssignmentRequest(experiment_id="variety", user_id="u-1"))
    assert told.variant_id == assigned.variant_id
    assert told.reason == pb.ASSIGNMENT_REASON_ASSIGNED
    assert told.parameters == found.parameters[0]
    assert list(running.treatment("search", "u-1").assignments) == []
    assert list(running.treatment("home", "").assignments) == []
    await experiments.stop(pb.StopExperimentRequest(experiment_id="variety", verdict="b it is", winner_variant_id="b", promote=True))
    promoted = running.treatment("home", "u-1")
    assert (list(promoted.assignments), promoted.algorithm) == ([], "prior_score")
    assert running.treatment("search", "u-1").algorithm == running.treatment("", "u-1").algorithm == ""
    stopped, changes = await experiments.get("variety")
    assert stopped.state == pb.EXPERIMENT_STATE_CONCLUDED
    assert [(change.action, change.description) for change in changes] == [("create", ""), ("start", ""), ("stop", "b it is; promoted")]
    listed, token = await experiments.page(pb.ListExperimentsRequest(page_size=1))
    rest, end = await experiments.page(pb.ListExperimentsRequest(page_size=1, page_token=token))
    assert {one.experiment_id for one in (*listed, *rest)} == {"variety", "made-0"}
    assert await experiments.page(pb.ListExperimentsRequest(page_size=1, page_token=end)) == ([], "")
    drafts, _ = await experiments.page(pb.ListExperimentsRequest(state=pb.EXPERIMENT_STATE_DRAFT))
    assert [one.experiment_id for one in drafts] == ["made-0"]


async def test_two_editors_and_two_starts(mongo: Mongo) -> None:
    experiments, _ = service(mongo)
    other, _ = service(mongo)
    read = await experiments.create(wanted())
    mine, theirs = pb.Experiment(), pb.Experiment()
    mine.CopyFrom(read)
    theirs.CopyFrom(read)
    mine.hypothesis, theirs.hypothesis = "mine", "theirs"
    await experiments.update(mine)
    with pytest.raises(Aborted, match="was changed since it was read"):
        await other.update(theirs)
    assert (await other.get("variety"))[0].hypothesis == "mine"
    await experiments.create(wanted(experiment_id="second"))
    outcomes = await asyncio.gather(experiments.start("variety", ""), other.start("second", ""), return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, BaseException)]
    assert [type(one).__name__ for one in refused] == ["NoRoom"]
    with pytest.raises(FailedPrecondition):
        await experiments.start(next(one for one in outcomes if isinstance(one, pb.Experiment)).experiment_id, "")


async def test_a_restart_moves_nobody(mongo: Mongo) -> None:
    experiments, running = service(mongo)
    await experiments.create(wanted())
    await experiments.start("variety", "")
    users = [f"u-{number}" for number in range(300)]
    before = [running.treatment("home", user).assignments[0].variant_id for user in users]
    _, restarted = service(mongo)
    await restarted.refresh()
    assert [restarted.treatment("home", user).assignments[0].variant_id for user in users] == before
    assert {"a", "b"} == set(before)


async def test_an_absent_database_stops_nobody(mongo: Mongo, mongo_settings: MongoSettings) -> None:
    experiments, _ = service(mongo)
    await experiments.create(wanted())
    await experiments.start("variety", "")
    connection = await Mongo.open(mongo_settings)
    following = RunningExperiments(ExperimentStore(connection), poll_seconds=0.01)
    await following.refresh()
    before = [following.treatment("home", f"u-{number}").assignments for number in range(50)]
    assert stale() == 0
    await connection.close()
    task = asyncio.create_task(following.run())
    async with asyncio.timeout(30):
        while not stale() and not task.done():
            await asyncio.sleep(0.01)
    assert stale() == 1
    assert not task.done()
    assert [following.treatment("home", f"u-{number}").assignments for number in range(50)] == before
    task.cancel()


def stale() -> float:
    return REGISTRY.get_sample_value("rankloop_experiments_stale") or 0.0


async def test_what_is_not_there(mongo: Mongo) -> None:
    experiments, _ = service(mongo)
    for call in (
        experiments.get("nothing"),
        experiments.start("nothing", ""),
        experiments.update(wanted(experiment_id="nothing")),
        experiments.stop(pb.StopExperimentRequest(experiment_id="nothing")),
        experiments.results(pb.GetExperimentResultsRequest(experiment_id="nothing")),
        experiments.assignment(pb.GetAssignmentRequest(experiment_id="nothing")),
    ):
        with pytest.raises(NotFound, match="there is no experiment nothing"):
            await call
    unknown = pb.VariantParameters(model_version="no-such-model")
    variants = [pb.Variant(variant_id="a", weight=0.5), pb.Variant(variant_id="b", weight=0.5, parameters=unknown)]
    with pytest.raises(InvalidInput, match="there is no model no-such-model") as caught:
        await experiments.create(wanted(variants=variants))
    assert caught.value.violations[0].field == "experiment.variants[1].parameters.model_version"


def played(seed: int, users: int) -> Sent:
    """Users who come to the experiment, some to both variants, and do things before and after."""
    draw = random.Random(seed)
    slates, interactions, outcomes = [], [], []

    def at(moment: datetime) -> dict[str, object]:
        return {"seconds": int(moment.timestamp())}

    for number in range(users):
        user_id, variant = f"user-{number}", draw.choice("ab")
        first = START + timedelta(seconds=draw.randrange(2 * 86400))
        for visit in range(draw.randrange(1, 4)):
            shown = first + visit * timedelta(hours=5)
            ranking_id = f"r-{number}-{visit}"
            slates.append(
                tracking_pb2.Slate(
                    ranking_id=ranking_id,
                    user_id=user_id,
                    algorithm="x",
                    show_time=at(shown),  # type: ignore[arg-type]
                    experiment_id="variety",
                    variant_id="ab"[variant == "a"] if number % 50 == 0 and visit == 1 else variant,
                    context={"device": "phone" if number % 3 else "desktop"},
                    items=[tracking_pb2.SlateItem(item_id=f"i-{place}", position=place + 1) for place in range(5)],
                )
            )
            clicked = [place for place in range(5) if draw.random() < (0.2 if variant == "a" else 0.35)]
            interactions += [
                tracking_pb2.Interaction(
                    event_id=f"{ranking_id}-{place}",
                    user_id=user_id,
                    item_id=f"i-{place}",
                    type="click",
                    ranking_id=ranking_id,
                    occur_time=at(shown + timedelta(seconds=30)),  # type: ignore[arg-type]
                )
                for place in clicked
            ]
        for order, days in enumerate((-3, draw.uniform(0, 4))):
            if draw.random() < (0.25 if variant == "a" else 0.65):
                interactions.append(
                    tracking_pb2.Interaction(
                        event_id=f"save-{number}-{order}",
                        user_id=user_id,
                        item_id="i-0",
                        type="save",
                        occur_time=at(first + timedelta(days=days)),  # type: ignore[arg-type]
                    )
                )
                outcomes.append(
                    tracking_pb2.Outcome(
                        event_id=f"paid-{number}-{order}",
                        user_id=user_id,
                        type="revenue",
                        value=draw.lognormvariate(3, 1),
                        occur_time=at(first + timedelta(days=days)),  # type: ignore[arg-type]
                    )
                )
    return Sent(catalogue={f"i-{place}": "type" for place in range(5)}, slates=slates, interactions=interactions, outcomes=outcomes)


async def test_the_readout_is_a_recount(mongo: Mongo) -> None:
    clock = Clock()
    experiments, _ = service(mongo, clock)
    await experiments.create(
        wanted(
            secondary_metrics=[
                pb.ExperimentMetric(kind=pb.METRIC_KIND_CTR),
                pb.ExperimentMetric(kind=pb.METRIC_KIND_OUTCOME_VALUE, type="revenue", winsor_quantile=1.0, name="revenue"),
                pb.ExperimentMetric(kind=pb.METRIC_KIND_ENGAGEMENT, cuped=True),
                pb.ExperimentMetric(kind=pb.METRIC_KIND_RETENTION),
                pb.ExperimentMetric(kind=pb.METRIC_KIND_TIME_TO_ACTION),
            ],
            overrides={"user-1": "a"},
        )
    )
    await experiments.start("variety", "")
    sent = played(5, 600)
    await store(mongo, sent, seed=6)
    clock.now = END
    found = await experiments.results(pb.GetExperimentResultsRequest(experiment_id="variety", segment_by=["device"]))

    # The same in plain Python.
    visits = defaultdict(list)
    for slate in sorted(sent.slates, key=lambda one: one.show_time.seconds):
        if slate.show_time.seconds < END.timestamp():
            visits[slate.user_id].append(slate)
    mixed = {user for user, shown in visits.items() if len({slate.variant_id for slate in shown}) > 1} - {"user-1"}
    kept = {user: shown for user, shown in visits.items() if user not in mixed and user != "user-1"}
    assert mixed
    assert (found.mixed_user_count, found.tester_count, found.anonymous_slate_count) == (len(mixed), 1, 0)
    for counts in found.variants:
        mine = {user: shown for user, shown in kept.items() if shown[0].variant_id == counts.variant_id}
        assert (counts.user_count, counts.exposure_count) == (len(mine), sum(map(len, mine.values())))

        def after(
            user: str, entry: tracking_pb2.Interaction | tracking_pb2.Outcome, kept: dict[str, list[tracking_pb2.Slate]] = mine
        ) -> bool:
            return entry.user_id == user and kept[user][0].show_time.seconds <= entry.occur_time.seconds < END.timestamp()

        acts = {user: [one for one in sent.interactions if after(user, one)] for user in mine}
        paid = {user: sum(one.value for one in sent.outcomes if after(user, one)) for user in mine}
        value = {metric.name: next(one for one in metric.values if one.variant_id == counts.variant_id) for metric in found.metrics}
        saved = sum(any(one.type == "save" for one in done) for done in acts.values())
        assert value["conversion:save"].converted_count == saved
        assert value["conversion:save"].value == pytest.approx(saved / len(mine))
        clicks = sum(one.type == "click" for done in acts.values() for one in done)
        assert value["ctr"].value == pytest.approx(clicks / (5 * sum(map(len, mine.values()))))
        assert value["revenue"].value == pytest.approx(sum(paid.values()) / len(mine))
        assert value["engagement"].value == pytest.approx(sum(map(len, acts.values())) / len(mine))
        assert value["time_to_action"].value == pytest.approx(30.0)
    by_name = {metric.name: metric for metric in found.metrics}
    assert [metric.role for metric in found.metrics] == ["primary"] + ["secondary"] * 5
    assert by_name["engagement"].comparisons[0].HasField("variance_reduction")
    assert not by_name["ctr"].comparisons[0].HasField("variance_reduction")
    assert found.verdict.ruling == pb.RULING_BETTER
    assert found.verdict.winner_variant_id == "b"
    assert {(one.dimension, one.value) for one in found.segments} == {("device", "phone"), ("device", "desktop")}
    assert sum(value.user_count for segment in found.segments for value in segment.values) == len(kept)
    assert "comparisons" in found.segment_warning
    assert [point.time.ToDatetime(tzinfo=UTC) for point in found.series][-1] == END
    assert len(found.series) == 4
    assert found.series[-1].values == found.metrics[0].values

    early = pb.GetExperimentResultsRequest(experiment_id="variety")
    early.as_of_time.FromDatetime(START + timedelta(hours=1))
    assert (await experiments.results(early)).verdict.ruling == pb.RULING_TOO_EARLY


async def test_changed_weights_are_read_by_period(mongo: Mongo) -> None:
    clock = Clock()
    experiments, _ = service(mongo, clock)
    await experiments.create(wanted())
    started = await experiments.start("variety", "")
    clock.now = START + timedelta(days=1)
    started.variants[0].weight, started.variants[1].weight = 0.2, 0.8
    changed = await experiments.update(started)
    assert len(changed.weight_periods) == 2
    await store(mongo, played(7, 400), seed=8)
    clock.now = END
    found = await experiments.results(pb.GetExperimentResultsRequest(experiment_id="variety"))
    # Users came at random in halves, whatever the weights said: the check of each period's own shares hears it.
    assert found.sample_ratio.void
    assert found.verdict.ruling == pb.RULING_VOID
    assert sum(one.expected_user_count for one in found.variants) == pytest.approx(sum(one.user_count for one in found.variants))
    # Day by day there would be no saying which weights a point is of: there is one at the end of each.
    first, last = found.series
    assert (first.time, last.time) == (changed.weight_periods[1].start_time, found.as_of_time)
    assert last.values == found.metrics[0].values
    clock.now = END + timedelta(minutes=1)
    before = await experiments.results(
        pb.GetExperimentResultsRequest(experiment_id="variety", as_of_time=changed.weight_periods[1].start_time)
    )
    assert list(before.series) == [first]
