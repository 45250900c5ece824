"""Writing down in the registry that a ranker refused a model, so that whoever lists the models sees why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from ranker.models.registry import ModelRegistry
from runtime.errors import Aborted, FailedPrecondition, NotFound, RankloopError
from runtime.logs import get_logger
from runtime.mongo import Mongo

log = get_logger("ranker")


class RefusalBook:
    """Marks models refused.

    A champion cannot be marked. If its files are bad, no ranker can serve it, so the champion before it is restored first, which is what
    the rankers go on serving anyway, and what one that starts now can load. If it merely asks for more than this ranker knows (a ranker of
    an older release, say), it stays champion, and its reason says who refused it.
    """

    def __init__(self, mongo: Mongo, registry: ModelRegistry, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._models = mongo.collection("models")
        self._registry = registry
        self._now = now

    async def write(self, model_version: str, reason: str, *, broken: bool) -> None:
        """`broken` says that the fault is the bundle's and not this ranker's. What cannot be written is logged."""
        try:
            if await self._refused(model_version, reason):
                return
            if broken and await self._left(model_version) and await self._refused(model_version, reason):
                return
            # Only the reason: which model is champion is not for one ranker to say.
            changed = await self._models.update_one(
                {"_id": model_version, "status": "champion"}, {"$set": {"status_reason": f"refused by a ranker: {reason}"}}
            )
            log.error("the refused model is the champion: promote another", model_version=model_version, noted=bool(changed))
        except RankloopError as error:
            log.warning("the refusal could not be written down", model_version=model_version, error=error.message)

    async def _refused(self, model_version: str, reason: str) -> bool:
        try:
            await self._registry.refuse(model_version, reason)
        except FailedPrecondition:
            return False
        except NotFound:
            pass
        return True

    async def _left(self, model_version: str) -> bool:
        try:
            await self._registry.rollback(self._now(), expected=model_version)
        except Aborted:
            pass  # somebody else left it already
        except FailedPrecondition:
            return False
        return True
