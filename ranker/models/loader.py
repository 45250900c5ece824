"""Which model serves: follows the registry, and swaps one reference when another champion is loaded, verified and warm."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Final, Protocol

import numpy as np

from ranker import metrics
from ranker.features.schema import FeatureSchema
from ranker.models.bundle import BadBundle, Bundle
from ranker.models.registry import ModelRecord
from ranker.scoring.scorer import ForestScorer, UnknownFeatures
from runtime.errors import NotFound, StorageError
from runtime.logs import get_logger

log = get_logger("ranker")

WARM_UP_ROWS: Final = 100
MAX_REMEMBERED_REFUSALS: Final = 1000


class Registry(Protocol):
    """The model registry, as far as a ranker asks it."""

    async def champion(self) -> str | None:
        """The version that shall serve; None: none."""

    async def get(self, model_version: str) -> ModelRecord:
        """What is known of a model. Raises NotFound."""

    async def fetch(self, model_version: str) -> Bundle:
        """Its bundle. Raises NotFound and BadBundle."""


class Refusals(Protocol):
    """Where a refusal is written down."""

    async def write(self, model_version: str, reason: str, *, broken: bool) -> None:
        """Never fails. `broken`: the fault is the bundle's, not this ranker's."""


class Refused(Exception):
    """A model cannot serve here; the sentence says why."""


class ModelLoader:
    """Holds the champion, the one before it, and a few models that requests name.

    A model that is refused leaves the one before serving, is not tried again by this process, and is marked in the registry.
    """

    def __init__(self, registry: Registry, refusals: Refusals, schema: FeatureSchema, *, poll_seconds: float, pinned_limit: int) -> None:
        self._registry = registry
        self._refusals = refusals
        self._schema = schema
        self._poll_seconds = poll_seconds
        self._pinned_limit = pinned_limit
        self._pinned: OrderedDict[str, ForestScorer] = OrderedDict()
        self._refused: OrderedDict[str, str] = OrderedDict()
        self._loading = asyncio.Lock()
        self.champion: ForestScorer | None = None
        """The model that serves; None: rankings are by prior."""
        self.previous: ForestScorer | None = None
        """The one that served before; kept so that a rollback is a swap."""
        self.refusal = ""
        """The last model refused and why; empty: none was."""

    @property
    def resident_versions(self) -> tuple[str, ...]:
        """The models in memory, the champion first."""
        held = [scorer.version for scorer in (self.champion, self.previous) if scorer is not None]
        return tuple(dict.fromkeys((*held, *self._pinned)))

    async def follow(self) -> None:
        """Polls until cancelled. A registry that is away is asked again; what serves goes on serving."""
        while True:
            try:
                await self.poll()
            except StorageError as error:
                metrics.FOLLOW_FAILURES.labels("models").inc()
                log.warning("the model registry cannot be read", error=error.message)
            await asyncio.sleep(self._poll_seconds)

    async def poll(self) -> None:
        """Lets the registry's champion serve, if it is another one and can. Raises StorageError."""
        version = await self._registry.champion()
        present = self.champion
        if version == (None if present is None else present.version) or version in self._refused:
            return
        if version is None:
            self._swap(None)
            return
        try:
            scorer = self._resident(version) or await self._load(version)
        except (Refused, NotFound):
            return
        self._swap(scorer)

    async def pinned(self, version: str) -> ForestScorer:
        """The model of that version, loaded if it is not in memory.

        Raises:
            NotFound: there is no such model, or it cannot serve.
            StorageError: the registry cannot be read.
        """
        scorer = self._resident(version)
        if scorer is not None:
            if version in self._pinned:
                self._pinned.move_to_end(version)
            return scorer
        try:
            scorer = await self._load(version)
        except Refused as error:
            raise NotFound(f"model {version} cannot serve: {error}", reason="MODEL_REFUSED") from error
        self._pinned[version] = scorer
        while len(self._pinned) > self._pinned_limit:
            self._pinned.popitem(last=False)
        return scorer

    def _resident(self, version: str) -> ForestScorer | None:
        for scorer in (self.champion, self.previous, self._pinned.get(version)):
            if scorer is not None and scorer.version == version:
                return scorer
        return None

    def _swap(self, scorer: ForestScorer | None) -> None:
        before, self.champion = self.champion, scorer
        if before is not None:
            self.previous = before
        metrics.SWAPS.inc()
        metrics.MODEL_LOADED.set(scorer is not None)
        log.info(
            "another model serves" if scorer else "no model serves",
            model_version=scorer.version if scorer else "",
            before=before.version if before else "",
        )

    async def _load(self, version: str) -> ForestScorer:
        """Fetches, verifies and warms a model. Raises Refused, NotFound and StorageError."""
        if version in self._refused:
            raise Refused(self._refused[version])
        async with self._loading:
            # Somebody may have loaded it while this waited.
            resident = self._resident(version)
            if resident is not None:
                return resident
            began = time.perf_counter()
            try:
                record = await self._registry.get(version)
                if record.status == "refused":
                    raise Refused(record.status_reason)
                bundle = await self._registry.fetch(version)
                # Parsing and scoring a large forest takes a while: not on the event loop.
                scorer = await asyncio.to_thread(prepare, bundle, self._schema, version)
            except (BadBundle, UnknownFeatures) as error:
                await self._refuse(version, str(error), broken=isinstance(error, BadBundle))
                raise Refused(str(error)) from error
            metrics.MODEL_LOAD_SECONDS.set(time.perf_counter() - began)
            return scorer

    async def _refuse(self, version: str, reason: str, *, broken: bool) -> None:
        self._refused[version] = reason
        while len(self._refused) > MAX_REMEMBERED_REFUSALS:
            self._refused.popitem(last=False)
        self.refusal = f"{version}: {reason}"
        metrics.REFUSALS.inc()
        log.error("model refused", model_version=version, refusal=reason, serving=self.champion.version if self.champion else "")
        await self._refusals.write(version, reason, broken=broken)


def prepare(bundle: Bundle, schema: FeatureSchema, version: str) -> ForestScorer:
    """A bundle as a scorer that is known to work: hashes, canned slate, features, finite scores, warm.

    Raises:
        BadBundle: its files do not agree, or it gives scores that are not finite.
        UnknownFeatures: it reads features that `schema` does not have.
    """
    booster = bundle.verify()
    scorer = ForestScorer(booster, bundle.passport.feature_names, schema, version=version)
    defaults = np.tile(schema.defaults, (WARM_UP_ROWS, 1))
    for rows in (defaults, np.full_like(defaults, np.nan), np.zeros_like(defaults)):
        if not np.isfinite(scorer.score(rows)).all():
            raise BadBundle("the forest gives scores that are not finite")
    scorer.explain(defaults[:1])
    return scorer
