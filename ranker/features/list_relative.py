"""How a candidate stands among the candidates of its request."""

from __future__ import annotations

from math import nan
from typing import Final

import numpy as np

from ranker.features.columns import Candidates, Floats
from ranker.features.feature import family

FAMILY: Final = "list"

FEATURES: Final = family(
    FAMILY,
    ("list_size", nan, "candidates of the request"),
    ("list_prior_rank", nan, "rank by prior_score, 0 (best) to 1 (last); equals share the better one"),
    ("list_prior_z", nan, "prior_score in standard deviations from the request's mean"),
    ("list_type_share", nan, "share of the candidates that are of this type, itself included"),
)


def fill(out: Floats, candidates: Candidates) -> None:
    """Writes (4, n_candidates); rank and z-score are NaN without a prior."""
    count = len(candidates.item_ids)
    out[0] = count
    _fill_prior(out[1], out[2], candidates.priors)
    types = np.bincount(candidates.type_codes + 1, minlength=1)
    types[0] = 0
    out[3] = types[candidates.type_codes + 1] / count


def _fill_prior(ranks: Floats, scores: Floats, priors: Floats) -> None:
    ranks.fill(np.nan)
    scores.fill(np.nan)
    present = ~np.isnan(priors)
    known = priors[present]
    if not len(known):
        return
    losses = -known
    losses.sort()
    ranks[present] = np.searchsorted(losses, -known, side="left") / max(1, len(known) - 1)
    # Scaled by the largest first, so that priors near the end of the float range do not overflow when squared.
    scale = np.abs(known).max()
    unit = known / scale if scale > 0.0 else known
    spread = float(unit.std())
    scores[present] = (unit - unit.mean()) / spread if spread > 1e-12 else 0.0
