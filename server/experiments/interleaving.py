"""Two rankings in one slate, and which of them people clicked: team-draft interleaving.

The rankings pick in turns, like captains of two teams, a coin deciding who goes first in each round. Every user sees both, so that what
differs from user to user, and drowns an A/B test, is the same on both sides: far fewer users are needed. What it tells is which ranking is
preferred, not by how much a rate would change.

Source: Radlinski, Kurup and Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008 (team draft); Chapelle, Joachims,
Radlinski and Yue, "Large-scale validation and analysis of interleaved search evaluation", ACM TOIS 30, 2012 (the preference and its tests).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from scipy import special

from rankloop.assignment import place_of
from server.inference.difference import LEVEL, Difference, Result, Scale, welch
from server.inference.moments import Moments
from server.inference.sequential import sequential

TUNING_USERS = 500
"""N of the always-valid test of a preference: a tenth of an A/B test's, since interleaving needs so many fewer users."""


class Team(StrEnum):
    """Whose pick an item of the slate is."""

    CONTROL = "control"
    TREATMENT = "treatment"


@dataclass(frozen=True, slots=True)
class Pick:
    """An item of the slate."""

    item_id: str
    team: Team


def coin_of(ranking_id: str) -> Callable[[int], bool]:
    """The coin of a slate: whether the control goes first in a round. The same slate gives the same draft wherever it is made."""
    return lambda turn: place_of("interleaving", ranking_id, str(turn)) < 0.5


class Room:
    """How many items of a type there may be in a slate; types without an entry, and items without a type, are free."""

    def __init__(self, room: Mapping[str, int], types: Mapping[str, str]) -> None:
        """`room` is by type, `types` by item."""
        self._left = dict(room)
        self._types = types

    def take(self, item_id: str) -> bool:
        """Takes an item in; False: there is no room for it."""
        item_type = self._types.get(item_id, "")
        left = self._left.get(item_type)
        if left is None:
            return True
        self._left[item_type] = left - 1
        return left > 0


ROOM_FOR_ALL = Room({}, {})


def team_draft(
    control: Sequence[str], treatment: Sequence[str], length: int, control_first: Callable[[int], bool], room: Room = ROOM_FOR_ALL
) -> list[Pick]:
    """The slate: in every round either ranking adds its best item that is not yet there.

    Args:
        control: item ids, best first, none twice. The first `length` are enough, also where types have bounds, if they keep them: of so
            many items one is always left that is not taken and that there is room for.
        treatment: likewise; the same items as a rule.
        length: of the slate at most; fewer if the rankings have fewer.
        control_first: by round, from 0 on.
        room: what bounds types; an item that there is no room for is passed over for good.
    """
    rankings = {Team.CONTROL: iter(control), Team.TREATMENT: iter(treatment)}
    picks: list[Pick] = []
    taken: set[str] = set()
    turn = 0
    while len(picks) < length and rankings:
        first = Team.CONTROL if control_first(turn) else Team.TREATMENT
        for team in (first, Team.TREATMENT if first is Team.CONTROL else Team.CONTROL):
            if len(picks) == length or team not in rankings:
                continue
            item_id = next((one for one in rankings[team] if one not in taken and room.take(one)), None)
            if item_id is None:
                del rankings[team]  # it has nothing left; the other goes on alone
                continue
            taken.add(item_id)
            picks.append(Pick(item_id, team))
        turn += 1
    return picks


def credit(picks: Sequence[Pick], clicked: Collection[str]) -> float:
    """What a slate says for the treatment: clicked items of its picks − those of the control's. An item clicked twice counts once."""
    return float(sum((1 if pick.team is Team.TREATMENT else -1) for pick in picks if pick.item_id in clicked))


@dataclass(frozen=True, slots=True)
class Preference:
    """What users preferred."""

    treatment_wins: int
    """Users whose credit, over all their slates, is above 0."""
    control_wins: int
    ties: int
    share: float
    """(treatment's wins + half the ties) ÷ users − 1/2: from −1/2 to 1/2, 0 without a preference."""
    sign_test: Result
    """Exact binomial test of the wins against 1/2, ties left out; its value is the treatment's share of the wins. Fixed horizon."""
    paired: Result
    """t test of the mean credit per user against 0. Fixed horizon."""
    sequential: Result
    """The always-valid form of the same. You may look at this one every day."""


def preference(
    credits: Moments, treatment_wins: int, control_wins: int, *, level: float = LEVEL, tuning_users: int = TUNING_USERS
) -> Preference | None:
    """What users preferred; None as long as no user preferred anything, or all credits are the same.

    Args:
        credits: one value per user, the sum of `credit` over the user's slates.
        treatment_wins: users for whom it is above 0.
        control_wins: users for whom it is below 0.
    """
    wins, users = treatment_wins + control_wins, credits.count
    if not wins or users < 2 or not credits.covariance[0, 0] > 0:
        return None
    error = float((credits.covariance[0, 0] / users) ** 0.5)
    found = Difference(Scale.ABSOLUTE, float(credits.mean[0]), error, users - 1.0, users)
    return Preference(
        treatment_wins,
        control_wins,
        users - wins,
        (treatment_wins + 0.5 * (users - wins)) / users - 0.5,
        _sign_test(treatment_wins, wins, level),
        replace(welch(found, level), name="paired_t"),
        replace(sequential(found, level, tuning_users), name="always_valid_paired"),
    )


def _sign_test(won: int, count: int, level: float) -> Result:
    """The exact binomial test against 1/2, two-sided, and the interval of Clopper and Pearson."""
    low = float(special.betaincinv(won, count - won + 1, level / 2.0)) if won else 0.0
    high = float(special.betaincinv(won + 1, count - won, 1.0 - level / 2.0)) if won < count else 1.0
    p_value = min(1.0, 2.0 * float(special.bdtr(min(won, count - won), count, 0.5)))
    return Result("sign", won / count, low, high, p_value)
