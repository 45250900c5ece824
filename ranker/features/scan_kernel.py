"""Reads candidates off the wire, compiled by numba when this is imported.

What it is given was written by protobuf itself a moment ago, so it is canonical: fields in order, map entries whole, packed lists packed.
Whatever looks otherwise, or is not as a request must be, makes it give up; the caller then looks at the message in Python.
All functions are in this file: numba's cache notices changes of one file only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np

GIVEN_UP: Final = -1
NO_ROOM: Final = -2
"""More tags than there is room for."""

ID_START, ID_END, TYPE_START, TYPE_END, TIER_START, TIER_END, EMBEDDING_START, EMBEDDING_END, TAGS_END = range(9)
"""Columns of the spans: where in the bytes something begins and ends, 0 and 0 where there is nothing; where in the list of tags a
candidate's end."""
SPAN_COLUMNS: Final = 9

UNKNOWN_SLOTS: Final = 1024
MAX_UNKNOWN: Final = 512

_MAX_ID: Final = 256
_MAX_TEXT: Final = 1024
_MAX_TAGS: Final = 64
_MAX_ATTRIBUTES: Final = 64
_MAX_FEATURES: Final = 256
_MIN_SECONDS: Final = -62_135_596_800
_MAX_SECONDS: Final = 253_402_300_799
_NANOS: Final = 1e-9
_EXPONENT: Final = np.uint64(0x7FF0000000000000)
_HASH_START: Final = np.uint64(0xCBF29CE484222325)
_HASH_FACTOR: Final = np.uint64(0x100000001B3)

_LENGTH, _FIXED64 = 2, 1


def _hash(data: Any, start: int, end: int) -> Any:
    """FNV-1a of some bytes."""
    found = _HASH_START
    for place in range(start, end):
        found = np.uint64(np.uint64(found ^ np.uint64(data[place])) * _HASH_FACTOR)
    return found


def _number(data: Any, place: int, end: int) -> Any:
    """A varint as a signed 64-bit number, and the place behind it; 0 as the place if it is cut short."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while place < end:
        byte = data[place]
        place += 1
        value |= np.uint64(byte & 0x7F) << shift
        if byte < 0x80:
            return np.int64(value), place
        shift += np.uint64(7)
        if shift > np.uint64(63):
            break
    return np.int64(0), 0


def _bits(data: Any, place: int) -> Any:
    """Eight bytes as a 64-bit number, the least first."""
    value = np.uint64(0)
    for byte in range(8):
        value |= np.uint64(data[place + byte]) << np.uint64(8 * byte)
    return value


def _is_name(data: Any, start: int, end: int, column: int, names: Any, name_ends: Any) -> bool:
    first = name_ends[column - 1] if column else 0
    if name_ends[column] - first != end - start:
        return False
    for place in range(end - start):  # noqa: SIM110 - numba knows no all()
        if names[first + place] != data[start + place]:
            return False
    return True


def _column(data: Any, start: int, end: int, slots: Any, names: Any, name_ends: Any) -> Any:
    """The column of a name; −1: none."""
    last = np.uint64(len(slots) - 1)
    slot = _hash(data, start, end) & last
    while slots[slot] >= 0:
        if _is_name(data, start, end, slots[slot], names, name_ends):
            return np.int64(slots[slot])
        slot = np.uint64(slot + np.uint64(1)) & last
    return np.int64(-1)


def _scan(
    data: Any,
    slots: Any,
    names: Any,
    name_ends: Any,
    spans: Any,
    tags: Any,
    priors: Any,
    created: Any,
    values: Any,
    touched: Any,
    unknown: Any,
) -> int:
    """Fills what is given for (n,) candidates; returns how many different names were unknown, or GIVEN_UP, or NO_ROOM."""
    count, end = len(spans), len(data)
    scratch = np.empty(1, np.uint64)
    as_float = scratch.view(np.float64)
    following = np.full(len(values) + 1, -1, np.int64)
    unknown_count = 0
    tag_count = 0
    candidate = -1
    place = 0
    while place < end:
        key, place = _number(data, place, end)
        if place == 0:
            return GIVEN_UP
        kind = key & 7
        if kind == 0:
            _, place = _number(data, place, end)
            if place == 0:
                return GIVEN_UP
            continue
        if kind == _FIXED64:
            place += 8
            continue
        if kind != _LENGTH:
            return GIVEN_UP
        size, place = _number(data, place, end)
        if place == 0 or size < 0 or place + size > end:
            return GIVEN_UP
        if key >> 3 != 6:
            place += size
            continue
        candidate += 1
        if candidate >= count:
            return GIVEN_UP
        last = place + size
        features = 0
        previous = len(values)
        own_tags = 0
        attributes = 0
        while place < last:
            key, place = _number(data, place, last)
            if place == 0:
                return GIVEN_UP
            field = key >> 3
            if key & 7 == _FIXED64:
                if field != 3 or place + 8 > last:
                    return GIVEN_UP
                scratch[0] = _bits(data, place)
                if scratch[0] & _EXPONENT == _EXPONENT:
                    return GIVEN_UP
                priors[candidate] = as_float[0]
                place += 8
                continue
            if key & 7 != _LENGTH:
                return GIVEN_UP
            size, place = _number(data, place, last)
            if place == 0 or size < 0 or place + size > last:
                return GIVEN_UP
            stop = place + size
            if field == 1:
                if size > _MAX_ID or spans[candidate, ID_END]:
                    return GIVEN_UP
                spans[candidate, ID_START] = place
                spans[candidate, ID_END] = stop
            elif field == 2:
                if size > _MAX_ID or spans[candidate, TYPE_END]:
                    return GIVEN_UP
                spans[candidate, TYPE_START] = place
                spans[candidate, TYPE_END] = stop
            elif field == 4:
                features += 1
                # The key, then the value.
                if features > _MAX_FEATURES or size < 11 or data[place] != 10:
                    return GIVEN_UP
                length, start = _number(data, place + 1, stop)
                if start == 0 or length < 0 or start + length + 9 != stop or data[start + length] != 17:
                    return GIVEN_UP
                scratch[0] = _bits(data, start + length + 1)
                if scratch[0] & _EXPONENT == _EXPONENT:
                    return GIVEN_UP
                # Maps of one sender mostly have their keys in one order.
                column: Any = following[previous]
                if column < 0 or not _is_name(data, start, start + length, column, names, name_ends):
                    column = _column(data, start, start + length, slots, names, name_ends)
                    following[previous] = column
                previous = column if column >= 0 else previous
                if column >= 0:
                    values[column, candidate] = as_float[0]
                    touched[column] = True
                else:
                    found = _hash(data, start, start + length) | np.uint64(1)
                    slot: Any = np.int64(found % np.uint64(UNKNOWN_SLOTS))
                    while unknown[slot] != 0 and unknown[slot] != found:
                        slot = slot + 1 if slot + 1 < UNKNOWN_SLOTS else 0
                    if unknown[slot] == 0:
                        unknown[slot] = found
                        unknown_count += 1
                        if unknown_count > MAX_UNKNOWN:
                            return GIVEN_UP
            elif field == 5:
                own_tags += 1
                if own_tags > _MAX_TAGS or size > _MAX_ID:
                    return GIVEN_UP
                if tag_count >= len(tags):
                    return NO_ROOM
                tags[tag_count, 0] = place
                tags[tag_count, 1] = stop
                tag_count += 1
            elif field == 6:
                if spans[candidate, EMBEDDING_END] or size % 4:
                    return GIVEN_UP
                spans[candidate, EMBEDDING_START] = place
                spans[candidate, EMBEDDING_END] = stop
            elif field == 7:
                attributes += 1
                if attributes > _MAX_ATTRIBUTES or size < 4 or data[place] != 10:
                    return GIVEN_UP
                length, start = _number(data, place + 1, stop)
                if start == 0 or length < 1 or length > _MAX_ID or start + length >= stop or data[start + length] != 18:
                    return GIVEN_UP
                long, text = _number(data, start + length + 1, stop)
                if text == 0 or long < 0 or long > _MAX_TEXT or text + long != stop:
                    return GIVEN_UP
                # `tier`
                if length == 4 and data[start] == 116 and data[start + 1] == 105 and data[start + 2] == 101 and data[start + 3] == 114:
                    spans[candidate, TIER_START] = text
                    spans[candidate, TIER_END] = stop
            elif field == 8:
                seconds: Any = np.int64(0)
                nanos: Any = np.int64(0)
                while place < stop:
                    key, place = _number(data, place, stop)
                    if place == 0 or (key != 8 and key != 16):
                        return GIVEN_UP
                    amount, place = _number(data, place, stop)
                    if place == 0:
                        return GIVEN_UP
                    if key == 8:
                        seconds = amount
                    else:
                        nanos = amount
                if seconds < _MIN_SECONDS or seconds > _MAX_SECONDS or nanos < 0 or nanos >= 1_000_000_000:
                    return GIVEN_UP
                created[candidate] = np.float64(seconds) + np.float64(nanos) * _NANOS
            else:
                return GIVEN_UP
            place = stop
        if not spans[candidate, ID_END]:
            return GIVEN_UP
        spans[candidate, TAGS_END] = tag_count
    return unknown_count if candidate == count - 1 and place == end else GIVEN_UP


_SIGNATURE: Final = numba.int64(
    numba.types.Array(numba.uint8, 1, "C", readonly=True),
    numba.int64[::1],
    numba.uint8[::1],
    numba.int64[::1],
    numba.int64[:, ::1],
    numba.int64[:, ::1],
    numba.float64[::1],
    numba.float64[::1],
    numba.float64[:, ::1],
    numba.boolean[::1],
    numba.uint64[::1],
)


def _compiled() -> Callable[..., int]:
    names = _scan.__globals__
    for function in (_hash, _number, _bits, _is_name, _column):
        names[function.__name__] = numba.njit(function)
    try:
        compiled: Callable[..., int] = numba.njit(_SIGNATURE, cache=True, nogil=True)(_scan)
    except (RuntimeError, OSError):
        # Nowhere to keep it: compiled anew by every process, at its start.
        compiled = numba.njit(_SIGNATURE, nogil=True)(_scan)
    return compiled


scan: Final = _compiled()
