"""Candidates, as rules look at them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class OfferedCandidates:
    """Candidates by item, type and tag."""

    def __init__(self, item_ids: Sequence[str], item_types: Sequence[str], tags: Sequence[Sequence[str]]) -> None:
        """Sequences run in parallel, one entry per candidate."""
        self.item_ids = item_ids
        """The candidates."""
        self._codes: dict[str, int] = {"": -1}
        self.type_codes: NDArray[np.int64] = np.array(
            [self._codes.setdefault(one, len(self._codes) - 1) for one in item_types], dtype=np.int64
        )
        """(n,) int64, equal where types are equal; −1: unknown."""
        self._tags = tags

    def of_type(self, item_type: str) -> NDArray[np.bool_]:
        """(n,) bool."""
        code = self._codes.get(item_type)
        return np.zeros(len(self.item_ids), dtype=np.bool_) if code is None else self.type_codes == code

    def with_tag(self, tag: str) -> NDArray[np.bool_]:
        """(n,) bool."""
        return np.array([tag in tags for tags in self._tags], dtype=np.bool_)
