"""The failures of Rankloop, drawn as a tree.

    RankloopError
    ├── InvalidInput         the caller's request is wrong, and says where
    ├── NotFound             a resource asked for by id is not there
    ├── AlreadyExists        a resource of that name is there already
    ├── FailedPrecondition   not in this state
    ├── Aborted              somebody else was faster
    ├── Overloaded           too much at once; comes with the time to wait
    ├── DeadlineExceeded     the caller's time ran out
    ├── StorageError
    │   ├── Unavailable      the database is away or slow; nothing is known of the write
    │   └── DuplicateKey     the id is taken
    └── Misconfigured        the process cannot start like this; one sentence that says what to do

`runtime.rpc.status` turns them into status codes; what is not in the tree is INTERNAL with a reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One field at fault."""

    field: str
    """Its path, as in `interactions[3].event_id`."""

    reason: str
    """Why, for programs: MISSING, TOO_LONG, UNKNOWN_TYPE, NOT_FINITE, OUT_OF_RANGE, …"""

    description: str
    """What was expected and what to do, for people."""


class RankloopError(Exception):
    """A failure that a caller may be told of: `message` holds nothing that is secret."""

    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason


class InvalidInput(RankloopError):
    """The request is wrong."""

    reason = "INVALID_INPUT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        shown = "; ".join(f"{violation.field}: {violation.description}".removeprefix(": ") for violation in violations[:5])
        more = f"; and {len(violations) - 5} more" if len(violations) > 5 else ""
        super().__init__(shown + more)
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, reason: str, description: str) -> InvalidInput:
        """One violation."""
        return cls([Violation(field=field, reason=reason, description=description)])


class NotFound(RankloopError):
    """A resource asked for by id is not there."""

    reason = "NOT_FOUND"


class AlreadyExists(RankloopError):
    """A resource of that name is there already."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(RankloopError):
    """The resource is not in a state that allows it."""

    reason = "FAILED_PRECONDITION"


class Aborted(RankloopError):
    """Somebody else changed the resource first."""

    reason = "ABORTED"


class Overloaded(RankloopError):
    """Too much at once."""

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(RankloopError):
    """The caller's time ran out."""

    reason = "DEADLINE_EXCEEDED"


class StorageError(RankloopError):
    """The database could not do it."""

    reason = "STORAGE"


class Unavailable(StorageError):
    """The database, or another process, is away or too slow. A write may or may not have happened."""

    reason = "UNAVAILABLE"


class DuplicateKey(StorageError):
    """The id is taken."""

    reason = "DUPLICATE_KEY"


class Misconfigured(RankloopError):
    """A process cannot start like this."""

    reason = "MISCONFIGURED"
