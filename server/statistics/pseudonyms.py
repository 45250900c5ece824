"""Other names for users, where figures speak of single ones."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable

from runtime.mongo import Mongo
from runtime.schema import fixed

KEY = "pseudonym_key"
NAME_DIGITS = 16


async def pseudonyms(mongo: Mongo, new_key: Callable[[], str] = lambda: secrets.token_hex(32)) -> Callable[[str], str]:
    """The deployment's keyed hash: a user's name under it tells nothing to whom the key is not known."""
    key = bytes.fromhex(await fixed(mongo, KEY, new_key()))

    def name_of(user_id: str) -> str:
        return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()[:NAME_DIGITS]

    return name_of
