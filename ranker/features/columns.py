"""A ranking request as columns, and the same joined with what is known of its items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Embeddings of the candidates that have one."""

    unit: NDArray[np.float32]
    """(n_candidates, size) float32, each of length 1; zeros where there is none."""

    present: NDArray[np.bool_]
    """(n_candidates,) bool, whether there is one (of a length that is not 0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestColumns:
    """What the caller sent, one entry per candidate in the caller's order."""

    item_ids: Sequence[str]
    """The candidates."""

    item_types: Sequence[str]
    """Their types; empty: as the catalogue says."""

    priors: Floats
    """(n_candidates,) float64, the caller's own confidence; NaN: none."""

    given: Mapping[str, Floats]
    """Values by feature name (of the schema), (n_candidates,) float64 each, NaN where missing. They win over computed ones."""

    tags: Sequence[Sequence[str]]
    """Tags; empty: as the catalogue says."""

    tiers: Sequence[str]
    """The attribute `tier`; empty: as the catalogue says."""

    create_seconds: Floats
    """(n_candidates,) float64, creation in Unix seconds; NaN: as the catalogue says."""

    embeddings: NDArray[np.float32] | None
    """(n_candidates, size) float32 as sent, rows of NaN where a candidate has none; None: no candidate has one."""

    surface: str
    """Where the slate will be shown; empty: not said."""

    device: str
    """The context's `device`; empty: not said."""

    moment_seconds: float
    """When, in Unix seconds."""

    unknown_names: int = 0
    """Names of features that the schema does not know, each counted once per request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The candidates joined with catalogue and tallies."""

    item_ids: Sequence[str]
    """The candidates, in the caller's order."""

    item_types: Sequence[str]
    """Their types, catalogue included; empty: unknown."""

    type_codes: NDArray[np.int64]
    """(n_candidates,) int64, equal where types are equal, counted from 0; −1: unknown."""

    tiers: Sequence[str]
    """Their tiers, catalogue included; empty: none."""

    tag_names: Sequence[str]
    """The distinct tags of the request, catalogue included."""

    tag_codes: NDArray[np.int64]
    """(n_tags_in_all,) int64, places in `tag_names`, candidate after candidate, none twice within a candidate."""

    tag_counts: NDArray[np.int64]
    """(n_candidates,) int64, how many of `tag_codes` belong to each."""

    embeddings: Embeddings | None
    """None: no candidate has one."""

    age_days: Floats
    """(n_candidates,) float64, days since creation, at least 0; NaN: unknown."""

    priors: Floats
    """(n_candidates,) float64, the caller's own confidence; NaN: none."""

    numbers: Floats
    """(n_candidates, n_request_features) float64, the catalogue's numbers in the order of the request family; NaN: none."""

    item_tallies: NDArray[np.int64]
    """(n_candidates, n_windows, n_counters) int64; zeros for an item never seen."""

    type_tallies: NDArray[np.int64]
    """(n_candidates, n_windows, n_counters) int64 of each candidate's type."""

    overall_tallies: NDArray[np.int64]
    """(n_windows, n_counters) int64 of everything."""
