"""How an experiment's users are shared out among its variants, and a layer's users among its experiments.

Who holds which places is written down with the experiment and changed as little as a change of weights allows: then assignment stays a pure
function of what is written down, and exactly those users move who have to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rankloop.assignment import Share, Span
from runtime.errors import FailedPrecondition, InvalidInput

SUM_TOLERANCE = 1e-6
"""How far from 1 the sum of weights may be."""

SMALLEST = 1e-12
"""A span shorter than this is rounding, and holds nobody."""


class NoRoom(FailedPrecondition):
    """The layer has not as many users left as the experiment wants."""

    reason = "LAYER_FULL"


def checked_weights(weights: Mapping[str, float], *, field: str = "weights") -> dict[str, float]:
    """The weights, made to add up to exactly 1.

    Raises:
        InvalidInput: there is none, one is negative or not finite, or they do not add up to 1.
    """
    if not weights:
        raise InvalidInput.of(field, "MISSING", "at least one variant needs a weight")
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise InvalidInput.of(field, "OUT_OF_RANGE", f"the weight of {name} is {weight}; a weight is a number from 0 to 1")
    total = math.fsum(weights.values())
    if abs(total - 1.0) > SUM_TOLERANCE:
        raise InvalidInput.of(field, "OUT_OF_RANGE", f"the weights add up to {total:g}; they have to add up to 1")
    return {name: weight / total for name, weight in weights.items()}


def first_shares(weights: Mapping[str, float]) -> tuple[Share, ...]:
    """The variants side by side, in the order given.

    Raises:
        InvalidInput: the weights are wrong.
    """
    return moved_shares((), weights)


def moved_shares(shares: Sequence[Share], weights: Mapping[str, float]) -> tuple[Share, ...]:
    """The shares after a change of weights: the smallest part of the users that can do it changes its variant.

    What shrinks gives from its end, last piece first; what grows takes that up. A variant that is not in `weights` gives everything.

    Raises:
        InvalidInput: the weights are wrong.
    """
    wanted = checked_weights(weights)
    held = dict.fromkeys([*wanted, *(share.variant_id for share in shares)], 0.0)
    for share in shares:
        held[share.variant_id] += share.span.length
    kept, free = list(shares), [] if shares else [Span(0.0, 1.0)]
    for name, amount in held.items():
        kept, given = _given(kept, name, amount - wanted.get(name, 0.0))
        free += given
    free.sort(key=lambda span: span.start)
    lacking = {name: weight - held[name] for name, weight in wanted.items() if weight - held[name] > SMALLEST}
    for name, amount in lacking.items():
        taken, free = _taken(free, amount, everything=name == [*lacking][-1])
        kept += [Share(name, span) for span in taken]
    return _sealed(kept)


def room(taken: Iterable[Span], holdout: float = 0.0) -> list[Span]:
    """What is free of a layer, in order."""
    free, edge = [], holdout
    for span in sorted(taken, key=lambda span: span.start):
        if span.start - edge > SMALLEST:
            free.append(Span(edge, span.start))
        edge = max(edge, span.end)
    if 1.0 - edge > SMALLEST:
        free.append(Span(edge, 1.0))
    return free


def layer_spans(taken: Iterable[Span], share: float, holdout: float = 0.0) -> tuple[Span, ...]:
    """The places of a layer for a new experiment.

    Args:
        taken: what other experiments of the layer hold.
        share: of what the holdout leaves, how much it wants: above 0, at most 1.
        holdout: the part of the layer that belongs to no experiment: from 0 to below 1.

    Raises:
        NoRoom: there is less.
    """
    free = room(taken, holdout)
    wanted, left = share * (1.0 - holdout), math.fsum(span.length for span in free)
    if wanted > left + SUM_TOLERANCE:
        raise NoRoom(
            f"the experiment wants {share:.1%} of the layer's users and {left / (1.0 - holdout):.1%} are free: "
            "lower its share, stop another experiment of this layer, or use another layer"
        )
    taken_spans, _ = _taken(free, wanted, everything=wanted > left - SUM_TOLERANCE)
    return tuple(taken_spans)


def _given(shares: list[Share], name: str, amount: float) -> tuple[list[Share], list[Span]]:
    """What is left when a variant gives an amount from its end, and what it gave."""
    kept, given = [], []
    for share in reversed(shares):
        if share.variant_id != name or amount <= SMALLEST:
            kept.append(share)
        elif share.span.length <= amount + SMALLEST:
            given.append(share.span)
            amount -= share.span.length
        else:
            edge = share.span.end - amount
            given.append(Span(edge, share.span.end))
            kept.append(Share(name, Span(share.span.start, edge)))
            amount = 0.0
    return kept[::-1], given


def _taken(free: Sequence[Span], amount: float, *, everything: bool) -> tuple[list[Span], list[Span]]:
    """An amount from the beginning of what is free, and what is left."""
    if everything:
        return list(free), []
    taken, left = [], []
    for span in free:
        if amount <= SMALLEST:
            left.append(span)
        elif span.length <= amount + SMALLEST:
            taken.append(span)
            amount -= span.length
        else:
            edge = span.start + amount
            taken.append(Span(span.start, edge))
            left.append(Span(edge, span.end))
            amount = 0.0
    return taken, left


def _sealed(shares: Sequence[Share]) -> tuple[Share, ...]:
    """In order, neighbours of one variant as one, without gaps."""
    sealed: list[Share] = []
    edge = 0.0
    for share in sorted(shares, key=lambda share: share.span.start):
        if share.span.length <= SMALLEST:
            continue
        if sealed and sealed[-1].variant_id == share.variant_id:
            edge = sealed.pop().span.start
        sealed.append(Share(share.variant_id, Span(edge, share.span.end)))
        edge = share.span.end
    return (*sealed[:-1], Share(sealed[-1].variant_id, Span(sealed[-1].span.start, 1.0)))
