"""How many parts a message has, told from its bytes before it is decoded.

A part of two bytes becomes some two hundred in memory: a few megabytes of empty entries would take a gigabyte. So what is large is walked
through, shallowly and only until it is too much.
"""

from __future__ import annotations

LARGE_BYTES = 2**16
"""A smaller message cannot hold enough."""
VERY_LARGE_BYTES = 2**20
"""From here on parts of parts are counted as well: in a smaller message they cannot do much harm."""
MOST_PARTS = 20_000
"""Fields of a message at most; no list of the contract is longer than some thousands."""
MOST_PARTS_OF_PARTS = 200_000
"""Fields of these, all together, at most."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def too_dense(message: bytes) -> bool:
    """Whether decoding it would take out of proportion much memory. What is no message is not judged: decoding will."""
    if len(message) < LARGE_BYTES:
        return False
    spans = _spans(message, 0, len(message), MOST_PARTS)
    if spans is None:
        return True
    if len(message) < VERY_LARGE_BYTES:
        return False
    left = MOST_PARTS_OF_PARTS
    for start, end in spans:
        parts = _spans(message, start, end, left)
        if parts is None:
            return True
        left -= len(parts)
    return False


def _spans(message: bytes, at: int, end: int, most: int) -> list[tuple[int, int]] | None:
    """Where the fields' contents lie (empty for plain numbers); None: there are more than `most`. Ends where the bytes are no message."""
    spans: list[tuple[int, int]] = []
    while at < end:
        if len(spans) >= most:
            return None
        tag, at = _varint(message, at, end)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(message, at, end)
            spans.append((at, min(end, at + size)))
            at += size
        elif kind == _VARINT:
            _, at = _varint(message, at, end)
            spans.append((at, at))
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
            spans.append((at, at))
        else:  # groups, which the contract has none of
            break
    return spans


def _varint(message: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return 0, end
