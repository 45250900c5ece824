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


def last_of(token: str, question: Sequence[Any], *kinds: type) -> list[Any] | None:
    """Where the page before ended, as values of `kinds`; None: this is the first page.

    `int` is a time in milliseconds since 1970, `str` an id, `float` any finite number.

    Raises:
        InvalidInput: the token is not one of ours, or belongs to another question.
    """
    if not token:
        return None
    try:
        fingerprint, last = json.loads(base64.urlsafe_b64decode(token.encode()))
        sound = len(last) == len(kinds) and all(_sound(value, kind) for value, kind in zip(last, kinds, strict=True))
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error):
        sound, fingerprint, last = False, "", []
    if not sound:
        raise InvalidInput.of("page_token", "INVALID", "is not a token of this service; send next_page_token as it came, or leave it empty")
    if fingerprint != _fingerprint(question):
        raise InvalidInput.of("page_token", "INVALID", "belongs to another question; ask with the same fields as before, or leave it empty")
    return list(last)


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
