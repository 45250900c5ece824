"""From relevance to a slate: rules, diversity, chance. No input or output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.diversity.diversifiers import DIVERSIFIERS, Diversifier
from ranker.diversity.picks import Picks
from ranker.diversity.quota import Quota
from ranker.diversity.similarity import SimilarityRows
from ranker.exploration.epsilon_greedy import epsilon_greedy
from ranker.exploration.exploration import Exploration, Explored
from ranker.exploration.thompson import thompson
from ranker.features.columns import Floats
from ranker.rules.rule import Rules
from ranker.rules.ruling import Effect, Offered, Ruling, ruling

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """How chance has a say."""

    exploration: Exploration
    """What is done."""

    rng: np.random.Generator
    """What is drawn from."""

    doubt: Floats
    """(n_candidates,) float64, 0 to 1: how little is known of each; 1: it was never shown. For Thompson sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a slate is chosen from candidates of known relevance."""

    count: int
    """Items wanted; 0: all. More than there are candidates: all."""

    balance: float = 1.0
    """λ: relevance against diversity; 1: relevance only."""

    diversifier: Diversifier = "mmr"
    """What makes it varied."""

    chance: Chance | None = None
    """None: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """A slate."""

    places: Ints
    """(k,) int64, as places in the order that was given; k is less than wanted where rules leave too few."""

    propensities: Floats
    """(k,) float64: the probability with which each came to its position."""

    effects: Sequence[Effect]
    """What rules did."""

    pool_size: int
    """How many could come to a position by chance; 0: nothing was left to chance."""


class NoLikeness:
    """For slates that are not diversified."""

    def row(self, place: int) -> Floats:
        """Never asked for with a balance of 1."""
        raise AssertionError("a slate by relevance alone compares nothing")


def arrange(order: Ints, relevance: Floats, similarities: SimilarityRows, *, rules: Rules, offered: Offered, manner: Manner) -> Arrangement:
    """Chooses a slate.

    Rules come first: what is excluded is out, boosts change relevance, pins stand and count as chosen from the beginning, caps bound what
    may be chosen. Then the diversifier chooses the slate. Then chance changes it: among the positions without a pin, and among the
    candidates that all caps have room for together, so that no draw breaks a rule.

    Args:
        order: (n,) int64, places of the candidates, the best first.
        relevance: (n,) float64 in that order, largest first.
        similarities: of the candidates in that order.
        rules: what holds whatever relevance says.
        offered: the candidates, in their own order.
        manner: how to choose.
    """
    before = _Choice(relevance, similarities)
    if not rules:
        return before.slate(manner, order)
    ruled = ruling(rules, offered, count=manner.count)
    kept = np.flatnonzero(~ruled.excluded[order])
    boosted = relevance[kept]
    if ruled.boosted is not None:
        factor, addend = ruled.boosted[:, order[kept]]
        boosted = boosted * factor + addend
        again = np.argsort(-boosted, kind="stable")
        kept, boosted = kept[again], boosted[again]
    choice = _Choice(boosted, _Reordered(similarities, kept), ruled=ruled, type_codes=offered.type_codes[order[kept]])
    slate = choice.slate(manner, order[kept])
    without = before.slate(Manner(count=manner.count, balance=manner.balance, diversifier=manner.diversifier), order)
    places = kept[slate.places]
    return Arrangement(
        places=places,
        propensities=slate.propensities,
        effects=ruled.effects(order[without.places].tolist(), order[places].tolist()),
        pool_size=slate.pool_size,
    )


@dataclass(frozen=True, slots=True)
class _Reordered:
    """The similarities of some of the candidates, in an order of their own."""

    similarities: SimilarityRows
    places: Ints

    def row(self, place: int) -> Floats:
        """(m,) float64."""
        row: Floats = self.similarities.row(int(self.places[place]))[self.places]
        return row


@dataclass(frozen=True, slots=True)
class _Choice:
    """Candidates that may be chosen, the most relevant first."""

    relevance: Floats
    similarities: SimilarityRows
    ruled: Ruling | None = None
    type_codes: Ints | None = None

    def slate(self, manner: Manner, candidates: Ints) -> Arrangement:
        """`candidates` is (n,) int64: which candidate stands at each place."""
        count = min(manner.count or len(candidates), len(candidates))
        pinned = self._pinned(candidates)
        given = [place for _, place in pinned]
        picks = DIVERSIFIERS[manner.diversifier](
            self.relevance, self.similarities, count=count - len(given), balance=manner.balance, given=given, quota=self._quota()
        )
        explored = self._explored(picks, given, manner, candidates)
        length = len(explored.places) + len(given)
        # From the last on, so that pins beyond a short slate stand at its end in their order.
        at = {min(position, length - (len(pinned) - 1 - rank)) - 1: place for rank, (position, place) in enumerate(pinned)}
        free = np.array([place for place in range(length) if place not in at], dtype=np.int64)
        places, propensities = np.empty(length, dtype=np.int64), np.ones(length)
        places[list(at)] = list(at.values())
        places[free], propensities[free] = explored.places, explored.propensities
        return Arrangement(places=places, propensities=propensities, effects=(), pool_size=explored.pool_size)

    def _pinned(self, candidates: Ints) -> list[tuple[int, int]]:
        """Position asked for and place of each pinned candidate, by position."""
        if self.ruled is None or not self.ruled.pinned:
            return []
        pins = self.ruled.pinned
        return sorted((pins[one][0], place) for place, one in enumerate(candidates.tolist()) if one in pins)

    def _quota(self) -> Quota | None:
        return None if self.ruled is None or not self.ruled.room or self.type_codes is None else Quota(self.type_codes, self.ruled.room)

    def _explored(self, picks: Picks, given: Sequence[int], manner: Manner, candidates: Ints) -> Explored:
        chance = manner.chance
        if chance is None:
            return Explored(places=picks.places, propensities=np.ones(len(picks.places)), pool_size=0)
        pool = self._pool(picks, given)
        if chance.exploration.policy == "epsilon_greedy":
            explored = epsilon_greedy(len(pool), len(picks.places), chance.exploration.epsilon, chance.rng)
        else:
            # Worth falls along the pool: what chance does not turn around stays as it was.
            worth = np.minimum.accumulate(picks.values[pool]) if len(pool) else np.empty(0)
            # Worth is λ · relevance less what it costs in likeness, and so is what is not known of it.
            deviation = manner.balance * chance.exploration.spread * chance.doubt[candidates[pool]]
            explored = thompson(worth, deviation, len(picks.places), chance.rng)
        return Explored(places=pool[explored.places], propensities=explored.propensities, pool_size=explored.pool_size)

    def _pool(self, picks: Picks, given: Sequence[int]) -> Ints:
        """What chance may show: what was chosen, then the others by worth, as long as all of them together keep the caps."""
        open_ = picks.values > -np.inf
        open_[picks.places] = False
        open_[list(given)] = False
        others = np.flatnonzero(open_)
        others = others[np.argsort(-picks.values[others], kind="stable")]
        pool = np.concatenate((picks.places, others))
        if self.ruled is None or not self.ruled.room or self.type_codes is None:
            return pool
        room = dict(self.ruled.room)
        for place in given:
            code = int(self.type_codes[place])
            if code in room:
                room[code] -= 1
        kept = []
        for place in pool.tolist():
            code = int(self.type_codes[place])
            left = room.get(code)
            if left is None or left > 0:
                kept.append(place)
                if left is not None:
                    room[code] = left - 1
        return np.array(kept, dtype=np.int64)
