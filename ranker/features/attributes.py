"""What an item is."""

from __future__ import annotations

import zlib
from functools import lru_cache
from math import nan
from typing import Final

import numpy as np

from ranker.features.columns import Candidates, Floats
from ranker.features.feature import family

FAMILY: Final = "item"

FEATURES: Final = family(
    FAMILY,
    ("item_age_days", nan, "days since the item came into being"),
    ("item_tag_count", 0.0, "tags of the item"),
    ("item_type_code", nan, "a stable number for the item's type, 0 to 1008"),
    ("item_tier_code", nan, "a stable number for the item's tier, 0 to 1008"),
)


@lru_cache(maxsize=65_536)
def code(name: str) -> float:
    """A number for a name that is the same in every process and release; NaN for an empty name."""
    return float(zlib.crc32(name.encode()) % 1009) if name else nan


def fill(out: Floats, candidates: Candidates) -> None:
    """Writes (4, n_candidates)."""
    count = len(candidates.item_ids)
    out[0] = candidates.age_days
    out[1] = candidates.tag_counts
    out[2] = np.fromiter(map(code, candidates.item_types), dtype=np.float64, count=count)
    out[3] = np.fromiter(map(code, candidates.tiers), dtype=np.float64, count=count)
