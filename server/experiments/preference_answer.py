"""The readout of an experiment that interleaves, in the contract's words."""

from __future__ import annotations

from datetime import datetime

from rankloop.v1 import experiment_pb2 as pb
from runtime.timestamps import to_timestamp
from server.experiments.answer import READING, test_message, verdict_message
from server.experiments.design import Design
from server.experiments.gathering import Gathered
from server.experiments.observed import Group
from server.experiments.preferred import Preferred, judge_preferred, preferred


def preference_answer(
    experiment: pb.Experiment, design: Design, found: Gathered, start_time: datetime, as_of: datetime
) -> pb.GetExperimentResultsResponse:
    """The preference of all users, by segment if that was asked for, and as it stood day by day."""
    of_all = _of(design, found.groups)
    verdict = judge_preferred(design, of_all, start_time=start_time, now=as_of)
    return pb.GetExperimentResultsResponse(
        experiment_id=experiment.experiment_id,
        as_of_time=to_timestamp(as_of),
        verdict=verdict_message(verdict),
        preference=_message(design, of_all),
        segments=[
            pb.SegmentResult(dimension=dimension, value=value, preference=_message(design, _of(design, groups)))
            for (dimension, value), groups in found.segments.items()
        ],
        segment_warning=_warning(len(found.segments), design.level) if found.segments else "",
        series=[pb.SeriesPoint(time=to_timestamp(time), preference=_message(design, _of(design, groups))) for time, groups in found.looks],
        anonymous_slate_count=found.anonymous_slate_count,
        tester_count=found.tester_count,
    )


def _of(design: Design, groups: list[Group]) -> Preferred:
    (everybody,) = groups
    return preferred(design, everybody)


def _warning(count: int, level: float) -> str:
    return (
        f"{count} segments: {count * level:.1f} of them would look as if they preferred something by chance alone, and nothing is "
        "corrected for it. A segment that nobody named beforehand is a question for the next experiment."
    )


def _message(design: Design, found: Preferred) -> pb.PreferenceResult:
    """Whom users preferred."""
    (treatment,) = design.treatment_ids
    tests = found.found
    ties = found.user_count - found.treatment_wins - found.control_wins
    return pb.PreferenceResult(
        treatment_variant_id=treatment,
        control_variant_id=design.control_id,
        user_count=found.user_count,
        slate_count=found.slate_count,
        treatment_win_count=found.treatment_wins,
        control_win_count=found.control_wins,
        tie_count=ties,
        share=(found.treatment_wins + 0.5 * ties) / found.user_count - 0.5 if found.user_count else None,
        sign_test=test_message(tests.sign_test) if tests else None,
        paired_fixed=test_message(tests.paired) if tests else None,
        paired_sequential=test_message(tests.sequential) if tests else None,
        lacking_preference_count=found.lacking,
        single_slate_count=found.single_slate_count,
        reading=READING,
    )
