"""How many users a design needs, from what its readout says."""

from __future__ import annotations

import pytest

from benchmarks.interleaving import experiment, needed, users_of
from rankloop.v1 import experiment_pb2 as pb
from server.experiments.checking import check
from server.experiments.interleaving import preference
from server.experiments.method import fill_method
from server.inference.moments import Moments
from server.inference.power import users_per_variant


def test_users_needed_follow_from_means_and_variances() -> None:
    # s² = 4 in 100 users: standard error 2 ÷ √100; the difference is 0.5.
    values = [pb.VariantValue(variant_id=name, user_count=100, value=value, standard_error=0.2) for name, value in (("a", 1.0), ("b", 1.5))]
    ab = pb.GetExperimentResultsResponse(metrics=[pb.MetricResult(values=values)])
    ab.variants.add(variant_id="a", user_count=100)
    ab.variants.add(variant_id="b", user_count=90)
    assert users_of(ab) == 190
    assert needed(ab) == 2 * users_per_variant(4.0, 4.0, 0.5)

    credits = [1.0, 2.0, -1.0, 0.0, 3.0, 1.0]
    found = preference(Moments.of(credits), 4, 1)
    assert found is not None
    test = found.paired
    told = pb.PreferenceResult(user_count=6, paired_fixed=pb.TestResult(value=test.value, low=test.low, high=test.high))
    both = pb.GetExperimentResultsResponse(preference=told)
    assert users_of(both) == 6
    # Sum 6, squares 16: s² = (16 − 6²÷6) ÷ 5.
    assert needed(both) == users_per_variant(2.0, 0.0, 1.0)
    assert needed(pb.GetExperimentResultsResponse(preference=pb.PreferenceResult())) is None


@pytest.mark.parametrize("method", [pb.EXPERIMENT_METHOD_AB, pb.EXPERIMENT_METHOD_INTERLEAVING])
def test_both_designs_can_be_run(method: pb.ExperimentMethod.ValueType) -> None:
    wanted = experiment("race", method)
    fill_method(wanted)
    check(wanted)
