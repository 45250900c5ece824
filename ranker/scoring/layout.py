"""A forest laid out for QuickScorer: not tree after tree, but feature after feature.

Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees", SIGIR 2015. Number the
leaves of a tree from left to right and give each a bit. Every split has a mask without the bits of the leaves on its left. A row ends in
the leaf of the lowest bit that is left when the masks of all splits where it goes right are taken together with `and`, whatever the order.
So the splits of all trees can be sorted by feature and threshold, and a row stops at the first threshold that it does not exceed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ranker.scoring.trees import (
    CATEGORICAL_BIT,
    DEFAULT_LEFT_BIT,
    MISSING_NONE,
    MISSING_SHIFT,
    UNREADABLE,
    Tree,
    Unrepresentable,
)

TREES_PER_GROUP: Final = 128
"""Trees whose masks are worked on together: those of 64 rows then stay in the cache nearest to the processor."""

CATEGORY: Final = 3
"""A column's kind beside the three missing types: whole numbers, −1 where there is none."""

DE_BRUIJN: Final = {32: 0x077CB531, 64: 0x03F79D71B4CB0A89}
"""A power of two times this, shifted down to 5 or 6 bits, is another number for each power: a place for each lowest bit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """What the kernel reads. A column is a feature in the sense of one missing type, since splits may differ in that.

    Splits are sorted by group of trees, column and threshold; `starts[group · n_columns + column]` is where those of a column begin.
    """

    column_features: NDArray[np.int64]
    """(n_columns,) int64, the feature of each column."""
    column_kinds: NDArray[np.int64]
    """(n_columns,) int64: its missing type, or CATEGORY."""

    starts: NDArray[np.int64]
    """(n_groups · n_columns + 1,) int64."""
    thresholds: NDArray[np.float64]
    """(n_splits,) float64, rising within a column."""
    trees: NDArray[np.uint32]
    """(n_splits,) uint32, the tree's place in its group."""
    masks: NDArray[Any]
    """(n_splits,) uint32 or uint64, without the bits of the leaves on the left."""

    missing_starts: NDArray[np.int64]
    """As `starts`, for the splits that send missing values right."""
    missing_trees: NDArray[np.uint32]
    missing_masks: NDArray[Any]

    category_starts: NDArray[np.int64]
    """As `starts`, for the splits by categories."""
    category_trees: NDArray[np.uint32]
    category_masks: NDArray[Any]
    category_words: NDArray[np.int64]
    """(n_category_splits + 1,) int64, where the words of each split's bit set begin."""
    category_bits: NDArray[np.uint32]
    """(n_words,) uint32, the categories that go left."""

    leaf_values: NDArray[np.float64]
    """(n_trees, 32 or 64) float64, a tree's leaves at the places of their bits by DE_BRUIJN."""

    @property
    def mask_bits(self) -> int:
        """32 or 64."""
        return int(self.leaf_values.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, one.name).nbytes for one in fields(self))


@dataclass(slots=True)
class _Splits:
    """Splits of one sort, while they are collected."""

    keys: list[tuple[int, int, float]] = field(default_factory=list)
    """Group, column and threshold."""
    trees: list[int] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    words: list[NDArray[np.uint32]] = field(default_factory=list)

    def add(self, key: tuple[int, int, float], tree: int, mask: int) -> None:
        self.keys.append(key)
        self.trees.append(tree)
        self.masks.append(mask)

    def sorted(self, groups: int, columns: int, mask_type: type[Any]) -> tuple[Any, ...]:
        """Starts, thresholds, trees and masks, and the order they were brought into."""
        group, column, threshold = (np.array([key[part] for key in self.keys]) for part in range(3))
        place = group.astype(np.int64) * columns + column.astype(np.int64)
        order = np.lexsort((threshold, place))
        starts = np.searchsorted(place[order], np.arange(groups * columns + 1)).astype(np.int64)
        trees = np.array(self.trees, dtype=np.uint32)[order]
        return starts, threshold.astype(np.float64)[order], trees, np.array(self.masks, dtype=mask_type)[order], order


def lay_out(trees: Sequence[Tree]) -> Layout:
    """The layout of a forest of at least one tree. Raises Unrepresentable if a tree cannot be walked."""
    bits = 32 if max(len(tree.leaf_values) for tree in trees) <= 32 else 64
    mask_type = np.uint32 if bits == 32 else np.uint64
    every_bit = (1 << bits) - 1
    columns: dict[tuple[int, int], int] = {}
    plain, missing, categories = _Splits(), _Splits(), _Splits()
    leaf_values = np.zeros((len(trees), bits))
    for index, tree in enumerate(trees):
        group, place = divmod(index, TREES_PER_GROUP)
        leaves, spans = _walk(tree)
        leaf_values[index, _places(bits, len(leaves))] = tree.leaf_values[leaves]
        splits = zip(tree.features.tolist(), tree.thresholds.tolist(), tree.decisions.tolist(), spans, strict=True)
        for feature, threshold, decision, (start, end) in splits:
            mask = every_bit & ~(((1 << (end - start)) - 1) << start)
            kind = CATEGORY if decision & CATEGORICAL_BIT else decision >> MISSING_SHIFT
            column = columns.setdefault((feature, kind), len(columns))
            if kind == CATEGORY:
                categories.add((group, column, 0.0), place, mask)
                categories.words.append(_words(tree, threshold))
                continue
            plain.add((group, column, threshold), place, mask)
            if kind != MISSING_NONE and not decision & DEFAULT_LEFT_BIT:
                missing.add((group, column, 0.0), place, mask)
    groups = -(-len(trees) // TREES_PER_GROUP)
    starts, thresholds, plain_trees, masks, _ = plain.sorted(groups, len(columns), mask_type)
    missing_starts, _, missing_trees, missing_masks, _ = missing.sorted(groups, len(columns), mask_type)
    category_starts, _, category_trees, category_masks, order = categories.sorted(groups, len(columns), mask_type)
    words = [categories.words[at] for at in order.tolist()]
    return Layout(
        column_features=np.array([feature for feature, _ in columns], dtype=np.int64),
        column_kinds=np.array([kind for _, kind in columns], dtype=np.int64),
        starts=starts,
        thresholds=thresholds,
        trees=plain_trees,
        masks=masks,
        missing_starts=missing_starts,
        missing_trees=missing_trees,
        missing_masks=missing_masks,
        category_starts=category_starts,
        category_trees=category_trees,
        category_masks=category_masks,
        category_words=np.cumsum([0, *map(len, words)], dtype=np.int64),
        category_bits=np.concatenate([np.empty(0, dtype=np.uint32), *words]),
        leaf_values=leaf_values,
    )


def _walk(tree: Tree) -> tuple[list[int], list[tuple[int, int]]]:
    """The leaves from left to right, and for each split which places in that order lie on its left."""
    left, right = tree.left.tolist(), tree.right.tolist()
    leaves: list[int] = []
    spans = [(0, 0)] * len(left)
    # A split is seen twice: before what is on its left, and after it.
    waiting: list[tuple[int, int]] = [(0 if left else -1, -1)]
    steps = 0
    while waiting:
        steps += 1
        if steps > 4 * len(tree.leaf_values):
            raise Unrepresentable(UNREADABLE, "its splits go round in a circle")
        node, start = waiting.pop()
        if node < 0:
            leaves.append(~node)
        elif start < 0:
            waiting += [(node, len(leaves)), (left[node], -1)]
        else:
            spans[node] = (start, len(leaves))
            waiting.append((right[node], -1))
    if sorted(leaves) != list(range(len(tree.leaf_values))):
        raise Unrepresentable(UNREADABLE, "a leaf is reached in no way or in two")
    return leaves, spans


def _words(tree: Tree, number: float) -> NDArray[np.uint32]:
    if not 0 <= number < len(tree.category_lists):
        raise Unrepresentable(UNREADABLE, "a split names a list of categories that is not there")
    return tree.category_lists[int(number)]


def _places(bits: int, count: int) -> list[int]:
    """Where the kernel finds the leaf of each of the lowest `count` bits."""
    shift = bits - (bits.bit_length() - 1)
    place: Callable[[int], int] = lambda bit: (((1 << bit) * DE_BRUIJN[bits]) & ((1 << bits) - 1)) >> shift  # noqa: E731
    return [place(bit) for bit in range(count)]
