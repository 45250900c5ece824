"""Which variant of an experiment a user gets: a pure hash, the same in every process, on every machine and in every language.

A caller that knows an experiment's plan gets here the variant that the server would give, without asking it.

A user's place is a number from 0 up to, not including, 1:

    text  = for each of layer, salt, user id:  <length in bytes of its UTF-8> ":" <its UTF-8> ","      (netstrings, one after another)
    hash  = SHA-256(text)
    place = (the first 8 bytes of hash as an unsigned big-endian integer, shifted right by 11 bits) ÷ 2^53

So `("default", "", "u-1")` hashes the text `7:default,0:,3:u-1,`. The division is exact in a double. Two places decide: the one with an
empty salt says whose user this is in the layer, the one with the experiment's salt which variant it gets; neither tells of the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from rankloop.v1.experiment_pb2 import EXPERIMENT_METHOD_INTERLEAVING, Experiment

LAYER_SALT = ""
"""The salt of a user's place in a layer, the same for every experiment of it."""

_UNIT = 2.0**-53


def place_of(layer: str, salt: str, user_id: str) -> float:
    """A user's place, uniform over users: from 0 up to, not including, 1."""
    return _place(_netstring(layer) + _netstring(salt), user_id)


def _netstring(text: str) -> bytes:
    encoded = text.encode()
    return b"%d:%b," % (len(encoded), encoded)


def _place(before: bytes, user_id: str) -> float:
    return (int.from_bytes(sha256(before + _netstring(user_id)).digest()[:8], "big") >> 11) * _UNIT


class Because(StrEnum):
    """Why a user has a variant, or none."""

    ASSIGNED = "assigned"
    """By the hash."""
    OVERRIDDEN = "overridden"
    """The plan names this user: a tester, who is not counted."""
    INTERLEAVED = "interleaved"
    """The experiment shows every user both of its variants in one slate: the user takes part and has none of them alone."""
    HELD_OUT = "held_out"
    """Of the share of the layer that no experiment touches."""
    ELSEWHERE = "elsewhere"
    """Of the part of the layer that is not this experiment's."""
    ANONYMOUS = "anonymous"
    """There is no user id, so that nothing would stay the same from one slate to the next."""


@dataclass(frozen=True, slots=True)
class Span:
    """Places from `start` up to, not including, `end`."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """The share of users in it."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Share:
    """Places of an experiment that get a variant."""

    variant_id: str
    span: Span


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a plan says of a user."""

    experiment_id: str
    variant_id: str
    """Empty: none, or both."""
    because: Because
    propensity: float | None = None
    """The probability with which a user of the experiment is given this variant by these shares: its weight. None: not by chance."""

    @property
    def takes_part(self) -> bool:
        """Whether the experiment has a say in what the user sees."""
        return bool(self.variant_id) or self.because is Because.INTERLEAVED


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who gets what in one experiment.

    Raises:
        ValueError: the shares do not cover every place from 0 to 1 once, in order.
    """

    experiment_id: str
    layer: str
    salt: str
    """Another salt deals the users anew."""
    shares: Sequence[Share]
    """In order; together every place once."""
    layer_spans: Sequence[Span] = (Span(0.0, 1.0),)
    """The places of the layer that are this experiment's."""
    holdout: float = 0.0
    """Places of the layer below this one belong to no experiment."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Variants of testers, by user id."""
    interleaved: bool = False
    """Whether everybody sees both variants, so that shares say nothing."""
    _ends: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _variants: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _weights: dict[str, float] = field(init=False, repr=False, compare=False)
    _before_in_layer: bytes = field(init=False, repr=False, compare=False)
    _before: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        edges = [0.0, *(share.span.end for share in self.shares)]
        if not self.shares or edges[-1] != 1.0 or any(share.span.start != edge for share, edge in zip(self.shares, edges, strict=False)):
            raise ValueError(f"the shares of {self.experiment_id} do not cover 0 to 1 once, in order")
        if any(share.span.length < 0 for share in self.shares):
            raise ValueError(f"a share of {self.experiment_id} ends before it starts")
        object.__setattr__(self, "_ends", tuple(edges[1:]))
        object.__setattr__(self, "_variants", tuple(share.variant_id for share in self.shares))
        weights = dict.fromkeys(self._variants, 0.0)
        for share in self.shares:
            weights[share.variant_id] += share.span.length
        object.__setattr__(self, "_weights", weights)
        object.__setattr__(self, "_before_in_layer", _netstring(self.layer) + _netstring(LAYER_SALT))
        object.__setattr__(self, "_before", _netstring(self.layer) + _netstring(self.salt))

    def assign(self, user_id: str) -> Assignment:
        """The user's variant: the same for the same plan, whoever asks, and however often."""
        if not user_id:
            return Assignment(self.experiment_id, "", Because.ANONYMOUS)
        if user_id in self.overrides:
            return Assignment(self.experiment_id, self.overrides[user_id], Because.OVERRIDDEN)
        in_layer = _place(self._before_in_layer, user_id)
        if in_layer < self.holdout:
            return Assignment(self.experiment_id, "", Because.HELD_OUT)
        if not any(span.start <= in_layer < span.end for span in self.layer_spans):
            return Assignment(self.experiment_id, "", Because.ELSEWHERE)
        if self.interleaved:
            return Assignment(self.experiment_id, "", Because.INTERLEAVED)
        variant_id = self._variants[bisect_right(self._ends, _place(self._before, user_id))]
        return Assignment(self.experiment_id, variant_id, Because.ASSIGNED, self._weights[variant_id])


def plan_of(experiment: Experiment) -> Plan:
    """The plan of an experiment that was started, as `GetExperiment` answers it.

    Raises:
        ValueError: it was not started yet, so that nobody has a place.
    """
    return Plan(
        experiment_id=experiment.experiment_id,
        layer=experiment.layer,
        salt=experiment.salt,
        shares=tuple(Share(one.variant_id, Span(one.start, one.end)) for one in experiment.shares),
        layer_spans=tuple(Span(one.start, one.end) for one in experiment.layer_spans),
        holdout=experiment.holdout,
        overrides=dict(experiment.overrides),
        interleaved=experiment.method == EXPERIMENT_METHOD_INTERLEAVING,
    )


def assignments(plans: Iterable[Plan], user_id: str) -> list[Assignment]:
    """The experiments that the user takes part in; at most one per layer where the plans of a layer do not overlap."""
    return [assignment for assignment in (plan.assign(user_id) for plan in plans) if assignment.takes_part]
