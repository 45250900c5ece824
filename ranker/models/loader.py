"""Which model serves: follows the registry, and swaps one reference when another champion is loaded, verified and warm."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Final, Protocol

from ranker import metrics
from ranker.features.schema import FeatureSchema, with_request_features
from ranker.models.bundle import BadBundle, Bundle
from ranker.models.refusal import Refusal
from ranker.models.registry import ModelRecord
from ranker.models.trial import TooSlow, prepare
from ranker.scoring.engine import FOREST, LIGHTGBM, EngineChoice
from ranker.scoring.scorer import ForestScorer, UnknownFeatures
from runtime.errors import NotFound, StorageError
from runtime.logs import get_logger

log = get_logger("ranker")

MAX_REMEMBERED_REFUSALS: Final = 1000
LONGEST_LINEAGE: Final = 20
"""Champions back that a ranker looks for one that it can serve."""


class Registry(Protocol):
    """The model registry, as far as a ranker asks it."""

    async def champion(self) -> str | None:
        """The version that shall serve; None: none."""

    async def get(self, model_version: str) -> ModelRecord:
        """What is known of a model, the champion before it too. Raises NotFound."""

    async def fetch(self, model_version: str) -> Bundle:
        """Its bundle. Raises NotFound and BadBundle."""

    async def request_features(self, schema_hash: str) -> frozenset[str]:
        """The request features of a schema that was in force some time; empty: it is not known."""


class Notes(Protocol):
    """Where it is written down what became of a model here. Never fails."""

    async def refused(self, model_version: str, refusal: Refusal) -> None:
        """It cannot serve."""

    async def serves(self, model_version: str) -> None:
        """It serves."""


class Refused(Exception):
    """A model cannot serve here; the sentence says why."""


class ModelLoader:
    """Holds the champion, the one before it, and a few models that requests name.

    A model that is refused leaves the one before serving, is not tried again by this process, and is marked in the registry.
    """

    def __init__(
        self,
        registry: Registry,
        notes: Notes,
        schema: FeatureSchema,
        *,
        poll_seconds: float,
        pinned_limit: int,
        budget_seconds: float,
        engine: EngineChoice = "auto",
    ) -> None:
        """`budget_seconds`: what scoring a hundred candidates may take; `engine`: what shall walk the trees."""
        self._registry = registry
        self._notes = notes
        self._schema = schema
        self._budget_seconds = budget_seconds
        self._poll_seconds = poll_seconds
        self._pinned_limit = pinned_limit
        self._engine = engine
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
        """Lets the registry's champion serve, if it is another one and can. Raises StorageError.

        A process that starts while the champion cannot serve here takes the nearest champion before it that can.
        """
        version = await self._registry.champion()
        present = self.champion
        if version == (None if present is None else present.version):
            return
        if version is None:
            self._swap(None)
            return
        scorer = await self._servable(version)
        if scorer is None and present is None:
            scorer = await self._predecessor(version)
        # Loading takes a while, and somebody may have left that champion meanwhile: then the next poll has another one.
        if scorer is None or await self._registry.champion() != version:
            return
        self._swap(scorer)
        await self._notes.serves(scorer.version)

    async def _servable(self, version: str) -> ForestScorer | None:
        """The model, if it can serve here. Raises StorageError."""
        try:
            return self._resident(version) or await self._load(version)
        except (Refused, NotFound):
            return None

    async def _predecessor(self, version: str) -> ForestScorer | None:
        """The nearest champion before `version` that can serve here. Raises StorageError."""
        seen = {version}
        for _ in range(LONGEST_LINEAGE):
            try:
                version = (await self._registry.get(version)).previous
            except NotFound:
                return None
            if not version or version in seen:
                return None
            seen.add(version)
            if scorer := await self._servable(version):
                return scorer
        return None

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
        for engine in (FOREST, LIGHTGBM):
            metrics.SCORER.labels(engine).set(scorer is not None and scorer.chosen.name == engine)
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
            record = await self._registry.get(version)
            if record.status == "refused":
                raise Refused(record.status_reason)
            try:
                bundle = await self._registry.fetch(version)
                schema = await self._schema_for(bundle)
                # Parsing and scoring a large forest takes a while: not on the event loop.
                scorer = await asyncio.to_thread(prepare, bundle, schema, version, budget_seconds=self._budget_seconds, engine=self._engine)
            except (StorageError, NotFound):
                raise
            except Exception as error:
                refusal = refusal_of(error)
                await self._refuse(version, refusal)
                raise Refused(refusal.description) from error
            metrics.MODEL_LOAD_SECONDS.set(time.perf_counter() - began)
            _tell_fallback(scorer)
            return scorer

    async def _schema_for(self, bundle: Bundle) -> FeatureSchema:
        """The schema that a model is served with: the deployment's, and the request features that were declared when it was trained.

        Computed features are never taken away from the schema, so whatever else a model lacks here belongs to a later release, and it is
        refused when it is tried.
        """
        unknown = self._schema.unknown(bundle.passport.feature_names)
        if not unknown:
            return self._schema
        declared = await self._registry.request_features(bundle.passport.schema_hash)
        return with_request_features(self._schema, unknown) if declared.issuperset(unknown) else self._schema

    async def _refuse(self, version: str, refusal: Refusal) -> None:
        self._refused[version] = refusal.description
        while len(self._refused) > MAX_REMEMBERED_REFUSALS:
            self._refused.popitem(last=False)
        self.refusal = f"{version}: {refusal.description}"
        metrics.REFUSALS.labels(refusal.reason).inc()
        log.error(
            "model refused",
            model_version=version,
            reason=refusal.reason,
            refusal=refusal.description,
            serving=self.champion.version if self.champion else "",
        )
        await self._notes.refused(version, refusal)


def _tell_fallback(scorer: ForestScorer) -> None:
    chosen = scorer.chosen
    if chosen.fallback:
        metrics.SCORER_FALLBACKS.labels(chosen.fallback).inc()
        log.warning("LightGBM scores this model", model_version=scorer.version, reason=chosen.fallback, explanation=chosen.explanation)


def refusal_of(error: Exception) -> Refusal:
    """Why a model that failed like this is refused, and whose fault it is."""
    if isinstance(error, BadBundle):
        return Refusal(reason=error.reason, description=error.message, fault="bundle")
    if isinstance(error, UnknownFeatures):
        return Refusal(reason="UNKNOWN_FEATURES", description=str(error), fault="ranker")
    if isinstance(error, TooSlow):
        return Refusal(reason="TOO_SLOW", description=str(error), fault="either")
    # Nobody foresaw it, so nobody knows whose fault it is; what serves goes on serving all the same.
    log.error("a model could not be loaded", exc_info=error)
    return Refusal(
        reason="NOT_LOADABLE", description=f"loading it failed with {type(error).__name__}; the ranker's log says more", fault="ranker"
    )
