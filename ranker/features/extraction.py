"""From candidates and a user's history to the matrix that a model scores. The one extraction for serving, import and replay."""

from __future__ import annotations

import numpy as np

from ranker.features import affinity, attributes, closeness, list_relative, moment, rates, request, user
from ranker.features.columns import Candidates, Floats, RequestColumns
from ranker.features.history import History
from ranker.features.schema import FeatureSchema


def extract(schema: FeatureSchema, columns: RequestColumns, candidates: Candidates, history: History) -> Floats:
    """The feature values of all candidates, at the moment of the request.

    Returns:
        (n_candidates, n_features) float64, C order, columns as `schema`; NaN is missing, nothing is infinite. A value that the
        caller sent under a feature's name wins over the computed one, also in columns that the caller does not usually send.
    """
    families, when = schema.families, columns.moment_seconds
    # Feature-major while it is filled: a column of the result is then contiguous, and one operation writes it.
    values = np.empty((len(schema), len(candidates.item_ids)))
    request.fill(values[families[request.FAMILY]], candidates)
    attributes.fill(values[families[attributes.FAMILY]], candidates)
    rates.fill(values[families[rates.ITEM_FAMILY]], values[families[rates.TYPE_FAMILY]], candidates)
    user.fill(values[families[user.FAMILY]], history, when)
    affinity.fill_types(values[families[affinity.TYPE_FAMILY]], candidates, history, when)
    affinity.fill_tags(values[families[affinity.TAG_FAMILY]], candidates, history)
    affinity.fill_items(values[families[affinity.ITEM_FAMILY]], candidates, history, when)
    closeness.fill(values[families[closeness.FAMILY]], candidates, history)
    moment.fill(values[families[moment.FAMILY]], moment_seconds=when, device=columns.device, surface=columns.surface)
    list_relative.fill(values[families[list_relative.FAMILY]], candidates)
    for name, given in columns.given.items():
        np.copyto(values[schema.index[name]], given, where=~np.isnan(given))
    return np.ascontiguousarray(values.T)
