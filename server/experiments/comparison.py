"""A variant held against the control on one metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from server.experiments.design import Design, Metric, Role
from server.inference.bayes import chance_to_win
from server.inference.difference import Difference, Result, Scale, as_relative, welch
from server.inference.multiplicity import Correction, corrected
from server.inference.sequential import sequential


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The two results of one difference on one scale, side by side."""

    fixed_horizon: Result
    """Right if it is looked at once, at the planned size."""
    sequential: Result
    """You may look at this one every day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a variant has over the control."""

    metric: Metric
    variant_id: str
    differences: Mapping[Scale, Difference]
    """On the scales on which there is one."""
    absolute: Results | None
    """None where there is nothing to compare yet."""
    relative: Results | None
    """Relative differences: the fixed-horizon one by the delta method, the sequential one on the log-ratio scale. None for a control at 0
    or below."""
    fixed_p_value: float | None
    """Of the absolute difference, corrected for the comparisons it was made with."""
    sequential_p_value: float | None
    """Likewise."""
    chance_to_win: float | None
    """The probability that the variant is truly better than the control."""
    variance_reduction: float | None
    """By CUPED, in which case everything here is of the adjusted values; None: no covariate."""
    lacking_conversions: int
    """How many the side with fewer still needs before anything is concluded."""
    breached: bool
    """A guardrail that is worse than its margin, for sure: the whole always-valid interval is."""


def compared(
    design: Design,
    metric: Metric,
    variant_id: str,
    found: Mapping[Scale, Difference],
    *,
    control_value: float,
    tuning: int,
    lacking_conversions: int = 0,
    variance_reduction: float | None = None,
) -> Comparison:
    """The tests of a difference, on every scale on which it is known. `tuning` is N of the always-valid interval, in units of the count."""
    plain, share, log = (found.get(scale) for scale in (Scale.ABSOLUTE, Scale.RELATIVE, Scale.LOG_RATIO))
    absolute = relative = None
    if plain is not None:
        absolute = Results(fixed_horizon=welch(plain, design.level), sequential=sequential(plain, design.level, tuning))
    if share is not None and log is not None:
        relative = Results(fixed_horizon=welch(share, design.level), sequential=as_relative(sequential(log, design.level, tuning)))
    judged = share or plain
    higher = None if judged is None else chance_to_win(judged)
    breached = metric.role is Role.GUARDRAIL and not lacking_conversions and _breached(metric, absolute, relative, control_value)
    return Comparison(
        metric=metric,
        variant_id=variant_id,
        differences=found,
        absolute=absolute,
        relative=relative,
        fixed_p_value=absolute.fixed_horizon.p_value if absolute else None,
        sequential_p_value=absolute.sequential.p_value if absolute else None,
        chance_to_win=higher if higher is None or metric.better.sign > 0 else 1.0 - higher,
        variance_reduction=variance_reduction,
        lacking_conversions=lacking_conversions,
        breached=breached,
    )


def corrected_together(comparisons: Sequence[Comparison], correction: Correction) -> list[Comparison]:
    """The comparisons with p-values corrected for each other, in the order given; those without a test do not count."""
    tested = [(place, one.absolute) for place, one in enumerate(comparisons) if one.absolute is not None]
    changed = list(comparisons)
    fixed = corrected([tests.fixed_horizon.p_value for _, tests in tested], correction)
    always = corrected([tests.sequential.p_value for _, tests in tested], correction)
    for (place, _), one, other in zip(tested, fixed, always, strict=True):
        changed[place] = replace(comparisons[place], fixed_p_value=float(one), sequential_p_value=float(other))
    return changed


def _breached(metric: Metric, absolute: Results | None, relative: Results | None, control_value: float) -> bool:
    if relative is not None:
        test, borne = relative.sequential, metric.margin
    elif absolute is not None:
        test, borne = absolute.sequential, metric.margin * abs(control_value)
    else:
        return False
    return test.high < -borne if metric.better.sign > 0 else test.low > borne
