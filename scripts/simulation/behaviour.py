"""What people do with a slate. Pure: a person's traits, what is shown and a stream of draws go in; a list of acts comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.simulation.truth import sigmoid
from scripts.simulation.world import Floats

STEPS = ("planning", "budget", "rollout")
"""What lies between starting and having implemented; the drop-off points."""

LONGEST_READ_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """The constants of behaviour, the same for everybody."""

    skim_seconds: float = 3.0
    """Median time spent on an item that is looked at."""
    read_seconds: float = 30.0
    """Median time spent on an item that is opened, where it is worth nothing; worth everything, twice as long."""
    time_spread: float = 0.6
    """Standard deviation of the logarithm of either time."""
    click_slope: float = 1.2
    click_offset: float = -1.6
    """P(click | looked at) = sigmoid(slope · appeal + offset): 0.17 for an average item."""
    save_share: float = 0.5
    """P(save | clicked) = this · utility."""
    start_share: float = 0.8
    """P(start to implement | clicked) = this · utility."""
    step_difficulties: tuple[float, float, float] = (0.15, 0.40, 0.25)
    """P(give up at a step) = difficulty · (1 − utility), one per step of `STEPS`."""
    step_seconds: float = 20.0
    """Median time of a step."""
    dismiss_share: float = 0.10
    """P(dismiss | looked at, not clicked) = this · (1 − P(click))²."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing a person did with one impression."""

    type: str
    """view, click, save, act (started to implement), implement, abandon or dismiss."""
    position: int
    """1 is the top."""
    delay_seconds: float
    """After the slate was shown, in the person's own time."""
    seconds: float | None = None
    """For a view: how long it lasted."""
    dropoff_point: str = ""
    """For an abandonment: the step of `STEPS` at which it happened."""


def attention(positions: Floats, exponent: float) -> Floats:
    """The chance that a position is looked at: position^−exponent, 1 at the top and falling (a position-based click model).

    Source: Craswell et al., "An experimental comparison of click position-bias models", WSDM 2008.
    """
    return np.asarray(positions**-exponent, dtype=np.float64)


def click_chances(appeals: Floats, habits: Habits) -> Floats:
    """P(click | looked at) of each item."""
    return sigmoid(habits.click_slope * appeals + habits.click_offset)


def react(
    attention_exponent: float, appeals: Floats, utilities: Floats, rng: np.random.Generator, habits: Habits | None = None
) -> list[Act]:
    """What a person does with a slate, in the order of time.

    As many draws are taken for a slate of n items whatever happens, so that two slates under one stream differ by their items only.

    Args:
        attention_exponent: the person's trait, see `attention`.
        appeals: (n_items,) what the person sees in the items before opening them, in the order of the slate.
        utilities: (n_items,) what they are worth to the person, 0 to 1.
    """
    habits = habits or Habits()
    count = len(appeals)
    looked_at = rng.random(count) < attention(np.arange(1, count + 1, dtype=np.float64), attention_exponent)
    chances = click_chances(appeals, habits)
    clicks, saves, starts, dismissals = rng.random((4, count)) < np.stack(
        [
            chances,
            habits.save_share * utilities,
            habits.start_share * utilities,
            habits.dismiss_share * (1.0 - chances) ** 2,
        ]
    )
    gives_up = rng.random((count, len(STEPS))) < np.array(habits.step_difficulties)[None, :] * (1.0 - utilities)[:, None]
    skims, reads = np.exp(habits.time_spread * rng.normal(size=(2, count)))
    skims, reads = habits.skim_seconds * skims, habits.read_seconds * (1.0 + utilities) * reads
    steps = habits.step_seconds * np.exp(habits.time_spread * rng.normal(size=(count, len(STEPS))))

    acts: list[Act] = []
    now = 0.0
    for index in np.flatnonzero(looked_at):
        position, came = int(index) + 1, now
        now += float(skims[index])
        if not clicks[index]:
            acts.append(Act(type="view", position=position, delay_seconds=came, seconds=now - came))
            if dismissals[index]:
                acts.append(Act(type="dismiss", position=position, delay_seconds=now))
            continue
        clicked = now
        now += min(float(reads[index]), LONGEST_READ_SECONDS)
        acts.append(Act(type="view", position=position, delay_seconds=came, seconds=now - came))
        acts.append(Act(type="click", position=position, delay_seconds=clicked))
        if saves[index]:
            acts.append(Act(type="save", position=position, delay_seconds=now))
        if not starts[index]:
            continue
        acts.append(Act(type="act", position=position, delay_seconds=now))
        for step, name in enumerate(STEPS):
            now += float(steps[index, step])
            if gives_up[index, step]:
                acts.append(Act(type="abandon", position=position, delay_seconds=now, dropoff_point=name))
                break
        else:
            acts.append(Act(type="implement", position=position, delay_seconds=now))
    return acts
