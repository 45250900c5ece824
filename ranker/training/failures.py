"""Why there is nothing to learn."""

from __future__ import annotations

from runtime.errors import FailedPrecondition


class CannotTrain(FailedPrecondition):
    """The data do not allow a model, or a measurement; the sentence says what is missing and what to do."""

    reason = "CANNOT_TRAIN"

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason=reason)
