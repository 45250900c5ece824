"""One feature."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A number that the model sees of every candidate."""

    name: str
    """What people and bundles call it; never reused for something else."""

    family: str
    """What it is about; a family is computed together."""

    default: float
    """Its value where nothing is known; NaN is missing."""

    meaning: str
    """One line for people, unit included."""


def family(name: str, *rows: tuple[str, float, str]) -> tuple[Feature, ...]:
    """The features of a family, from rows of name, default and meaning."""
    return tuple(Feature(name=feature, family=name, default=default, meaning=meaning) for feature, default, meaning in rows)
