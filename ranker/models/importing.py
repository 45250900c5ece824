"""Models made elsewhere: a forest in LightGBM's text format and the feature of each column."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.models.bundle import BadBundle, Bundle, read_forest
from ranker.models.forest import CleanForest, clean_forest
from ranker.models.passport import VERSION_PATTERN, Passport, top_features
from runtime.errors import InvalidInput, Violation

CANNED_ROWS = 32
MISSING_SHARE = 0.1
"""Share of the canned values that are missing."""


class Schema(Protocol):
    """What is asked of a feature schema."""

    @property
    def names(self) -> Sequence[str]:
        """The names it knows."""

    @property
    def hash(self) -> str:
        """Its hash."""


def import_forest(text: bytes, feature_names: Sequence[str], version: str | None, schema: Schema, *, now: datetime) -> Bundle:
    """A verified bundle of a forest made elsewhere, written anew from what was checked.

    `feature_names` gives the feature of each column: names of `schema`, each once. Without a `version`, one is made of `now` and
    the content.

    Raises:
        InvalidInput: the forest, the names or the version cannot be taken; the violations say why, by the field of ImportModelRequest.
    """
    violations = _name_violations(feature_names, version, schema)
    try:
        clean = clean_forest(text)
    except BadBundle as error:
        raise InvalidInput([Violation(field="forest", reason="NOT_A_FOREST", description=error.message), *violations]) from error
    if clean.feature_count != len(feature_names):
        described = f"the forest has {clean.feature_count} columns and {len(feature_names)} names were given: one per column, in order"
        violations.append(Violation(field="feature_names", reason="WRONG_COUNT", description=described))
    if violations:
        raise InvalidInput(violations)
    try:
        return _bundle(clean, tuple(feature_names), version, schema, now)
    except BadBundle as error:
        raise InvalidInput.of("forest", "NOT_A_FOREST", error.message) from error


def _bundle(forest: CleanForest, feature_names: tuple[str, ...], version: str | None, schema: Schema, now: datetime) -> Bundle:
    text = forest.text
    booster = read_forest(text)
    gains = [float(gain) for gain in booster.feature_importance(importance_type="gain")]
    passport = Passport(
        model_version=version or "",
        source="import",
        feature_names=feature_names,
        schema_hash=schema.hash,
        tree_count=forest.tree_count,
        top_features=top_features(feature_names, gains),
        library_versions=(("lightgbm", lightgbm.__version__),),
    )
    bundle = Bundle.make(passport if version else passport.named(now, text), text, canned_matrix(booster))
    bundle.verify()
    return bundle


def canned_matrix(booster: lightgbm.Booster) -> NDArray[np.float64]:
    """Values to try a forest on: around the thresholds of each feature, some missing; the same for the same forest.

    (CANNED_ROWS, features) float64.
    """
    random = np.random.default_rng(0)
    columns: list[NDArray[np.float64]] = []
    thresholds = _thresholds(booster.model_to_string(), booster.num_feature())
    for values in thresholds:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        spread = (high - low) or max(abs(low), 1.0)
        columns.append(random.uniform(low - spread / 4, high + spread / 4, CANNED_ROWS))
    matrix = np.column_stack(columns)
    matrix[random.random(matrix.shape) < MISSING_SHARE] = np.nan
    matrix[0] = np.nan
    return matrix


def _thresholds(text: str, feature_count: int) -> list[list[float]]:
    """The finite thresholds of each feature."""
    found: list[list[float]] = [[] for _ in range(feature_count)]
    features: list[int] = []
    for line in text.split("\n"):
        if line.startswith("split_feature="):
            features = [int(word) for word in line.partition("=")[2].split()]
        elif line.startswith("threshold="):
            for feature, word in zip(features, line.partition("=")[2].split(), strict=True):
                # Beyond 1e30 stand LightGBM's own marks for "everything".
                if abs(value := float(word)) < 1e30:
                    found[feature].append(value)
    return found


def _name_violations(feature_names: Sequence[str], version: str | None, schema: Schema) -> list[Violation]:
    violations: list[Violation] = []
    if version and not VERSION_PATTERN.fullmatch(version):
        described = "letters, digits and . _ : - only, beginning with a letter or a digit, at most 256"
        violations.append(Violation(field="model_version", reason="MALFORMED", description=described))
    known, seen = set(schema.names), set[str]()
    for index, name in enumerate(feature_names):
        if name not in known:
            described = f"no feature {name!r}: declare it among the request features, or choose from docs/reference/features.md"
            violations.append(Violation(field=f"feature_names[{index}]", reason="UNKNOWN_FEATURE", description=described))
        elif name in seen:
            violations.append(Violation(field=f"feature_names[{index}]", reason="DUPLICATE", description=f"{name!r} is named twice"))
        seen.add(name)
    return violations
