"""The features of a deployment, in order, under a hash."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ranker.features import affinity, attributes, closeness, list_relative, moment, rates, request, user
from ranker.features.feature import Feature

__all__ = ["Feature", "FeatureSchema", "default_schema", "with_request_features"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class FeatureSchema:
    """An ordered set of features; families are contiguous. Two schemas with one hash mean the same columns."""

    def __init__(self, features: Iterable[Feature]) -> None:
        """Raises ValueError for a name not of the form `[a-z][a-z0-9_]{0,63}`, a name used twice, and a split family."""
        self.features: tuple[Feature, ...] = tuple(features)
        """In the order of the columns."""
        self.names: tuple[str, ...] = tuple(feature.name for feature in self.features)
        """The columns' names."""
        self.index: Mapping[str, int] = MappingProxyType({name: column for column, name in enumerate(self.names)})
        """Column by name."""
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"feature name {name!r}: lower-case letters, digits and underscores, a letter first, at most 64 characters"
                )
        if len(self.index) != len(self.names):
            raise ValueError(f"feature named twice: {sorted({name for name in self.names if self.names.count(name) > 1})}")
        self.defaults: NDArray[np.float64] = np.array([feature.default for feature in self.features], dtype=np.float64)
        """(n_features,) float64, the value where nothing is known; NaN is missing."""
        self.defaults.setflags(write=False)
        self.families: Mapping[str, slice] = MappingProxyType(_families(self.features))
        """Columns of each family."""
        self.hash: str = _hash(self.features)
        """sha256 in hex of names, families and defaults in canonical JSON."""

    def __len__(self) -> int:
        return len(self.features)

    def unknown(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of `names` that are no column here, in their order."""
        return tuple(name for name in names if name not in self.index)


def with_request_features(schema: FeatureSchema, names: Iterable[str]) -> FeatureSchema:
    """The schema with more request features behind those it has: what callers may send, and the catalogue does not know here."""
    end = schema.families[request.FAMILY].stop
    return FeatureSchema((*schema.features[:end], *request.declared(names), *schema.features[end:]))


def _families(features: tuple[Feature, ...]) -> dict[str, slice]:
    families: dict[str, slice] = {}
    for column, feature in enumerate(features):
        known = families.get(feature.family)
        if known is None:
            families[feature.family] = slice(column, column + 1)
        elif known.stop == column:
            families[feature.family] = slice(known.start, column + 1)
        else:
            raise ValueError(f"family {feature.family!r} is split at {feature.name!r}")
    return families


def _hash(features: tuple[Feature, ...]) -> str:
    rows = [[feature.name, feature.family, None if math.isnan(feature.default) else feature.default] for feature in features]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()).hexdigest()


def default_schema(request_names: Iterable[str] = ()) -> FeatureSchema:
    """The schema of a deployment that declares `request_names` on top of the features every deployment has.

    Names that are request features already change nothing; names of computed features raise ValueError, because a declared
    value and a computed one would share a column.
    """
    computed = (
        *attributes.FEATURES,
        *rates.ITEM_FEATURES,
        *rates.TYPE_FEATURES,
        *user.FEATURES,
        *affinity.TYPE_FEATURES,
        *affinity.TAG_FEATURES,
        *affinity.ITEM_FEATURES,
        *closeness.FEATURES,
        *moment.FEATURES,
        *list_relative.FEATURES,
    )
    taken = {feature.name for feature in computed}
    for name in request_names:
        if name in taken:
            raise ValueError(f"request feature {name!r} is computed already: choose another name")
    return FeatureSchema((*request.features(request_names), *computed))
