"""Random draws by name: every stream follows from the seed and what it is for, whatever else was drawn before."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """The stream of draws for one purpose, as in `generator(7, "visit", "before", 12)`."""
    words = [zlib.crc32(word.encode()) if isinstance(word, str) else word for word in purpose]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))
