"""Pages: tokens that say where the last one ended, and of which question."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from collector.validation import MAX_ID_BYTES
from runtime.errors import InvalidInput
from runtime.timestamps import MAX_SECONDS, MIN_SECONDS

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100


def page_size(wanted: int) -> int:
    """How many entries a page has.

    Raises:
        InvalidInput: out of range.
    """
    if not 0 <= wanted <= MAX_PAGE_SIZE:
        raise InvalidInput.of("page_size", "OUT_OF_RANGE", f"is {wanted}; expected 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}")
    return wanted or DEFAULT_PAGE_SIZE


def token_after(question: Sequence[Any], last: Sequence[Any]) -> str:
    """The token for what follows `last`, in the answer to `question`. Both are lists of what JSON can hold."""
    return base64.urlsafe_b64encode(json.dumps([_fingerprint(question), list(last)]).encode()).decode()


def last_of(token: str, question: Sequence[Any], *kinds: type, field: str = "page_token") -> list[Any] | None:
    """Where the page before ended, as values of `kinds`; None: this is the first page.

    `int` is a time in milliseconds since 1970, `str` an id, `float` any finite number.

    Raises:
        InvalidInput: the token is not one of ours, or belongs to another question.
    """
    if not token:
        return None
    last = opened(token, question, field=field)
    try:
        sound = len(last) == len(kinds) and all(_sound(value, kind) for value, kind in zip(last, kinds, strict=True))
    except (ValueError, OverflowError):
        sound = False
    if not sound:
        raise no_token(field)
    return last


def opened(token: str, question: Sequence[Any], *, field: str) -> list[Any]:
    """What the token in `field` says of where the answer before ended: anything that JSON can hold.

    Raises:
        InvalidInput: the token is not one of ours, or belongs to another question.
    """
    try:
        fingerprint, last = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise no_token(field) from None
    if not isinstance(last, list):
        raise no_token(field)
    if fingerprint != _fingerprint(question):
        raise InvalidInput.of(field, "INVALID", "belongs to another question; ask with the same fields as before, or leave it empty")
    return last


def no_token(field: str) -> InvalidInput:
    """What is said of a token that is none of ours."""
    return InvalidInput.of(field, "INVALID", "is not a token of this service; send it as it came in the answer before, or leave it empty")


def _sound(value: Any, kind: type) -> bool:
    """Whether a value of a token can be what we put there: anybody can make a token, with whatever in it."""
    if kind is int:  # a time
        return type(value) is int and 1000 * MIN_SECONDS <= value < 1000 * (MAX_SECONDS + 1)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is str:
        return isinstance(value, str) and len(value.encode()) <= MAX_ID_BYTES
    return False


def _fingerprint(question: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(list(question)).encode(), digest_size=8).hexdigest()
