"""What is wrong with the feature values that slates were ranked by: always missing, or moved away from what the model learned."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.models.bundle import Bundle, raw_scores
from ranker.models.registry import ModelRegistry
from runtime.mongo import Document, Mongo
from server.health.drift import LARGE, NOTABLE, stability_index
from server.health.finding import EXAMPLES, Finding, Scope, Severity

SPANS = 20
"""Parts of the training window that slates are taken from, the same number of each."""

SCORES = "the model's scores"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shown:
    """Feature values of slates."""

    names: tuple[str, ...]
    values: Floats
    """(n_impressions, n_features), columns as `names`, NaN where missing."""
    slate_count: int

    def columns(self, names: Sequence[str]) -> Floats:
        """(n_impressions, len(names)): these columns, NaN where there is none of that name."""
        place = {name: index for index, name in enumerate(self.names)}
        picked = np.full((len(self.values), len(names)), np.nan)
        for column, name in enumerate(names):
            if name in place:
                picked[:, column] = self.values[:, place[name]]
        return picked


def always_missing(recent: Shown) -> Finding | None:
    """Features without a value in any impression."""
    if not len(recent.values):
        return None
    missing = np.isnan(recent.values)
    absent = [name for column, name in enumerate(recent.names) if missing[:, column].all()]
    if not absent:
        return None
    return Finding(
        name="features_missing",
        severity=Severity.NOTE,
        count=len(absent),
        examined_count=len(recent.names),
        examples=tuple(f"feature {name!r}" for name in absent[:EXAMPLES]),
        description=f"features without a value in any of the newest {recent.slate_count:,} slates ({len(recent.values):,} impressions)",
        advice="send what you have of them (candidates' features, the catalogue's numbers, create_time, embeddings), and take those you "
        "declared and never send out of features.request",
    )


def drifted(moved: Mapping[str, float], examined_count: int, model_version: str) -> list[Finding]:
    """What moved further than is usual since training; `moved`: stability index by feature, and of SCORES."""
    findings = []
    features = {name: index for name, index in moved.items() if name != SCORES}
    for name, indexes, noun in (
        ("feature_drift", features, "features"),
        ("score_drift", {key: index for key, index in moved.items() if key == SCORES}, "scores"),
    ):
        far = sorted(((index, key) for key, index in indexes.items() if index > NOTABLE), reverse=True)
        if not far:
            continue
        findings.append(
            Finding(
                name=name,
                severity=Severity.WARNING if far[0][0] > LARGE else Severity.NOTE,
                count=len(far),
                examined_count=examined_count if noun == "features" else 1,
                examples=tuple(f"{key}: PSI {index:.2f}" for index, key in far[:EXAMPLES]),
                description=f"{noun} that moved since {model_version} was trained (PSI above {NOTABLE}; above {LARGE} it is far)",
                advice="train again: a model is as good as its training data are like today's; if it comes back at once, look for "
                "what changed in what you send",
            )
        )
    return findings


class FeatureHealth:
    """Reads slates' feature values; keeps what it knows of the champion's training window."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._registry = ModelRegistry(mongo)
        self._learned: tuple[str, Shown, Bundle] | None = None

    async def findings(self, scope: Scope) -> list[Finding]:
        """Features always missing, features and scores that moved."""
        recent = await self._recent(scope)
        missing = await asyncio.to_thread(always_missing, recent)
        findings = [missing] if missing else []
        champion = await self._mongo.collection("models").find_one(
            {"status": "champion"}, {"data_start_time": 1, "data_end_time": 1, "feature_names": 1}
        )
        if champion and "data_end_time" in champion:
            learned, bundle = await self._learned_from(champion, scope)
            since = await self._recent(
                Scope(
                    start=max(scope.start, champion["data_end_time"]),
                    end=scope.end,
                    most_entries=scope.most_entries,
                    most_slates=scope.most_slates,
                )
            )
            names = tuple(champion["feature_names"])
            moved = await asyncio.to_thread(_moved, learned, since, names, bundle)
            findings.extend(drifted(moved, len(names), champion["_id"]))
        return findings

    async def _learned_from(self, champion: Document, scope: Scope) -> tuple[Shown, Bundle]:
        """Slates of the champion's training window, and its bundle."""
        if self._learned is None or self._learned[0] != champion["_id"]:
            start, end = champion["data_start_time"], champion["data_end_time"]
            part = (end - start) / SPANS
            slates: list[Document] = []
            for span in range(SPANS):
                slates += await self._slates(start + span * part, start + (span + 1) * part, max(1, scope.most_slates // SPANS))
            bundle = await self._registry.fetch(champion["_id"])
            self._learned = (champion["_id"], await self._read(slates), bundle)
        return self._learned[1], self._learned[2]

    async def _recent(self, scope: Scope) -> Shown:
        return await self._read(await self._slates(scope.start, scope.end, scope.most_slates))

    async def _slates(self, start: datetime, end: datetime, limit: int) -> list[Document]:
        """The newest slates of a span that have features."""
        query: dict[str, Any] = {"show_time": {"$gte": start, "$lt": end}, "features": {"$exists": True}}
        return await self._mongo.collection("slates").find(query, {"features": 1, "schema_hash": 1}, sort=[("show_time", -1)], limit=limit)

    async def _read(self, slates: Sequence[Document]) -> Shown:
        """The values of slates, in the columns of the first of them; what was logged in other columns is brought into these."""
        if not slates:
            return Shown((), np.empty((0, 0)), 0)
        hashes = list(dict.fromkeys(slate["schema_hash"] for slate in slates))
        found = await self._mongo.collection("feature_schemas").find({"_id": {"$in": hashes}}, {"names": 1}, limit=len(hashes))
        names = {schema["_id"]: tuple(schema["names"]) for schema in found}
        return await asyncio.to_thread(_together, slates, names)


def _together(slates: Sequence[Document], names: Mapping[str, tuple[str, ...]]) -> Shown:
    known = [slate for slate in slates if slate["schema_hash"] in names]
    if not known:
        return Shown((), np.empty((0, 0)), 0)
    columns = names[known[0]["schema_hash"]]
    parts = []
    for slate in known:
        own = names[slate["schema_hash"]]
        values = np.frombuffer(slate["features"], dtype="<f8").reshape(-1, len(own))
        parts.append(values if own == columns else Shown(own, values, 1).columns(columns))
    return Shown(columns, np.concatenate(parts), len(known))


def _moved(learned: Shown, recent: Shown, names: tuple[str, ...], bundle: Bundle) -> dict[str, float]:
    """Stability indexes of a model's features and of its scores, where both sides have enough values."""
    before, after = learned.columns(names), recent.columns(names)
    moved = {}
    for column, name in enumerate(names):
        if (index := stability_index(before[:, column], after[:, column])) is not None:
            moved[name] = index
    if moved:
        booster = bundle.verify()
        index = stability_index(raw_scores(booster, before), raw_scores(booster, after))
        if index is not None:
            moved[SCORES] = index
    return moved
