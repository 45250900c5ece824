"""Writing down in the registry what became of a model at a ranker, so that whoever lists the models sees why it does not serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ranker.models.registry import ModelRegistry
from runtime.errors import Aborted, FailedPrecondition, NotFound, RankloopError
from runtime.logs import get_logger
from runtime.timestamps import at_millisecond

log = get_logger("ranker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a model cannot serve at a ranker."""

    reason: str
    """For programs: BAD_BUNDLE, CANNED_SCORES_DIFFER, NOT_FINITE, UNKNOWN_FEATURES, TOO_SLOW, NOT_LOADABLE."""

    description: str
    """For people."""

    fault: Literal["bundle", "ranker", "either"]
    """Whose it is. `bundle`: no ranker can serve it. `ranker`: others may. `either`: the bundle's, unless another ranker serves it."""


class RankerNotes:
    """What one ranker writes into the registry of models.

    Every refusal is noted with the ranker's name. A bundle that no ranker can serve is marked refused; if it is the champion, the champion
    before it is restored first, which is what the rankers go on serving anyway, and what one that starts now can load. A model that
    merely asks for more than this ranker has (features of a later release, a faster machine while others keep up) keeps its status.
    """

    def __init__(
        self, registry: ModelRegistry, ranker: Callable[[], str], *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """`ranker` says what this ranker is called: the address at which it answers."""
        self._registry = registry
        self._ranker = ranker
        self._now = now

    async def refused(self, model_version: str, refusal: Refusal) -> None:
        """Notes a refusal. What cannot be written is logged."""
        try:
            await self._registry.note_refusal(
                model_version,
                ranker=self._ranker(),
                reason=refusal.reason,
                description=refusal.description,
                now=at_millisecond(self._now()),
            )
            if refusal.fault == "bundle" or (refusal.fault == "either" and not await self._ever_served(model_version)):
                if await self._refuse(model_version, refusal.description):
                    return
                if await self._leave(model_version) and await self._refuse(model_version, refusal.description):
                    return
            if await self._registry.explain_champion(model_version, f"refused by ranker {self._ranker()}: {refusal.description}"):
                log.error("the refused model is the champion: promote another", model_version=model_version)
        except RankloopError as error:
            log.warning("the refusal could not be written down", model_version=model_version, error=error.message)

    async def serves(self, model_version: str) -> None:
        """Notes that a model serves here. What cannot be written is logged."""
        try:
            await self._registry.note_serving(model_version, ranker=self._ranker(), now=at_millisecond(self._now()))
        except RankloopError as error:
            log.warning("that a model serves could not be written down", model_version=model_version, error=error.message)

    async def _ever_served(self, model_version: str) -> bool:
        try:
            return (await self._registry.get(model_version)).serve_time is not None
        except NotFound:
            return False

    async def _refuse(self, model_version: str, reason: str) -> bool:
        """Whether it is refused now, or gone; the champion cannot be."""
        try:
            await self._registry.refuse(model_version, reason)
        except FailedPrecondition:
            return False
        except NotFound:
            pass
        return True

    async def _leave(self, model_version: str) -> bool:
        """Restores the champion before; False if there was none."""
        try:
            await self._registry.rollback(at_millisecond(self._now()), expected=model_version)
        except Aborted:
            pass  # somebody else left it already
        except FailedPrecondition:
            return False
        return True
