"""What came of an experiment that interleaves: whom users preferred, in figures and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from server.experiments.design import Design
from server.experiments.interleaving import Preference, preference
from server.experiments.observed import Group
from server.experiments.verdict import Ruling, Verdict, expected, expected_time

CREDIT, WON, LOST, SLATES = range(4)
"""The columns of PREFERENCE: one row per user who saw an interleaved slate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferred:
    """Users, their slates, and whose picks they clicked more."""

    user_count: int
    slate_count: int
    """Interleaved ones."""
    single_slate_count: int
    """Those that were not, because one ranking was not to be had. They do not count."""
    treatment_wins: int
    control_wins: int
    found: Preference | None
    """None: nobody prefers anything yet, or all the same."""
    lacking: int
    """Users with a preference that are still needed."""


def preferred(design: Design, group: Group) -> Preferred:
    """What the users of a group preferred."""
    observed = group.metrics.get(design.primary.name)
    if observed is None:
        return Preferred(
            user_count=0,
            slate_count=0,
            single_slate_count=group.exposure_count,
            treatment_wins=0,
            control_wins=0,
            found=None,
            lacking=design.min_conversions,
        )
    credits, sums = observed.moments, observed.moments.sums
    won, lost, slates = (round(sums[column]) for column in (WON, LOST, SLATES))
    return Preferred(
        user_count=credits.count,
        slate_count=slates,
        single_slate_count=group.exposure_count - slates,
        treatment_wins=won,
        control_wins=lost,
        found=preference(credits, won, lost, level=design.level),
        lacking=max(0, design.min_conversions - won - lost),
    )


def judge_preferred(design: Design, found: Preferred, *, start_time: datetime, now: datetime) -> Verdict:
    """The verdict: by the always-valid result, from 25 users with a preference on."""
    (treatment,) = design.treatment_ids
    if found.lacking:
        have = design.min_conversions - found.lacking
        when = expected_time(have, design.min_conversions, start_time=start_time, now=now)
        return Verdict(
            ruling=Ruling.TOO_EARLY,
            sentence=f"Too early: {have} of the {design.min_conversions} users with a preference below which nothing is concluded. "
            f"{expected(when)}",
            expected_time=when,
        )
    if found.found is None:
        return Verdict(ruling=Ruling.TOO_EARLY, sentence="Too early: the values do not vary yet.")
    told = _told(design, treatment, found, found.found)
    if found.found.sequential.p_value >= design.level:
        return Verdict(ruling=Ruling.UNDECIDED, sentence=f"Nothing is shown yet; let it go on. {told}.")
    if found.found.sequential.value > 0:
        return Verdict(ruling=Ruling.BETTER, sentence=f"{treatment} is preferred to {design.control_id}. {told}.", winner_id=treatment)
    return Verdict(ruling=Ruling.HARMFUL, sentence=f"Keep {design.control_id}, which is preferred to {treatment}. {told}.")


def _told(design: Design, treatment: str, found: Preferred, tests: Preference) -> str:
    wins, test = found.treatment_wins + found.control_wins, tests.sequential
    return (
        f"{found.treatment_wins:,} of {wins:,} users with a preference click more of what {treatment} picked. Clicked picks of {treatment} "
        f"less those of {design.control_id}: {test.value:+.3g} per user ({1 - design.level:.0%} interval {test.low:+.3g} to "
        f"{test.high:+.3g}, always valid, p {test.p_value:.2g})"
    )
