"""What an experiment has to be like before it is written down. Every fault is named by its path."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ranker.validation import check as check_request
from rankloop.v1 import experiment_pb2 as pb
from rankloop.v1.ranking_pb2 import Candidate, RankRequest
from runtime.errors import InvalidInput, Violation
from server.experiments.allocation import SUM_TOLERANCE, checked_weights
from server.experiments.bandit import FLOOR
from server.experiments.method import interleaves, method_faults
from server.experiments.metrics import CAPPED, KINDS, WITH_PAST, name_of

MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 4096
MAX_VARIANTS = 20
MAX_METRICS = 50
MAX_OVERRIDES = 1000
LOWEST_FLOOR = 0.001
SHORTEST_SECONDS, LONGEST_SECONDS = 1, 90 * 86_400
"""Between a bandit's changes of weights."""
MAX_MIN_USERS = 1_000_000_000
ALGORITHMS = ("", "lambdarank", "prior_score")
DIVERSIFIERS = ("", "mmr", "dpp")


def check(experiment: pb.Experiment) -> None:
    """Passes an experiment that can be run.

    Raises:
        InvalidInput: with every field at fault.
    """
    found = [
        *_texts(experiment),
        *_numbers(experiment),
        *_variants(experiment),
        *_metrics(experiment),
        *_overrides(experiment),
        *_bandit(experiment),
        *method_faults(experiment),
    ]
    if found:
        raise InvalidInput(found)


def _fault(field: str, reason: str, description: str) -> Violation:
    return Violation(field=f"experiment.{field}", reason=reason, description=description)


def _texts(experiment: pb.Experiment) -> Iterator[Violation]:
    for name, most in (
        ("experiment_id", MAX_ID_BYTES),
        ("surface", MAX_ID_BYTES),
        ("layer", MAX_ID_BYTES),
        ("salt", MAX_ID_BYTES),
        ("hypothesis", MAX_TEXT_BYTES),
    ):
        size = len(getattr(experiment, name).encode())
        if size > most:
            yield _fault(name, "TOO_LONG", f"has {size} bytes; at most {most}")


def _numbers(experiment: pb.Experiment) -> Iterator[Violation]:
    if not 0 <= experiment.traffic <= 1:
        yield _fault("traffic", "OUT_OF_RANGE", f"is {experiment.traffic:g}; expected above 0 to 1, or 0 for all")
    if not 0 <= experiment.holdout < 1:
        yield _fault("holdout", "OUT_OF_RANGE", f"is {experiment.holdout:g}; expected 0 to below 1")
    if experiment.level and not 0 < experiment.level < 0.5:
        yield _fault("level", "OUT_OF_RANGE", f"is {experiment.level:g}; expected above 0 to below 0.5, 0.05 as a rule")
    if interleaves(experiment):
        return
    if experiment.decide_by == pb.DECIDE_BY_FIXED_HORIZON and not experiment.HasField("planned_effect"):
        yield _fault("planned_effect", "MISSING", "is required to decide at the planned size")
    if experiment.HasField("planned_effect"):
        yield from _planned(experiment)


def _planned(experiment: pb.Experiment) -> Iterator[Violation]:
    planned = experiment.planned_effect
    kind = KINDS.get(experiment.primary_metric.kind)
    share = kind is not None and kind.value == "proportion"
    if not (planned.baseline > 0 and math.isfinite(planned.baseline)) or (share and planned.baseline >= 1):
        yield _fault("planned_effect.baseline", "OUT_OF_RANGE", f"is {planned.baseline:g}; expected {'0 to 1' if share else 'above 0'}")
    elif not math.isfinite(planned.lift) or planned.lift == 0 or planned.lift <= -1:
        yield _fault("planned_effect.lift", "OUT_OF_RANGE", f"is {planned.lift:g}; expected a relative difference such as 0.1")
    elif share and planned.baseline * (1 + planned.lift) >= 1:
        yield _fault("planned_effect.lift", "OUT_OF_RANGE", "takes the share to 1 or above")
    if not share and not (planned.deviation > 0 and math.isfinite(planned.deviation)):
        yield _fault("planned_effect.deviation", "MISSING", "is required: the standard deviation of the metric between users, above 0")
    if planned.power and not 0.05 < planned.power < 1:
        yield _fault("planned_effect.power", "OUT_OF_RANGE", f"is {planned.power:g}; expected 0.05 to 1, 0.8 as a rule")


def _variants(experiment: pb.Experiment) -> Iterator[Violation]:
    names = [variant.variant_id for variant in experiment.variants]
    if not 2 <= len(names) <= MAX_VARIANTS:
        yield _fault("variants", "OUT_OF_RANGE" if names else "MISSING", f"2 to {MAX_VARIANTS} variants; there are {len(names)}")
        return
    for place, variant in enumerate(experiment.variants):
        path = f"variants[{place}]"
        if not variant.variant_id:
            yield _fault(f"{path}.variant_id", "MISSING", "is required")
        elif len(variant.variant_id.encode()) > MAX_ID_BYTES:
            yield _fault(f"{path}.variant_id", "TOO_LONG", f"has more than {MAX_ID_BYTES} bytes")
        elif names.index(variant.variant_id) != place:
            yield _fault(f"{path}.variant_id", "DUPLICATE", f"each name once; {variant.variant_id} is there already")
        yield from _parameters(f"{path}.parameters", variant.parameters)
    control = experiment.control_variant_id
    if control and control not in names:
        yield _fault("control_variant_id", "UNKNOWN_VARIANT", f"there is no variant {control}; there are {', '.join(names)}")
    try:
        checked_weights({f"variants[{place}]": variant.weight for place, variant in enumerate(experiment.variants)})
    except InvalidInput as error:
        yield from (_fault("variants", one.reason, one.description) for one in error.violations)


def _parameters(path: str, parameters: pb.VariantParameters) -> Iterator[Violation]:
    if parameters.algorithm not in ALGORITHMS:
        yield _fault(f"{path}.algorithm", "UNKNOWN_ALGORITHM", f"there is no {parameters.algorithm}; lambdarank, prior_score, or empty")
    if parameters.diversifier not in DIVERSIFIERS:
        yield _fault(f"{path}.diversifier", "UNKNOWN_DIVERSIFIER", f"there is no {parameters.diversifier}; mmr, dpp, or empty")
    # The rest is what a request may say as well, and is checked as such.
    items = dict.fromkeys([pin.item_id for pin in parameters.rules.pins if pin.item_id])
    request = RankRequest(model_version=parameters.model_version, candidates=[Candidate(item_id=one) for one in items or ("any",)])
    if parameters.HasField("mmr_lambda"):
        request.mmr_lambda = parameters.mmr_lambda
    if parameters.HasField("exploration"):
        request.exploration.CopyFrom(parameters.exploration)
    if parameters.HasField("rules"):
        request.rules.CopyFrom(parameters.rules)
    try:
        check_request(request)
    except InvalidInput as error:
        yield from (_fault(f"{path}.{one.field}", one.reason, one.description) for one in error.violations)


def _metrics(experiment: pb.Experiment) -> Iterator[Violation]:
    if not experiment.HasField("primary_metric"):
        yield _fault("primary_metric", "MISSING", "is required: what decides")
        return
    all_of_them = [("primary_metric", experiment.primary_metric)]
    all_of_them += [(f"secondary_metrics[{place}]", one) for place, one in enumerate(experiment.secondary_metrics)]
    all_of_them += [(f"guardrails[{place}]", one) for place, one in enumerate(experiment.guardrails)]
    if len(all_of_them) > MAX_METRICS:
        yield _fault("secondary_metrics", "TOO_MANY", f"at most {MAX_METRICS} metrics in all; there are {len(all_of_them)}")
        return
    seen: dict[str, str] = {}
    for path, one in all_of_them:
        if one.kind not in KINDS:
            yield _fault(f"{path}.kind", "MISSING", "is required, as in METRIC_KIND_CONVERSION")
            continue
        if one.kind == pb.METRIC_KIND_CONVERSION and not one.type:
            yield _fault(f"{path}.type", "MISSING", "is required: the type of interaction that converts")
        if one.type and one.kind not in (pb.METRIC_KIND_CONVERSION, pb.METRIC_KIND_OUTCOME_VALUE):
            yield _fault(f"{path}.type", "OUT_OF_RANGE", "is for CONVERSION and OUTCOME_VALUE only")
        if not (one.margin >= 0 and math.isfinite(one.margin)):
            yield _fault(f"{path}.margin", "OUT_OF_RANGE", f"is {one.margin:g}; expected 0 or more")
        if one.HasField("winsor_quantile") and (one.kind not in CAPPED or not 0.5 <= one.winsor_quantile <= 1):
            yield _fault(f"{path}.winsor_quantile", "OUT_OF_RANGE", "expected 0.5 to 1, of OUTCOME_VALUE or TIME_TO_ACTION")
        if one.cuped and one.kind not in WITH_PAST:
            yield _fault(f"{path}.cuped", "OUT_OF_RANGE", "is for CONVERSION, LABEL, ENGAGEMENT and OUTCOME_VALUE only")
        first = seen.setdefault(name_of(one), path)
        if first != path:
            yield _fault(f"{path}.name", "DUPLICATE", f"each metric once; {name_of(one)} is {first} already")
    if experiment.stop_on_breach and not experiment.guardrails and not interleaves(experiment):
        yield _fault("guardrails", "MISSING", "are required to stop on a breach: what must not get worse")


def _overrides(experiment: pb.Experiment) -> Iterator[Violation]:
    if len(experiment.overrides) > MAX_OVERRIDES:
        yield _fault("overrides", "TOO_MANY", f"has {len(experiment.overrides)} entries; at most {MAX_OVERRIDES}")
    names = {variant.variant_id for variant in experiment.variants}
    for user_id, variant_id in experiment.overrides.items():
        if not user_id:
            yield _fault("overrides", "MISSING", "a tester has a user id")
        elif variant_id not in names:
            yield _fault(f'overrides["{user_id[:32]}"]', "UNKNOWN_VARIANT", f"there is no variant {variant_id}")


def _bandit(experiment: pb.Experiment) -> Iterator[Violation]:
    if not experiment.HasField("bandit"):
        return
    bandit, count = experiment.bandit, max(1, len(experiment.variants))
    floor = bandit.floor if bandit.HasField("floor") else FLOOR
    if not LOWEST_FLOOR <= floor <= 1 / count:
        yield _fault(
            "bandit.floor", "OUT_OF_RANGE", f"is {floor:g}; expected {LOWEST_FLOOR:g} to {1 / count:.3g}, 1 ÷ the number of variants"
        )
    else:
        for place, variant in enumerate(experiment.variants):
            if variant.weight < floor - SUM_TOLERANCE:
                yield _fault(f"variants[{place}].weight", "OUT_OF_RANGE", f"is {variant.weight:g}, below the bandit's floor of {floor:g}")
    if bandit.HasField("update_interval"):
        seconds = bandit.update_interval.seconds + bandit.update_interval.nanos / 1e9
        if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
            yield _fault("bandit.update_interval", "OUT_OF_RANGE", f"is {seconds:g} s; expected 1 second to 90 days")
    if bandit.HasField("min_users") and not 2 <= bandit.min_users <= MAX_MIN_USERS:
        yield _fault("bandit.min_users", "OUT_OF_RANGE", f"is {bandit.min_users}; expected 2 to {MAX_MIN_USERS:,}")
