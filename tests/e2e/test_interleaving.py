"""Interleaving through the public API: slates drafted from two rankings, clicks that count for whose pick they were, and a verdict."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import pytest

from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1 import export_pb2
from rankloop.v1.ranking_pb2 import Boost, Exclusion, Pin, RankRequest, RankResponse, Rules, Target
from rankloop.v1.tracking_pb2 import Interaction, Slate, TrackInteractionsRequest
from tests.e2e.stack import CALL_SECONDS, Client, Stack, details_of, eventually, failure_of, running
from tests.e2e.test_experiment import brought_model, candidates
from tests.e2e.test_metrics import sample, scraped

USERS, VISITS, AT_ONCE = 150, 2, 6
LIKED = "storage"
"""The type that the caller ranks last, and people like best."""
PINNED, EXCLUDED = "cloud-4", "energy-0"


def experiment(name: str, *, usual: pb.VariantParameters, new: pb.VariantParameters) -> pb.Experiment:
    return pb.Experiment(
        experiment_id=name,
        surface=name,
        layer=name,
        method=pb.EXPERIMENT_METHOD_INTERLEAVING,
        variants=[pb.Variant(variant_id="usual", parameters=usual), pb.Variant(variant_id="new", parameters=new)],
        overrides={"tests-usual": "usual", "tests-new": "new"},
    )


def liked_first(**fields: object) -> pb.VariantParameters:
    """A ranking that puts what people like above everything else."""
    rules = Rules(boosts=[Boost(target=Target(item_type=LIKED), addend=2.0)])
    return pb.VariantParameters(rules=rules, **fields)  # type: ignore[arg-type]


async def begun(client: Client, wanted: pb.Experiment) -> str:
    await client.experiments.CreateExperiment(pb.CreateExperimentRequest(experiment=wanted), timeout=CALL_SECONDS)
    await client.experiments.StartExperiment(pb.StartExperimentRequest(experiment_id=wanted.experiment_id), timeout=CALL_SECONDS)
    return wanted.experiment_id


async def ranked(client: Client, surface: str, user_id: str, **fields: object) -> RankResponse:
    request = RankRequest(user_id=user_id, surface=surface, candidates=candidates(), **fields)  # type: ignore[arg-type]
    response: RankResponse = await client.ranking.Rank(request, timeout=CALL_SECONDS)
    return response


def clicked_by(user_id: str, item_id: str) -> bool:
    """People click a third of what they like, and a tenth of the rest."""
    return hashlib.sha256(f"{user_id}/{item_id}".encode()).digest()[0] < (85 if item_id.startswith(LIKED) else 26)


async def visit(client: Client, surface: str, user_id: str, **fields: object) -> tuple[RankResponse, set[str]]:
    """A user comes and clicks."""
    response = await ranked(client, surface, user_id, **fields)
    clicked = {item.item_id for item in response.items if clicked_by(user_id, item.item_id)}
    clicks = [
        Interaction(event_id=f"{response.ranking_id}-{one}", user_id=user_id, item_id=one, type="click", ranking_id=response.ranking_id)
        for one in clicked
    ]
    if clicks:
        await client.tracking.TrackInteractions(TrackInteractionsRequest(interactions=clicks), timeout=CALL_SECONDS)
    return response, clicked


async def exported(client: Client, surface: str) -> dict[str, Slate]:
    """The slates of a surface, as the ledger has them."""
    found: dict[str, Slate] = {}
    asked = export_pb2.ExportRecordsRequest(kind=export_pb2.RECORD_KIND_SLATE)
    async for piece in client.export.ExportRecords(asked, timeout=CALL_SECONDS):
        found |= {one.slate.ranking_id: one.slate for one in piece.records if one.slate.surface == surface}
    return found


def check_draft(response: RankResponse, rankings: Mapping[str, Sequence[str]]) -> None:
    """Every pick is its ranking's best among what was not there yet, and at every length the teams are even."""
    ids = [item.item_id for item in response.items]
    assert len(set(ids)) == len(ids)
    assert [item.position for item in response.items] == list(range(1, len(ids) + 1))
    sizes: Counter[str] = Counter()
    for place, item in enumerate(response.items):
        if item.item_id == PINNED:
            continue
        assert item.item_id == next(one for one in rankings[item.variant_id] if one not in (*ids[:place], PINNED))
        sizes[item.variant_id] += 1
        assert abs(sizes["usual"] - sizes["new"]) <= 1


@pytest.mark.timeout(240)
async def test_the_ranking_that_people_like_wins(client: Client, stack: Stack) -> None:
    model_version = await brought_model(client)
    by_model = {"model_version": model_version, "mmr_lambda": 1.0}
    name = f"taste-{uuid.uuid4().hex[:8]}"
    usual = pb.VariantParameters(**by_model)  # type: ignore[arg-type]
    await begun(client, experiment(name, usual=usual, new=liked_first(**by_model)))
    told = await client.experiments.GetAssignment(pb.GetAssignmentRequest(experiment_id=name, user_id="ann"), timeout=CALL_SECONDS)
    assert (told.variant_id, told.reason) == ("", pb.ASSIGNMENT_REASON_INTERLEAVED)
    rules = Rules(pins=[Pin(item_id=PINNED, position=2)], exclusions=[Exclusion(target=Target(item_id=EXCLUDED))])

    # Testers see either ranking alone.
    pure = {one: await ranked(client, name, f"tests-{one}", top_k=6, rules=rules) for one in ("usual", "new")}
    assert {one: response.variant_id for one, response in pure.items()} == {"usual": "usual", "new": "new"}
    rankings = {one: [item.item_id for item in response.items] for one, response in pure.items()}
    assert rankings["usual"][0].startswith("cloud")
    assert rankings["new"][0].startswith(LIKED)

    gate = asyncio.Semaphore(AT_ONCE)

    single: list[RankResponse] = []

    async def drafted(user_id: str) -> tuple[RankResponse, set[str]]:
        """A busy machine may not have both rankings in time; such a slate is one ranking's, and does not count."""
        while True:
            response, clicked = await visit(client, name, user_id, top_k=6, rules=rules)
            if response.algorithm == "interleaved":
                return response, clicked
            single.append(response)

    async def come(number: int) -> list[tuple[RankResponse, set[str]]]:
        async with gate:
            return [await drafted(f"{name}-{number}") for _ in range(VISITS)]

    seen = await asyncio.gather(*(come(number) for number in range(USERS)))
    credits = Counter[int]()
    for number, (response, clicked) in ((number, one) for number, visits in enumerate(seen) for one in visits):
        check_draft(response, rankings)
        assert (response.experiment_id, response.variant_id, response.algorithm) == (name, "", "interleaved")
        assert (response.model_version, response.ml_ranking_applied, response.fallback_reason) == (model_version, True, "")
        assert (response.items[1].item_id, response.items[1].variant_id) == (PINNED, "")
        assert EXCLUDED not in {item.item_id for item in response.items}
        assert [(one.item_id, one.position) for one in response.rule_effects if one.rule_id.startswith("rules.pins")] == [(PINNED, 2)]
        assert not response.HasField("diversity_score")
        whose = [item.variant_id for item in response.items if item.item_id in clicked]
        credits[number] += whose.count("new") - whose.count("usual")
    assert len(single) < USERS * VISITS / 2
    first = {item.variant_id for visits in seen for response, _ in visits for item in response.items[:1]}
    assert first == {"usual", "new"}  # the coin

    # The ledger has them as they were answered, with what either ranking knew of the items it picked.
    await client.folded()

    async def recorded() -> dict[str, Slate] | None:
        slates = await exported(client, name)
        return slates if len(slates) >= USERS * VISITS + len(single) + 2 else None

    slates = await eventually(recorded)
    assert slates is not None
    for visits in seen:
        for response, _ in visits:
            slate = slates[response.ranking_id]
            assert [(item.item_id, item.variant_id) for item in slate.items] == [(item.item_id, item.variant_id) for item in response.items]
            assert (slate.experiment_id, slate.variant_id) == (name, "")
            assert all(item.features["prior_score"] and not item.HasField("propensity") for item in slate.items)

    await client.folded()
    results = await client.experiments.GetExperimentResults(pb.GetExperimentResultsRequest(experiment_id=name), timeout=CALL_SECONDS)
    found = results.preference
    assert (found.user_count, found.slate_count, found.single_slate_count) == (USERS, USERS * VISITS, len(single))
    assert found.treatment_win_count == sum(one > 0 for one in credits.values())
    assert found.control_win_count == sum(one < 0 for one in credits.values())
    assert found.paired_sequential.value == pytest.approx(sum(credits.values()) / USERS)
    assert (results.verdict.ruling, results.verdict.winner_variant_id) == (pb.RULING_BETTER, "new"), results.verdict.sentence
    assert results.tester_count == 2
    counted = scraped(stack, "server")
    assert sample(counted, "rankloop_interleaved_slates_total", experiment_id=name, outcome="drafted") == USERS * VISITS
    await client.experiments.StopExperiment(pb.StopExperimentRequest(experiment_id=name, winner_variant_id="new"), timeout=CALL_SECONDS)
    assert not (await ranked(client, name, "somebody")).experiment_id


async def test_the_same_request_id_gives_the_same_slate(client: Client) -> None:
    name = f"again-{uuid.uuid4().hex[:8]}"
    prior = pb.VariantParameters(algorithm="prior_score")
    await begun(client, experiment(name, usual=prior, new=liked_first(algorithm="prior_score")))
    for number in range(3):
        first = await ranked(client, name, "ann", request_id=f"q-{number}", top_k=5)
        assert {item.variant_id for item in first.items} == {"usual", "new"}
        assert (first.algorithm, first.model_version, first.ml_ranking_applied, first.fallback_reason) == ("interleaved", "", False, "")
        assert await ranked(client, name, "ann", request_id=f"q-{number}", top_k=5) == first
    whole = await ranked(client, name, "ann")
    assert len(whole.items) == 20
    # The winner is promoted, as after an A/B test.
    stop = pb.StopExperimentRequest(experiment_id=name, winner_variant_id="new", promote=True)
    await client.experiments.StopExperiment(stop, timeout=CALL_SECONDS)
    promoted = await ranked(client, name, "ann", top_k=5)
    assert (promoted.experiment_id, promoted.algorithm) == ("", "prior_score")
    assert all(item.item_id.startswith(LIKED) for item in promoted.items)


async def test_what_is_wrong_with_a_request_is_told_once(client: Client) -> None:
    name = f"wrong-{uuid.uuid4().hex[:8]}"
    await begun(client, experiment(name, usual=pb.VariantParameters(algorithm="prior_score"), new=liked_first()))
    for fields, code, told in (
        ({"top_k": -1}, grpc.StatusCode.INVALID_ARGUMENT, ["top_k"]),
        ({"rules": Rules(boosts=[Boost(addend=1.0)])}, grpc.StatusCode.INVALID_ARGUMENT, ["rules.boosts[0].target"]),
        ({"model_version": "no-such-model"}, grpc.StatusCode.NOT_FOUND, []),
    ):
        error = await failure_of(ranked(client, name, "ann", **fields))
        assert error.code() is code
        assert [one.field for one in details_of(error)[1]] == told
    await client.experiments.StopExperiment(pb.StopExperimentRequest(experiment_id=name), timeout=CALL_SECONDS)


async def test_without_a_model_the_slate_is_the_other_rankings_and_does_not_count(client: Client, stack: Stack) -> None:
    name = f"alone-{uuid.uuid4().hex[:8]}"
    prior = pb.VariantParameters(algorithm="prior_score")
    await begun(client, experiment(name, usual=prior, new=liked_first()))
    response = await ranked(client, name, "ann", top_k=5)
    assert (response.experiment_id, response.variant_id, response.algorithm) == (name, "usual", "prior_score")
    assert [item.item_id for item in response.items] == [one.item_id for one in candidates()[:5]]
    assert not any(item.variant_id for item in response.items)
    assert {item.propensity for item in response.items} == {1.0}
    both = f"{name}-both"
    await begun(client, experiment(both, usual=pb.VariantParameters(), new=liked_first()))
    response = await ranked(client, both, "ann", top_k=5)
    assert (response.experiment_id, response.variant_id, response.fallback_reason) == (both, "", "NO_MODEL")
    assert not any(item.variant_id for item in response.items)
    await client.folded()
    for one, outcome in ((name, "control"), (both, "neither")):

        async def told(one: str = one) -> bool:
            request = pb.GetExperimentResultsRequest(experiment_id=one)
            found = (await client.experiments.GetExperimentResults(request, timeout=CALL_SECONDS)).preference
            assert (found.user_count, found.slate_count) == (0, 0)
            return bool(found.single_slate_count == 1)

        await eventually(told)
        assert sample(scraped(stack, "server"), "rankloop_interleaved_slates_total", experiment_id=one, outcome=outcome) == 1
        await client.experiments.StopExperiment(pb.StopExperimentRequest(experiment_id=one), timeout=CALL_SECONDS)


@pytest.mark.timeout(120)
async def test_a_ranker_that_is_stopped_fails_no_slate(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        async with Client(stack.address) as client:
            version = await brought_model(client)
            prior = pb.VariantParameters(algorithm="prior_score")
            name = await begun(client, experiment("stopped", usual=prior, new=liked_first(model_version=version)))
            assert (await ranked(client, name, "ann", top_k=5)).algorithm == "interleaved"
            pid = stack.send("ranker", signal.SIGSTOP)
            try:
                response = await ranked(client, name, "ann", top_k=5)
                assert (response.variant_id, response.algorithm) == ("usual", "prior_score")
                assert [item.item_id for item in response.items] == [one.item_id for one in candidates()[:5]]
            finally:
                os.kill(pid, signal.SIGCONT)

            async def drafted_again() -> bool:
                return (await ranked(client, name, "ann", top_k=5)).algorithm == "interleaved"

            await eventually(drafted_again)
