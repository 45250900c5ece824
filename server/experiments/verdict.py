"""What may be said of an experiment, in one word and one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from server.experiments.comparison import Comparison, Results
from server.experiments.design import DecideBy, Design, Role
from server.experiments.readout import MetricReadout, Readout
from server.inference.difference import Result
from server.inference.sample_ratio import ALARM


class Ruling(StrEnum):
    """The word."""

    VOID = "void"
    """The users were not shared out as planned; nothing may be concluded."""
    HARMFUL = "harmful"
    """Every variant breaches a guardrail, or is worse than the control."""
    TOO_EARLY = "too_early"
    """Too few conversions, or not yet the planned size where that decides."""
    BETTER = "better"
    """A variant is better than the control."""
    NO_DIFFERENCE = "no_difference"
    """The planned size is reached and no difference was shown."""
    UNDECIDED = "undecided"
    """Nothing is shown yet; it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The word, the sentence, and what they rest on."""

    ruling: Ruling
    sentence: str
    winner_id: str = ""
    """Of BETTER: the variant."""
    breached: Sequence[tuple[str, str]] = ()
    """(variant, guardrail) of every guardrail breached."""
    expected_time: datetime | None = None
    """When there will be enough, at the pace so far; None: there is, or nobody can tell."""


def judge(design: Design, readout: Readout, *, start_time: datetime, now: datetime) -> Verdict:
    """The verdict on a readout."""
    primary = readout.of(design.primary.name)
    breached = [(one.variant_id, one.metric.name) for one in readout.comparisons if one.breached]
    if readout.sample_ratio.void:
        return Verdict(ruling=Ruling.VOID, sentence=_void(readout), breached=breached)
    excluded = {variant_id for variant_id, _ in breached}
    if excluded == set(design.treatment_ids):
        names = ", ".join(f"{guardrail} ({variant_id})" for variant_id, guardrail in breached)
        return Verdict(ruling=Ruling.HARMFUL, sentence=f"Guardrails are breached: {names}. Stop it.", breached=breached)
    early = _too_early(design, primary, start_time, now)
    if early is not None:
        return Verdict(ruling=Ruling.TOO_EARLY, sentence=early[0], expected_time=early[1], breached=breached)
    shown = [one for one in primary.comparisons if _shown(design, one)]
    better = [one for one in shown if _gain(one) > 0 and one.variant_id not in excluded]
    if better:
        return _better(design, primary, better, breached)
    if {one.variant_id for one in shown} | excluded == set(design.treatment_ids):
        sentence = "; ".join(_told(design, one) for one in shown)
        return Verdict(ruling=Ruling.HARMFUL, sentence=f"Keep {design.control_id}: {sentence}.", breached=breached)
    ranges = "; ".join(_told(design, one) for one in primary.comparisons)
    if design.planned_users is not None and _fewest(primary) >= design.planned_users:
        return Verdict(
            ruling=Ruling.NO_DIFFERENCE,
            sentence=f"No difference is shown at the planned size of {design.planned_users:,} users per variant. {ranges}.",
            breached=breached,
        )
    return Verdict(
        ruling=Ruling.UNDECIDED,
        sentence=f"Nothing is shown yet; let it go on. {ranges}.",
        breached=breached,
        expected_time=_planned_time(design, primary, start_time, now),
    )


def expected_time(have: int, need: int, *, start_time: datetime, now: datetime) -> datetime | None:
    """When a count that has grown from nothing since the start reaches what is needed, at that pace; None: at no pace that is known."""
    if have >= need:
        return now
    elapsed = (now - start_time).total_seconds()
    if have <= 0 or elapsed <= 0:
        return None
    try:
        return start_time + timedelta(seconds=elapsed * need / have)
    except OverflowError:
        return None


def _too_early(design: Design, primary: MetricReadout, start_time: datetime, now: datetime) -> tuple[str, datetime | None] | None:
    lacking = max((one.lacking_conversions for one in primary.comparisons), default=0)
    if lacking:
        when = expected_time(design.min_conversions - lacking, design.min_conversions, start_time=start_time, now=now)
        return (
            f"Too early: a variant has {design.min_conversions - lacking} of the {design.min_conversions} users with a value in "
            f"{primary.metric.name} below which nothing is concluded. {expected(when)}",
            when,
        )
    if any(one.absolute is None for one in primary.comparisons):
        return "Too early: the values do not vary yet.", None
    if design.decide_by is DecideBy.FIXED_HORIZON and _fewest(primary) < (design.planned_users or 0):
        when = _planned_time(design, primary, start_time, now)
        return (
            f"Too early: the fixed-horizon test is read once, at {design.planned_users:,} users per variant; a variant has "
            f"{_fewest(primary):,}. {expected(when)}",
            when,
        )
    return None


def _planned_time(design: Design, primary: MetricReadout, start_time: datetime, now: datetime) -> datetime | None:
    if design.planned_users is None:
        return None
    return expected_time(_fewest(primary), design.planned_users, start_time=start_time, now=now)


def expected(when: datetime | None) -> str:
    """When there will be enough, in words."""
    return "At no pace so far can a date be told." if when is None else f"Expected around {when:%Y-%m-%d} at the pace so far."


def _fewest(primary: MetricReadout) -> int:
    return min(value.user_count for value in primary.values)


def _shown(design: Design, one: Comparison) -> bool:
    p_value = one.sequential_p_value if design.decide_by is DecideBy.SEQUENTIAL else one.fixed_p_value
    return p_value is not None and p_value < design.level


def _gain(one: Comparison) -> float:
    """The difference, positive where the variant is better."""
    return 0.0 if one.absolute is None else one.absolute.fixed_horizon.value * one.metric.better.sign


def _better(design: Design, primary: MetricReadout, better: Sequence[Comparison], breached: Sequence[tuple[str, str]]) -> Verdict:
    winner = max(better, key=_gain)
    best = next(value.probability_to_be_best for value in primary.values if value.variant_id == winner.variant_id)
    among = f" Of all variants it is the best with probability {best:.2f}." if best is not None and len(design.weights) > 2 else ""
    return Verdict(
        ruling=Ruling.BETTER,
        sentence=f"{winner.variant_id} is better than {design.control_id}: {_told(design, winner)}.{among}",
        winner_id=winner.variant_id,
        breached=breached,
    )


def _told(design: Design, one: Comparison) -> str:
    """A comparison in words, with the p-value that decides: that of the absolute difference, corrected."""
    scale = one.relative or one.absolute
    if scale is None:
        return f"{one.variant_id}: nothing to compare"
    test = _deciding(design, scale)
    amounts = [f"{end:+.1%}" if one.relative else f"{end:+.4g}" for end in (test.value, test.low, test.high)]
    p_value = one.sequential_p_value if design.decide_by is DecideBy.SEQUENTIAL else one.fixed_p_value
    kind = "always valid" if design.decide_by is DecideBy.SEQUENTIAL else "fixed horizon"
    role = "" if one.metric.role is Role.PRIMARY else f" ({one.metric.role})"
    return (
        f"{one.metric.name}{role} of {one.variant_id} {amounts[0]} ({1 - design.level:.0%} interval {amounts[1]} to {amounts[2]}, {kind}, "
        f"p {p_value:.2g} of the absolute difference)"
    )


def _deciding(design: Design, tests: Results) -> Result:
    return tests.sequential if design.decide_by is DecideBy.SEQUENTIAL else tests.fixed_horizon


def _void(readout: Readout) -> str:
    ratio = readout.sample_ratio
    seen = ", ".join(
        f"{group.variant_id} {group.user_count:,} (expected {due:,.0f})" for group, due in zip(readout.groups, ratio.expected, strict=True)
    )
    return (
        f"Void: the users were not shared out as planned: {seen}; p {ratio.p_value:.1g}, below {ALARM:g}. Whatever lost users in one "
        "variant may have changed its figures too. Look for what treats the variants' users differently before they are counted."
    )
