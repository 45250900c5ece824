"""The readout of an experiment that interleaves, on a real MongoDB: against a recount of the raw events in plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import mean, stdev

import pytest

from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1 import tracking_pb2
from runtime.mongo import Mongo
from server.experiments.experiments import Experiments
from server.experiments.interleaving import Team, coin_of, team_draft
from server.experiments.running import RunningExperiments
from server.experiments.store import ExperimentStore
from tests.integration.measured import store
from tests.recount import Sent

START = datetime(2024, 3, 1, 9, tzinfo=UTC)
END = START + timedelta(days=3)
NAMES = {Team.CONTROL: "usual", Team.TREATMENT: "new"}


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def service(mongo: Mongo, clock: Clock) -> tuple[Experiments, RunningExperiments]:
    keeper = ExperimentStore(mongo)
    running = RunningExperiments(keeper, poll_seconds=0.01)
    return Experiments(mongo, keeper, running, new_id=lambda: "made", clock=clock), running


async def run_taste(experiments: Experiments) -> None:
    wanted = pb.Experiment(
        experiment_id="taste",
        surface="home",
        method=pb.EXPERIMENT_METHOD_INTERLEAVING,
        variants=[pb.Variant(variant_id="usual"), pb.Variant(variant_id="new", parameters=pb.VariantParameters(mmr_lambda=0.5))],
        overrides={"user-1": "new"},
    )
    await experiments.create(wanted)
    await experiments.start("taste", "")


def played(seed: int, users: int, liking: float) -> Sent:
    """Users who are shown interleaved slates, and now and then one of a single ranking, by a caller who drafts by itself.

    They click what the new ranking picked `liking` times as often, some of it twice; clicks come late, some after the readout.
    """
    draw = random.Random(seed)
    slates, interactions = [], []
    ids = [f"i-{place}" for place in range(12)]
    for number in range(users):
        for visit in range(draw.randrange(1, 5)):
            shown = START + timedelta(seconds=draw.randrange(3 * 86400))
            ranking_id = f"r-{number}-{visit}"
            picks = team_draft(draw.sample(ids, 12), draw.sample(ids, 12), 6, coin_of(ranking_id))
            single = draw.random() < 0.1
            slate = tracking_pb2.Slate(
                ranking_id=ranking_id,
                user_id=f"user-{number}",
                algorithm="x",
                experiment_id="taste",
                variant_id="usual" if single else "",
                context={"device": "phone" if number % 3 else "desktop"},
                items=[
                    tracking_pb2.SlateItem(item_id=pick.item_id, position=place, variant_id="" if single else NAMES[pick.team])
                    for place, pick in enumerate(picks, start=1)
                ],
            )
            if not single:
                slate.items[0].variant_id = slate.items[0].variant_id if draw.random() < 0.9 else ""  # pinned: nobody's pick
            slate.show_time.FromDatetime(shown)
            slates.append(slate)
            for pick in picks:
                if draw.random() >= 0.15 * (liking if pick.team is Team.TREATMENT else 1.0):
                    continue
                for again in range(draw.choice((1, 1, 2))):
                    clicked = tracking_pb2.Interaction(
                        event_id=f"{ranking_id}-{pick.item_id}-{again}",
                        user_id=slate.user_id,
                        item_id=pick.item_id,
                        type="click",
                        ranking_id=ranking_id,
                    )
                    clicked.occur_time.FromDatetime(shown + timedelta(hours=draw.uniform(0, 20)))
                    interactions.append(clicked)
    return Sent(catalogue=dict.fromkeys(ids, "type"), slates=slates, interactions=interactions)


def recounted(sent: Sent, end: datetime, **context: str) -> tuple[Mapping[str, int], Sequence[int]]:
    """Users, slates, wins and losses, and every user's credit, from what was sent."""
    picks: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    single = 0
    for slate in sent.slates:
        if (
            slate.user_id == "user-1"
            or slate.show_time.ToDatetime(tzinfo=UTC) >= end
            or any(slate.context[k] != v for k, v in context.items())
        ):
            continue
        if any(item.variant_id for item in slate.items):
            picks[slate.user_id][slate.ranking_id] = {item.item_id: item.variant_id for item in slate.items}
        else:
            single += 1
    credits = []
    for shown in picks.values():
        clicked = {
            (one.ranking_id, one.item_id)
            for one in sent.interactions
            if one.ranking_id in shown and one.occur_time.ToDatetime(tzinfo=UTC) < end
        }
        whose = [shown[ranking_id][item_id] for ranking_id, item_id in clicked]
        credits.append(whose.count("new") - whose.count("usual"))
    told = {
        "user_count": len(picks),
        "slate_count": sum(map(len, picks.values())),
        "single_slate_count": single,
        "treatment_win_count": sum(one > 0 for one in credits),
        "control_win_count": sum(one < 0 for one in credits),
        "tie_count": sum(one == 0 for one in credits),
    }
    return told, credits


def told_by(found: pb.PreferenceResult) -> Mapping[str, int]:
    return {
        name: getattr(found, name)
        for name in ("user_count", "slate_count", "single_slate_count", "treatment_win_count", "control_win_count", "tie_count")
    }


@pytest.mark.parametrize(
    ("liking", "ruling", "winner", "said"),
    [
        (1.9, pb.RULING_BETTER, "new", "new is preferred to usual. "),
        (0.4, pb.RULING_HARMFUL, "", "Keep usual, which is preferred to new. "),
        (1.0, pb.RULING_UNDECIDED, "", "Nothing is shown yet; let it go on. "),
    ],
)
async def test_the_readout_is_a_recount(mongo: Mongo, liking: float, ruling: int, winner: str, said: str) -> None:
    clock = Clock()
    experiments, _ = service(mongo, clock)
    await run_taste(experiments)
    sent = played(3, 300, liking)
    await store(mongo, sent, seed=4)
    clock.now = END
    found = await experiments.results(pb.GetExperimentResultsRequest(experiment_id="taste", segment_by=["device"]))
    expected, credits = recounted(sent, END)
    assert told_by(found.preference) == expected
    assert expected["single_slate_count"] > 0
    assert (found.preference.treatment_variant_id, found.preference.control_variant_id) == ("new", "usual")
    wins, users = expected["treatment_win_count"], expected["user_count"]
    assert found.preference.share == pytest.approx((wins + expected["tie_count"] / 2) / users - 0.5)
    assert found.preference.sign_test.value == pytest.approx(wins / (wins + expected["control_win_count"]))
    assert found.preference.paired_fixed.value == pytest.approx(mean(credits))
    half = found.preference.paired_fixed.high - found.preference.paired_fixed.value
    assert half == pytest.approx(1.97 * stdev(credits) / users**0.5, rel=0.01)
    assert found.preference.paired_sequential.value == found.preference.paired_fixed.value
    assert found.preference.paired_sequential.p_value >= found.preference.paired_fixed.p_value
    assert (found.verdict.ruling, found.verdict.winner_variant_id) == (ruling, winner), found.verdict.sentence
    assert found.verdict.sentence.startswith(said)
    assert f"{wins} of {wins + expected['control_win_count']} users with a preference" in found.verdict.sentence
    assert (found.tester_count, found.mixed_user_count, found.anonymous_slate_count) == (1, 0, 0)
    assert not found.variants
    assert not found.metrics
    assert not found.HasField("sample_ratio")

    # Day by day, and by device.
    days = [point.time.ToDatetime(tzinfo=UTC) for point in found.series]
    assert days == [datetime(2024, 3, day, tzinfo=UTC) for day in (2, 3, 4)] + [END]
    for day, point in zip(days, found.series, strict=True):
        assert told_by(point.preference) == recounted(sent, day)[0]
    for segment in found.segments:
        assert told_by(segment.preference) == recounted(sent, END, device=segment.value)[0]
    assert "2 segments" in found.segment_warning

    early = pb.GetExperimentResultsRequest(experiment_id="taste")
    early.as_of_time.FromDatetime(START + timedelta(hours=1))
    first = await experiments.results(early)
    assert told_by(first.preference) == recounted(sent, START + timedelta(hours=1))[0]
    assert first.verdict.ruling == pb.RULING_TOO_EARLY
    lacking = 25 - first.preference.treatment_win_count - first.preference.control_win_count
    assert first.preference.lacking_preference_count == lacking > 0
    assert f"Too early: {25 - lacking} of the 25 users with a preference" in first.verdict.sentence


async def test_nobody_came(mongo: Mongo) -> None:
    experiments, _ = service(mongo, Clock())
    await run_taste(experiments)
    found = await experiments.results(pb.GetExperimentResultsRequest(experiment_id="taste"))
    assert found.verdict.ruling == pb.RULING_TOO_EARLY
    assert found.preference.user_count == 0
    assert not found.preference.HasField("share")
    assert not found.preference.HasField("paired_sequential")
    assert found.preference.lacking_preference_count == 25


async def test_an_ab_test_in_another_layer_holds_for_both_rankings(mongo: Mongo) -> None:
    experiments, running = service(mongo, Clock())
    for lambda_, layer in ((0.1, "older"), (0.2, "younger")):
        variants = [pb.Variant(variant_id="all", weight=1.0), pb.Variant(variant_id="none", weight=0.0)]
        variants[0].parameters.mmr_lambda = lambda_
        variants[0].parameters.diversifier = "dpp"
        metric = pb.ExperimentMetric(kind=pb.METRIC_KIND_CTR)
        await experiments.create(pb.Experiment(experiment_id=layer, layer=layer, variants=variants, primary_metric=metric))
        await experiments.start(layer, "")
        if layer == "older":
            await run_taste(experiments)  # started between the two
    treatment = running.treatment("home", "ann")
    assert [(one.experiment_id, one.variant_id) for one in treatment.assignments] == [("older", "all"), ("taste", ""), ("younger", "all")]
    pair = treatment.interleaving
    assert pair is not None
    assert (pair.experiment_id, pair.control_id, pair.treatment_id) == ("taste", "usual", "new")
    told = [[one.mmr_lambda if one.HasField("mmr_lambda") else None for one in side.parameters] for side in (pair.control, pair.treatment)]
    assert told == [[0.1, None, 0.2], [0.1, 0.5, 0.2]]
    tester = running.treatment("home", "user-1")
    assert tester.interleaving is None
    assert [one.mmr_lambda for one in tester.parameters] == [0.1, 0.5, 0.2]
    assert running.treatment("search", "ann").interleaving is None
    # The winner holds for everybody, once it is promoted.
    await experiments.stop(pb.StopExperimentRequest(experiment_id="taste", winner_variant_id="new", promote=True))
    ended = running.treatment("home", "ann")
    assert ended.interleaving is None
    assert [one.mmr_lambda for one in ended.parameters] == [0.1, 0.2, 0.5]
