"""ε-greedy over positions: at each, with probability ε any candidate left, each as likely; else the first one left.

The probability that a candidate comes to a position is exact. Call the first candidate that is not shown yet the *head*: all before it
are shown, and of those behind it, some were shown early, by chance. Given where the head is and how many those are, every set of so many
is as likely as any other: chance does not know them apart, and when the head moves over some of them, the others remain as likely. So the
place of the head alone is a Markov chain, and its distribution at every position follows by summing up.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

import numpy as np

from ranker.exploration.exploration import Explored

NEGLIGIBLE: Final = 1e-18
"""A probability of a state below this changes no float64 that it is added to."""


def epsilon_greedy(size: int, count: int, epsilon: float, rng: np.random.Generator) -> Explored:
    """Shows `count` of `size` candidates that come in order, best first.

    Args:
        size: candidates, all of which chance may show.
        count: positions, at most `size`.
        epsilon: ε, 0 to 1.
        rng: chance.
    """
    left = list(range(size))
    explores = (rng.random(count) < epsilon).tolist()
    shown = [left.pop(int(rng.integers(len(left))) if explore else 0) for explore in explores]
    return Explored(
        places=np.array(shown, dtype=np.int64), propensities=np.array(probabilities(size, shown, epsilon), dtype=np.float64), pool_size=size
    )


def probabilities(size: int, shown: list[int], epsilon: float) -> list[float]:
    """The probability of each shown candidate to come to its position: `shown[p]` to position p, whatever stands elsewhere."""
    found: list[float] = []
    heads = [1.0]  # heads[i]: the probability that the head is `first + i`
    first = 0
    for position, candidate in enumerate(shown):
        left = size - position
        by_chance = epsilon / left
        chosen = 1.0 - epsilon + by_chance  # the head, by its turn or by chance
        # Behind head h there are size − h − 1 candidates, position − h of which are shown.
        behind = [
            probability * (1.0 - (position - head) / (size - head - 1))
            for head, probability in enumerate(heads[: max(0, candidate - first)], start=first)
        ]
        own = heads[candidate - first] if 0 <= candidate - first < len(heads) else 0.0
        found.append(min(1.0, own * chosen + by_chance * sum(behind)))
        heads = _moved(heads, first, position, size, chosen)
        dropped = sum(1 for _ in _leading(heads))
        first, heads = first + dropped, heads[dropped:]
    return found


def _moved(heads: list[float], first: int, position: int, size: int, chosen: float) -> list[float]:
    """The distribution of the head after one more position."""
    # Either another one is shown and the head stays, or the head is, and moves on behind those that were shown early.
    moved = [probability * (1.0 - chosen) for probability in heads]
    moved.append(0.0)
    passing = 0.0
    for offset in range(1, len(heads) + 1):
        head = first + offset
        arriving = passing + heads[offset - 1] * chosen
        early, remaining = position + 1 - head, size - head
        share = early / remaining if remaining else 0.0
        moved[offset] += arriving * (1.0 - share)
        passing = arriving * share
    return moved


def _leading(heads: list[float]) -> list[float]:
    """Those at the front whose sum is negligible; never all."""
    sums = accumulate(heads)
    return [total for total, _ in zip(sums, heads[:-1], strict=False) if total < NEGLIGIBLE]
