"""The scoring kernel, compiled by numba when this is imported, and kept on disk where there is room.

V-QuickScorer: Lucchese et al., "Exploiting CPU SIMD extensions to speed-up document scoring with tree ensembles", SIGIR 2016. Rows are
taken 64 at a time. A split is compared with the values of all of them in one loop, which LLVM turns into vector instructions; with fewer
rows than 64 it does not. All functions are in this file: numba's cache notices changes of one file only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np

ROWS: Final = 64
FEW_ROWS: Final = 12
"""Up to so many rows left over, one by one is faster."""

ZERO_THRESHOLD: Final = float(np.float32(1e-35))
"""What LightGBM takes for zero; it is a float32 there."""

_NONE_KIND: Final = 0
_ZERO_KIND: Final = 1
_CATEGORY_KIND: Final = 3
_MAX_CATEGORY: Final = 2147483648.0

_SHIFT32: Final = np.uint32(27)
_SHIFT64: Final = np.uint64(58)
_BRUIJN32: Final = np.uint32(0x077CB531)
_BRUIJN64: Final = np.uint64(0x03F79D71B4CB0A89)


def _as_seen(value: float, kind: int) -> float:
    """A value as the splits of a column see it: NaN is missing; of a column of categories −1 is none."""
    if kind == _CATEGORY_KIND:
        # LightGBM converts to int; what does not fit becomes the least int there, which is no category.
        return np.floor(value) if 0.0 <= value < _MAX_CATEGORY else (0.0 if -1.0 < value < 0.0 else -1.0)
    if value != value:
        return 0.0 if kind == _NONE_KIND else value
    if -ZERO_THRESHOLD <= value <= ZERO_THRESHOLD:
        return np.nan if kind == _ZERO_KIND else 0.0
    return value


def _goes_left(category: float, words: Any, bits: Any, split: int) -> bool:
    if category < 0.0:
        return False
    number = np.int64(category)
    word = words[split] + (number >> 5)
    return bool(word < words[split + 1] and (bits[word] >> np.uint32(number & 31)) & np.uint32(1))


def _leaf_place(mask: Any, of: Any) -> Any:
    """Where the leaf of a mask's lowest bit is. `of` only tells the width."""
    if of.itemsize == 4:
        narrow = np.uint32(mask)
        return np.uint32(np.uint32(narrow & np.uint32(np.uint32(~narrow) + np.uint32(1))) * _BRUIJN32) >> _SHIFT32
    wide = np.uint64(mask)
    return np.uint32(np.uint64(np.uint64(wide & np.uint64(np.uint64(~wide) + np.uint64(1))) * _BRUIJN64) >> _SHIFT64)


def _score(
    matrix: Any,
    out: Any,
    group_size: int,
    column_features: Any,
    column_kinds: Any,
    starts: Any,
    thresholds: Any,
    trees: Any,
    masks: Any,
    missing_starts: Any,
    missing_trees: Any,
    missing_masks: Any,
    category_starts: Any,
    category_trees: Any,
    category_masks: Any,
    category_words: Any,
    category_bits: Any,
    leaf_values: Any,
) -> None:
    """Writes to `out` (n,) the scores of `matrix` (n, n_features); the rest is a `Layout`."""
    count, tree_count = len(matrix), len(leaf_values)
    columns = len(column_features)
    groups = (tree_count + group_size - 1) // group_size
    every = ~masks.dtype.type(0)
    seen = np.empty((columns, ROWS))
    reached = np.empty((group_size, ROWS), masks.dtype)
    top = np.empty(columns)
    any_missing = np.empty(columns, np.bool_)
    sums = np.empty(ROWS)
    first = 0
    while count - first > FEW_ROWS:
        for column in range(columns):
            feature, kind = column_features[column], column_kinds[column]
            largest = -np.inf
            missing = False
            for lane in range(ROWS):
                # Lanes past the end repeat the last row: they change nothing of where a column's splits end.
                value = _as_seen(matrix[min(first + lane, count - 1), feature], kind)
                seen[column, lane] = value
                largest = value if value > largest else largest
                missing = missing or value != value
            top[column] = largest
            any_missing[column] = missing
        sums[:] = 0.0
        for group in range(groups):
            reached[:] = every
            for column in range(columns):
                values = seen[column]
                at = group * columns + column
                for split in range(starts[at], starts[at + 1]):
                    threshold = thresholds[split]
                    if threshold >= top[column]:
                        break
                    mask = masks[split]
                    bits = reached[trees[split]]
                    for lane in range(ROWS):
                        bits[lane] = bits[lane] & (mask if values[lane] > threshold else every)
                if any_missing[column]:
                    for split in range(missing_starts[at], missing_starts[at + 1]):
                        mask = missing_masks[split]
                        bits = reached[missing_trees[split]]
                        for lane in range(ROWS):
                            bits[lane] = bits[lane] & (mask if values[lane] != values[lane] else every)
                for split in range(category_starts[at], category_starts[at + 1]):
                    mask = category_masks[split]
                    bits = reached[category_trees[split]]
                    for lane in range(ROWS):
                        if not _goes_left(values[lane], category_words, category_bits, split):
                            bits[lane] = bits[lane] & mask
            for tree in range(group * group_size, min(tree_count, (group + 1) * group_size)):
                bits = reached[tree - group * group_size]
                leaves = leaf_values[tree]
                for lane in range(ROWS):
                    sums[lane] += leaves[_leaf_place(bits[lane], masks)]
        for lane in range(min(ROWS, count - first)):
            out[first + lane] = sums[lane]
        first += ROWS
    single = np.empty(group_size, masks.dtype)
    for row in range(first, count):
        total = 0.0
        for column in range(columns):
            top[column] = _as_seen(matrix[row, column_features[column]], column_kinds[column])
        for group in range(groups):
            single[:] = every
            for column in range(columns):
                value = top[column]
                at = group * columns + column
                if value != value:
                    for split in range(missing_starts[at], missing_starts[at + 1]):
                        single[missing_trees[split]] &= missing_masks[split]
                    continue
                for split in range(starts[at], starts[at + 1]):
                    if not value > thresholds[split]:
                        break
                    single[trees[split]] &= masks[split]
                for split in range(category_starts[at], category_starts[at + 1]):
                    if not _goes_left(value, category_words, category_bits, split):
                        single[category_trees[split]] &= category_masks[split]
            for tree in range(group * group_size, min(tree_count, (group + 1) * group_size)):
                total += leaf_values[tree, _leaf_place(single[tree - group * group_size], masks)]
        out[row] = total


_SIGNATURE: Final = (
    "void(float64[:, ::1], float64[::1], int64, int64[::1], int64[::1], "
    "int64[::1], float64[::1], uint32[::1], {mask}[::1], "
    "int64[::1], uint32[::1], {mask}[::1], "
    "int64[::1], uint32[::1], {mask}[::1], int64[::1], uint32[::1], "
    "float64[:, ::1])"
)


def _compiled() -> Callable[..., None]:
    """The kernel for both widths. Explicit signatures: anything else is a TypeError, never a compilation in somebody's request."""
    globals_of = _score.__globals__
    for function in (_as_seen, _goes_left, _leaf_place):
        globals_of[function.__name__] = numba.njit(function, inline="always")
    signatures = [_SIGNATURE.format(mask=mask) for mask in ("uint32", "uint64")]
    try:
        compiled: Callable[..., None] = numba.njit(signatures, cache=True, nogil=True, error_model="numpy")(_score)
    except (RuntimeError, OSError):
        # Nowhere to keep it: compiled anew by every process, at its start.
        compiled = numba.njit(signatures, nogil=True, error_model="numpy")(_score)
    return compiled


score: Final = _compiled()
