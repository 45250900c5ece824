"""Which ways there are to make a slate varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, Protocol

from ranker.diversity.dpp import dpp
from ranker.diversity.mmr import mmr
from ranker.diversity.picks import Picks
from ranker.diversity.quota import Quota
from ranker.diversity.similarity import SimilarityRows
from ranker.features.columns import Floats

Diversifier = Literal["mmr", "dpp"]


class Diversify(Protocol):
    """Chooses a slate that is relevant and varied."""

    def __call__(
        self,
        relevance: Floats,
        similarities: SimilarityRows,
        *,
        count: int,
        balance: float,
        given: Sequence[int] = (),
        quota: Quota | None = None,
    ) -> Picks:
        """As `ranker.diversity.mmr.mmr`."""


DIVERSIFIERS: Final[Mapping[Diversifier, Diversify]] = MappingProxyType({"mmr": mmr, "dpp": dpp})
