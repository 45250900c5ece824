"""A bandit and a guardrail through the public API: users go to what people like, and what fails is stopped by itself."""

from __future__ import annotations

import asyncio
import hashlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from rankloop.assignment import plan_of
from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1.export_pb2 import RECORD_KIND_SLATE, ExportRecordsRequest
from rankloop.v1.ranking_pb2 import RankRequest, RankResponse
from rankloop.v1.tracking_pb2 import Interaction, TrackInteractionsRequest
from tests.e2e.stack import CALL_SECONDS, Client, Stack, details_of, eventually, failure_of, rankloop, running
from tests.e2e.test_experiment import brought_model, candidates
from tests.e2e.test_metrics import sample, scraped

RATES = {"dull": 0.1, "plain": 0.2, "bright": 0.5}
FLOOR = 0.1
WAVE = 400
AT_ONCE = 6


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose server looks after its experiments several times a second."""
    variables = {"RANKLOOP_SERVER_EXPERIMENT_WATCH_SECONDS": "0.1", "RANKLOOP_SERVER_EXPERIMENT_POLL_SECONDS": "0.1"}
    with running(tmp_path_factory.mktemp("bandit"), **variables) as stack:
        yield stack


def experiment(name: str, **fields: object) -> pb.Experiment:
    return pb.Experiment(**({"experiment_id": name, "surface": name, "layer": name} | fields))  # type: ignore[arg-type]


async def begun(client: Client, wanted: pb.Experiment) -> pb.Experiment:
    await client.experiments.CreateExperiment(pb.CreateExperimentRequest(experiment=wanted))
    request = pb.StartExperimentRequest(experiment_id=wanted.experiment_id)
    return (await client.experiments.StartExperiment(request)).experiment  # type: ignore[no-any-return]


async def ranked(client: Client, surface: str, user_id: str) -> RankResponse:
    request = RankRequest(user_id=user_id, surface=surface, candidates=candidates()[:5])
    return await client.ranking.Rank(request, timeout=CALL_SECONDS)  # type: ignore[no-any-return]


async def visit(client: Client, surface: str, user_id: str) -> RankResponse:
    """A user comes, and clicks the first item with the variant's rate."""
    response = await ranked(client, surface, user_id)
    if hashlib.sha256(user_id.encode()).digest()[0] < 256 * RATES[response.variant_id]:
        click = Interaction(
            event_id=f"{response.ranking_id}-click",
            user_id=user_id,
            item_id=response.items[0].item_id,
            type="click",
            ranking_id=response.ranking_id,
        )
        await client.tracking.TrackInteractions(TrackInteractionsRequest(interactions=[click]), timeout=CALL_SECONDS)
    return response


async def wave(client: Client, surface: str, number: int) -> dict[str, RankResponse]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def come(user_id: str) -> tuple[str, RankResponse]:
        async with gate:
            return user_id, await visit(client, surface, user_id)

    return dict(await asyncio.gather(*(come(f"{surface}-{number}-{place}") for place in range(WAVE))))


async def shown(client: Client, name: str) -> pb.GetExperimentResponse:
    return await client.experiments.GetExperiment(pb.GetExperimentRequest(experiment_id=name))  # type: ignore[no-any-return]


async def settled(stack: Stack, name: str) -> None:
    """Waits until the server has been asked for weights again, and found that what it knows moves nothing."""

    def unchanged() -> float:
        return sample(scraped(stack, "server"), "rankloop_experiment_weight_updates_total", experiment_id=name, outcome="unchanged")

    before = unchanged()

    async def again() -> bool:
        return unchanged() >= before + 2

    await eventually(again)


@pytest.mark.timeout(240)
async def test_users_go_to_what_people_like(up: Stack, tmp_path: Path) -> None:
    variants = [pb.Variant(variant_id=name, weight=1 / 3) for name in RATES]
    primary = pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION, type="click")
    bandit = pb.Bandit(floor=FLOOR, update_interval=Duration(seconds=1), min_users=50)
    async with Client(up.address) as client:
        first = await begun(client, experiment("likes", variants=variants, primary_metric=primary, bandit=bandit))
        seen = await wave(client, "likes", 0)
        await settled(up, "likes")
        seen |= await wave(client, "likes", 1)
        await settled(up, "likes")
        found = await shown(client, "likes")
        weights = {variant.variant_id: variant.weight for variant in found.experiment.variants}
        assert weights["bright"] > 0.7
        assert min(weights.values()) >= FLOOR - 1e-9

        # The history lists every change of weights, and each is a period.
        reweighted = [change for change in found.changes if change.action == "reweight"]
        assert len(reweighted) == len(found.experiment.weight_periods) - 1 > 0
        assert all("probability to be best by conversion:click: dull 0." in change.description for change in reweighted)
        assert [period.start_time for period in found.experiment.weight_periods[1:]] == [change.change_time for change in reweighted]

        # Every slate says with which probability its user had this variant: a weight of that variant.
        held = {name: [period.weights[name] for period in found.experiment.weight_periods] for name in RATES}
        for response in seen.values():
            assert any(response.variant_propensity == pytest.approx(weight, abs=1e-9) for weight in held[response.variant_id])
        assert {round(response.variant_propensity, 9) for response in seen.values()} != {round(1 / 3, 9)}
        by_ranking = {response.ranking_id: response for response in seen.values()}

        async def exported() -> dict[str, float]:
            kept = {}
            async for piece in client.export.ExportRecords(ExportRecordsRequest(kind=RECORD_KIND_SLATE), timeout=CALL_SECONDS):
                kept |= {one.slate.ranking_id: one.slate.variant_propensity for one in piece.records if one.slate.experiment_id}
            return kept if by_ranking.keys() <= kept.keys() else {}

        kept = await eventually(exported)
        assert all(kept[ranking_id] == response.variant_propensity for ranking_id, response in by_ranking.items())

        # Whoever changed arm since the first weights had to: from one that shrank to one that grew.
        before, after = plan_of(first), plan_of(found.experiment)
        moves = {(before.assign(user).variant_id, after.assign(user).variant_id) for user in seen}
        assert moves <= {*((name, name) for name in RATES), ("dull", "bright"), ("plain", "bright")}

        # Nobody sets weights by hand; a tester has no propensity.
        by_hand = found.experiment
        by_hand.variants[0].weight, by_hand.variants[1].weight, by_hand.variants[2].weight = 0.4, 0.3, 0.3
        error = await failure_of(client.experiments.UpdateExperiment(pb.UpdateExperimentRequest(experiment=by_hand)))
        assert (error.code(), details_of(error)[0].reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BANDIT_RUNNING")
        tested = (await shown(client, "likes")).experiment
        tested.overrides["tester"] = "dull"
        await client.experiments.UpdateExperiment(pb.UpdateExperimentRequest(experiment=tested))
        answer = await ranked(client, "likes", "tester")
        assert (answer.variant_id, answer.HasField("variant_propensity")) == ("dull", False)

        # Read out within periods; users were shared out as the weights of each said.
        results = await client.experiments.GetExperimentResults(pb.GetExperimentResultsRequest(experiment_id="likes"))
        assert not results.sample_ratio.void
        assert sum(variant.user_count for variant in results.variants) == len(seen)
        counted = {variant.variant_id: variant.user_count for variant in results.variants}
        assert counted == {name: sum(response.variant_id == name for response in seen.values()) for name in RATES}
        arms = {user: (await ranked(client, "likes", user)).variant_id for user in seen}
        await settled(up, "likes")
        last = (await shown(client, "likes")).experiment

    pid = up.send("server", signal.SIGTERM)

    async def restarted() -> bool:
        return up.pid("server") != pid

    await eventually(restarted)
    async with Client(up.address) as client:

        async def answers() -> bool:
            return bool((await ranked(client, "likes", "somebody")).variant_id)

        await eventually(answers)
        # Not one of them changes arm: what the weights follow from is in the database, and tells the same.
        assert {user: (await ranked(client, "likes", user)).variant_id for user in seen} == arms
        await settled(up, "likes")
        again = (await shown(client, "likes")).experiment
        assert again.weight_periods == last.weight_periods
        assert again.shares == last.shares

    said = rankloop("experiments", "show", "likes", "--server", up.address, cwd=tmp_path).stdout
    assert "a bandit" in said
    assert said.count("reweight: ") == len(reweighted)
    table = said[said.index("weights since") :].splitlines()
    assert len(table) > len(last.weight_periods)
    assert f"{weights['bright']:.1%}" in said


@pytest.mark.timeout(240)
async def test_what_fails_is_stopped_by_itself_where_that_was_asked(up: Stack) -> None:
    async with Client(up.address) as client:
        model_version = await brought_model(client)
        model, none = (
            pb.VariantParameters(model_version=model_version),
            pb.VariantParameters(algorithm="prior_score"),
        )
        guarded = {
            "primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION, type="click"),
            "guardrails": [pb.ExperimentMetric(kind=pb.METRIC_KIND_FALLBACK_RATIO, margin=0.1)],
        }
        for name, parameters, asked in (("asked", none, True), ("unasked", none, False), ("sound", model, True)):
            variants = [
                pb.Variant(variant_id="usual", weight=0.5, parameters=model),
                pb.Variant(variant_id="new", weight=0.5, parameters=parameters),
            ]
            await begun(client, experiment(name, variants=variants, stop_on_breach=asked, **guarded))
        gate = asyncio.Semaphore(AT_ONCE)

        async def come(user_id: str) -> None:
            async with gate:
                for surface in ("unasked", "sound", "asked"):
                    await ranked(client, surface, user_id)

        await asyncio.gather(*(come(f"guarded-{number}") for number in range(200)))

        async def stopped() -> bool:
            return (await shown(client, "asked")).experiment.state == pb.EXPERIMENT_STATE_STOPPED

        await eventually(stopped)
        found = await shown(client, "asked")
        # On a slow machine a ranking of the usual variant may have been late, too.
        said = r"Stopped by itself, a guardrail is breached: fallback_ratio of new is \+(1|0\.[5-9]\d*) against usual \(95% interval \+"
        assert re.match(said, found.experiment.verdict), found.experiment.verdict
        assert (found.changes[-1].action, found.changes[-1].description) == ("stop_on_breach", found.experiment.verdict)
        assert not (await ranked(client, "asked", "somebody")).experiment_id

        async def told() -> bool:
            request = pb.GetExperimentResultsRequest(experiment_id="unasked")
            results = await client.experiments.GetExperimentResults(request, timeout=CALL_SECONDS)
            return list(results.verdict.breaches) == ["new: fallback_ratio"]

        await eventually(told)

        def looks(name: str) -> float:
            return sample(scraped(up, "server"), "rankloop_experiment_breach_looks_total", experiment_id=name)

        before = looks("sound")

        async def looked_again() -> bool:
            return looks("sound") >= before + 3

        await eventually(looked_again)
        assert looks("unasked") == 0
        for name in ("unasked", "sound"):
            assert (await shown(client, name)).experiment.state == pb.EXPERIMENT_STATE_RUNNING
