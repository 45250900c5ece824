"""Bundles of small forests, sound and spoilt."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.features.schema import FeatureSchema, default_schema
from ranker.models.bundle import HASHED_FILES, MANIFEST, Bundle
from ranker.models.passport import Passport

SCHEMA = default_schema()


def forest(columns: int, *, sign: float = 1.0) -> bytes:
    """A forest that goes by its first column."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(300, columns))
    data = lightgbm.Dataset(matrix, sign * matrix[:, 0])
    parameters = {"objective": "regression", "num_leaves": 7, "verbosity": -1, "num_threads": 1}
    return str(lightgbm.train(parameters, data, 10).model_to_string()).encode()


def bundle(version: str, *, names: tuple[str, ...] = ("cost", "price"), sign: float = 1.0, schema: FeatureSchema = SCHEMA) -> Bundle:
    """A sound bundle."""
    passport = Passport(model_version=version, source="train", feature_names=names, schema_hash=schema.hash, tree_count=10)
    canned: NDArray[np.float64] = np.array([[0.1, math.nan], [1.0, 2.0], [-1.0, 0.5]])
    return Bundle.make(passport, forest(len(names), sign=sign), canned)


def with_files(sound: Bundle, changed: Mapping[str, bytes]) -> Bundle:
    """Other files in a bundle, and a manifest that agrees with them."""
    files = {**sound.files, **changed}
    manifest = {"sha256": {name: hashlib.sha256(files[name]).hexdigest() for name in HASHED_FILES}}
    return Bundle({**files, MANIFEST: json.dumps(manifest).encode()})
