"""An experiment through the public API: people who like variety, three settings of it, and a verdict that finds the one they like."""

from __future__ import annotations

import asyncio
import hashlib
import uuid

import grpc
import lightgbm
import numpy as np
import pytest

from rankloop.assignment import plan_of
from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1 import model_pb2
from rankloop.v1.ranking_pb2 import Candidate, RankRequest, RankResponse
from rankloop.v1.tracking_pb2 import Interaction, TrackInteractionsRequest
from tests.e2e.stack import CALL_SECONDS, Client, details_of, eventually, failure_of

LAMBDAS = {"lambda-9": 0.9, "lambda-7": 0.7, "lambda-5": 0.5}
TYPES = ("cloud", "energy", "security", "storage")
USERS = 750
AT_ONCE = 6


def candidates() -> list[Candidate]:
    """Twenty items of four types. The caller likes one type best: five by λ = 0.9 are of one type, by 0.7 of two, by 0.5 of all four."""
    return [
        Candidate(item_id=f"{kind}-{place}", item_type=kind, tags=[kind], prior_score=1.0 - 0.09 * rank - 0.002 * place)
        for rank, kind in enumerate(TYPES)
        for place in range(5)
    ]


def likes(user_id: str, kind: str) -> bool:
    """Everybody likes every type with probability 0.2: whoever is shown more of them more often finds something."""
    return hashlib.sha256(f"{user_id}/{kind}".encode()).digest()[0] < 51


def experiment(experiment_id: str, model_version: str = "", **changed: object) -> pb.Experiment:
    variants = [
        pb.Variant(variant_id=name, weight=1 / 3, parameters=pb.VariantParameters(mmr_lambda=value, model_version=model_version))
        for name, value in LAMBDAS.items()
    ]
    fields: dict[str, object] = {
        "experiment_id": experiment_id,
        "hypothesis": "People click more where there is more variety.",
        "surface": experiment_id,
        "layer": experiment_id,
        "variants": variants,
        "primary_metric": pb.ExperimentMetric(kind=pb.METRIC_KIND_CONVERSION, type="click"),
        "secondary_metrics": [pb.ExperimentMetric(kind=pb.METRIC_KIND_CTR), pb.ExperimentMetric(kind=pb.METRIC_KIND_DIVERSITY)],
        "guardrails": [
            pb.ExperimentMetric(kind=pb.METRIC_KIND_LATENCY, margin=5.0),
            pb.ExperimentMetric(kind=pb.METRIC_KIND_ERROR_RATE, margin=0.5),
        ],
    }
    return pb.Experiment(**(fields | changed))  # type: ignore[arg-type]


async def brought_model(client: Client) -> str:
    """A model whose score is the prior, ready in the ranker; it is no champion."""
    prior = np.linspace(0, 1, 201)
    parameters = {"objective": "regression", "num_leaves": 31, "min_data_in_leaf": 1, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(prior[:, None], prior, params=parameters), num_boost_round=30)
    version = f"by-prior-{uuid.uuid4().hex[:8]}"
    request = model_pb2.ImportModelRequest(model_version=version, forest=booster.model_to_string().encode(), feature_names=["prior_score"])
    await client.models.ImportModel(request, timeout=CALL_SECONDS)

    async def ready() -> bool:
        answer = await client.ranking.Rank(RankRequest(candidates=candidates(), model_version=version), timeout=CALL_SECONDS)
        return bool(answer.ml_ranking_applied)

    await eventually(ready)
    return version


async def visit(client: Client, surface: str, user_id: str) -> RankResponse:
    """A user comes, and clicks the first item of each type they like."""
    request = RankRequest(user_id=user_id, surface=surface, candidates=candidates(), top_k=5)
    response: RankResponse = await client.ranking.Rank(request, timeout=CALL_SECONDS)
    kinds = dict.fromkeys(item.item_id.split("-")[0] for item in response.items)
    clicks = [
        Interaction(
            event_id=f"{response.ranking_id}-{kind}",
            user_id=user_id,
            item_id=next(item.item_id for item in response.items if item.item_id.startswith(kind)),
            type="click",
            ranking_id=response.ranking_id,
        )
        for kind in kinds
        if likes(user_id, kind)
    ]
    if clicks:
        await client.tracking.TrackInteractions(TrackInteractionsRequest(interactions=clicks), timeout=CALL_SECONDS)
    return response


@pytest.mark.timeout(240)
async def test_three_settings_of_variety_and_the_one_that_people_like(client: Client) -> None:
    name = f"variety-{uuid.uuid4().hex[:8]}"
    model_version = await brought_model(client)
    wanted = pb.CreateExperimentRequest(experiment=experiment(name, model_version))
    draft = (await client.experiments.CreateExperiment(wanted)).experiment
    assert draft.state == pb.EXPERIMENT_STATE_DRAFT
    assert not (await visit(client, name, "too-early")).experiment_id
    running = (await client.experiments.StartExperiment(pb.StartExperimentRequest(experiment_id=name, etag=draft.etag))).experiment

    gate = asyncio.Semaphore(AT_ONCE)

    async def come(number: int) -> tuple[str, RankResponse]:
        async with gate:
            return f"{name}-user-{number}", await visit(client, name, f"{name}-user-{number}")

    seen = dict(await asyncio.gather(*(come(number) for number in range(USERS))))

    # The variant is the one that the client library works out by itself, and the one that GetAssignment tells.
    plan = plan_of(running)
    assert {response.experiment_id for response in seen.values()} == {name}
    assert all(plan.assign(user_id).variant_id == response.variant_id for user_id, response in seen.items())
    one = next(iter(seen))
    told = await client.experiments.GetAssignment(pb.GetAssignmentRequest(experiment_id=name, user_id=one))
    assert (told.variant_id, told.reason) == (seen[one].variant_id, pb.ASSIGNMENT_REASON_ASSIGNED)
    assert told.parameters.mmr_lambda == LAMBDAS[told.variant_id]
    anonymous = await visit(client, name, "")
    assert not anonymous.experiment_id

    await client.folded()
    results = await client.experiments.GetExperimentResults(pb.GetExperimentResultsRequest(experiment_id=name), timeout=CALL_SECONDS)
    assert sum(variant.user_count for variant in results.variants) == USERS
    assert not results.sample_ratio.void
    primary = results.metrics[0]
    for value in primary.values:
        users = {user_id for user_id, response in seen.items() if response.variant_id == value.variant_id}
        shown = {user_id: {item.item_id.split("-")[0] for item in seen[user_id].items} for user_id in users}
        clicked = sum(any(likes(user_id, kind) for kind in kinds) for user_id, kinds in shown.items())
        assert (value.user_count, value.converted_count) == (len(users), clicked)
    assert (results.verdict.ruling, results.verdict.winner_variant_id) == (pb.RULING_BETTER, "lambda-5"), results.verdict.sentence
    assert not results.verdict.breaches
    # Without promotion: a champion would be everybody's who shares this stack.
    ended = await client.experiments.StopExperiment(
        pb.StopExperimentRequest(experiment_id=name, verdict=results.verdict.sentence, winner_variant_id="lambda-5")
    )
    assert ended.experiment.state == pb.EXPERIMENT_STATE_CONCLUDED
    assert not (await visit(client, name, "somebody")).experiment_id


async def test_refusals_name_what_is_wrong(client: Client) -> None:
    name = f"refused-{uuid.uuid4().hex[:8]}"
    wrong = experiment(name)
    wrong.variants[0].weight = 0.5
    error = await failure_of(client.experiments.CreateExperiment(pb.CreateExperimentRequest(experiment=wrong)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [field.field for field in details_of(error)[1]] == ["experiment.variants"]
    await client.experiments.CreateExperiment(pb.CreateExperimentRequest(experiment=experiment(name)))
    await client.experiments.StartExperiment(pb.StartExperimentRequest(experiment_id=name))
    for call, code, reason in (
        (client.experiments.CreateExperiment(pb.CreateExperimentRequest(experiment=experiment(name))), "ALREADY_EXISTS", "ALREADY_EXISTS"),
        (client.experiments.StartExperiment(pb.StartExperimentRequest(experiment_id=name)), "FAILED_PRECONDITION", "NOT_A_DRAFT"),
        (
            client.experiments.UpdateExperiment(pb.UpdateExperimentRequest(experiment=experiment(name, surface="other"))),
            "FAILED_PRECONDITION",
            "EXPERIMENT_RUNNING",
        ),
        (
            client.experiments.StopExperiment(pb.StopExperimentRequest(experiment_id=name, etag="stale")),
            "ABORTED",
            "CHANGED",
        ),
        (client.experiments.GetExperiment(pb.GetExperimentRequest(experiment_id="nothing")), "NOT_FOUND", "EXPERIMENT_NOT_FOUND"),
    ):
        error = await failure_of(call)
        assert (error.code().name, details_of(error)[0].reason) == (code, reason)
    second = experiment(f"{name}-2", surface=name, layer=name)
    await client.experiments.CreateExperiment(pb.CreateExperimentRequest(experiment=second))
    error = await failure_of(client.experiments.StartExperiment(pb.StartExperimentRequest(experiment_id=f"{name}-2")))
    assert (error.code(), details_of(error)[0].reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAYER_FULL")
    await client.experiments.StopExperiment(pb.StopExperimentRequest(experiment_id=name))
