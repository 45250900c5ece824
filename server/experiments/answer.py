"""A readout in the contract's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rankloop.v1 import experiment_pb2 as pb
from runtime.timestamps import to_timestamp
from server.experiments.breakdown import Point, Segment
from server.experiments.comparison import Comparison
from server.experiments.readout import Readout, Value
from server.experiments.verdict import Ruling, Verdict
from server.inference.difference import Result

RULINGS = {
    Ruling.VOID: pb.RULING_VOID,
    Ruling.HARMFUL: pb.RULING_HARMFUL,
    Ruling.TOO_EARLY: pb.RULING_TOO_EARLY,
    Ruling.BETTER: pb.RULING_BETTER,
    Ruling.NO_DIFFERENCE: pb.RULING_NO_DIFFERENCE,
    Ruling.UNDECIDED: pb.RULING_UNDECIDED,
}
READING = (
    "Sequential (always valid): you may look at this one every day. Fixed horizon: right at one look only, at the planned size; whoever "
    "stops at the first look that pleases is wrong far more often than the level says."
)


def answer(
    experiment: pb.Experiment, readout: Readout, verdict: Verdict, caps: Mapping[str, float], as_of: datetime
) -> pb.GetExperimentResultsResponse:
    """The readout without segments and series."""
    control = experiment.control_variant_id
    return pb.GetExperimentResultsResponse(
        experiment_id=experiment.experiment_id,
        as_of_time=to_timestamp(as_of),
        verdict=verdict_message(verdict),
        variants=[
            pb.VariantCounts(
                variant_id=group.variant_id,
                user_count=group.user_count,
                exposure_count=group.exposure_count,
                expected_user_count=due,
            )
            for group, due in zip(readout.groups, readout.sample_ratio.expected, strict=True)
        ],
        sample_ratio=pb.SampleRatioCheck(
            chi_square=readout.sample_ratio.chi_square, p_value=readout.sample_ratio.p_value, void=readout.sample_ratio.void
        ),
        metrics=[
            pb.MetricResult(
                name=one.metric.name,
                role=one.metric.role,
                estimator=one.metric.kind,
                cap=caps.get(one.metric.name),
                values=values_message(one.values),
                comparisons=comparisons_message(one.comparisons, control),
            )
            for one in readout.metrics
        ],
    )


def verdict_message(verdict: Verdict) -> pb.ExperimentVerdict:
    """What may be said."""
    message = pb.ExperimentVerdict(
        ruling=RULINGS[verdict.ruling],
        sentence=verdict.sentence,
        winner_variant_id=verdict.winner_id,
        breaches=[f"{variant_id}: {guardrail}" for variant_id, guardrail in verdict.breached],
    )
    if verdict.expected_time is not None:
        message.expected_time.CopyFrom(to_timestamp(verdict.expected_time))
    return message


def segment_message(segment: Segment, control: str) -> pb.SegmentResult:
    """Users of one kind."""
    return pb.SegmentResult(
        dimension=segment.dimension,
        value=segment.value,
        values=values_message(segment.values),
        comparisons=comparisons_message(segment.comparisons, control),
    )


def point_message(point: Point, control: str) -> pb.SeriesPoint:
    """As it stood at a time."""
    return pb.SeriesPoint(
        time=to_timestamp(point.time), values=values_message(point.values), comparisons=comparisons_message(point.comparisons, control)
    )


def values_message(values: Sequence[Value]) -> list[pb.VariantValue]:
    """By variant."""
    return [
        pb.VariantValue(
            variant_id=one.variant_id,
            user_count=one.user_count,
            converted_count=one.converted_count,
            value=one.estimate.value if one.estimate else None,
            standard_error=one.estimate.standard_error if one.estimate else None,
            probability_to_be_best=one.probability_to_be_best,
            expected_loss=one.expected_loss,
        )
        for one in values
    ]


def comparisons_message(comparisons: Sequence[Comparison], control: str) -> list[pb.VariantComparison]:
    """Every other variant against the control."""
    return [
        pb.VariantComparison(
            variant_id=one.variant_id,
            control_variant_id=control,
            absolute_fixed=test_message(one.absolute.fixed_horizon) if one.absolute else None,
            absolute_sequential=test_message(one.absolute.sequential) if one.absolute else None,
            relative_fixed=test_message(one.relative.fixed_horizon) if one.relative else None,
            relative_sequential=test_message(one.relative.sequential) if one.relative else None,
            corrected_fixed_p_value=one.fixed_p_value,
            corrected_sequential_p_value=one.sequential_p_value,
            chance_to_win=one.chance_to_win,
            variance_reduction=one.variance_reduction,
            lacking_conversion_count=one.lacking_conversions,
            breached=one.breached,
            reading=READING,
        )
        for one in comparisons
    ]


def test_message(result: Result) -> pb.TestResult:
    """One test."""
    return pb.TestResult(test=result.name, value=result.value, low=result.low, high=result.high, p_value=result.p_value)
