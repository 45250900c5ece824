"""The trees of a forest as arrays, read out of LightGBM's text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_LEAVES: Final = 64
"""Leaves of a tree at most: one bit each in the widest mask."""

CATEGORICAL_BIT: Final = 1
DEFAULT_LEFT_BIT: Final = 2
MISSING_SHIFT: Final = 2
"""Of `decision_type`: bit 0 marks a split by categories, bit 1 missing values that go left, bits 2 and 3 what counts as missing."""

MISSING_NONE, MISSING_ZERO, MISSING_NAN = range(3)


class Unrepresentable(ValueError):
    """A forest that only LightGBM can score; `reason` is one of REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


LARGE_TREES: Final = "large_trees"
LINEAR_TREES: Final = "linear_trees"
SEVERAL_OUTPUTS: Final = "several_outputs"
AVERAGED_OUTPUT: Final = "averaged_output"
UNREADABLE: Final = "unreadable"
REASONS: Final = (LARGE_TREES, LINEAR_TREES, SEVERAL_OUTPUTS, AVERAGED_OUTPUT, UNREADABLE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """One tree. Arrays of splits run in parallel, (leaves − 1,) each; a child below 0 is the leaf −(child + 1)."""

    features: NDArray[np.int64]
    """The column that a split looks at."""

    thresholds: NDArray[np.float64]
    """A value not above it goes left; of a split by categories the number of its list."""

    decisions: NDArray[np.int64]
    """`decision_type` as LightGBM writes it."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]

    leaf_values: NDArray[np.float64]
    """(leaves,) float64."""

    category_lists: Sequence[NDArray[np.uint32]]
    """Bit sets of the categories that go left, 32 to a word, the least category in the lowest bit."""


def read_trees(text: str) -> list[Tree]:
    """The trees of a forest in LightGBM's text format, in the order in which their values are summed.

    Raises:
        Unrepresentable: a row's score is not the plain sum of one leaf per tree of at most 64 leaves.
    """
    body, _, _ = text.partition("\nend of trees")
    head, *blocks = body.split("\nTree=")
    header = _fields(head)
    if header.get("num_class", "1") != "1" or header.get("num_tree_per_iteration", "1") != "1":
        raise Unrepresentable(SEVERAL_OUTPUTS, "it gives several values per row")
    if "\naverage_output" in head:
        raise Unrepresentable(AVERAGED_OUTPUT, "it averages its trees")
    try:
        return [_tree(_fields(block)) for block in blocks]
    except Unrepresentable:
        raise
    except (KeyError, ValueError, OverflowError) as error:
        raise Unrepresentable(UNREADABLE, f"its text cannot be read: {error}") from error


def _tree(fields: dict[str, str]) -> Tree:
    leaves = int(fields["num_leaves"])
    if leaves > MAX_LEAVES:
        raise Unrepresentable(LARGE_TREES, f"a tree has {leaves} leaves; at most {MAX_LEAVES} fit")
    if fields.get("is_linear", "0") != "0":
        raise Unrepresentable(LINEAR_TREES, "its leaves are linear functions")
    splits = leaves - 1
    bounds = _integers(fields, "cat_boundaries").tolist() if fields.get("num_cat", "0") != "0" else [0]
    words = _integers(fields, "cat_threshold").astype(np.uint32) if len(bounds) > 1 else np.empty(0, dtype=np.uint32)
    tree = Tree(
        features=_integers(fields, "split_feature", splits),
        thresholds=_numbers(fields, "threshold", splits),
        decisions=_integers(fields, "decision_type", splits),
        left=_integers(fields, "left_child", splits),
        right=_integers(fields, "right_child", splits),
        leaf_values=_numbers(fields, "leaf_value", leaves),
        category_lists=[words[start:end] for start, end in itertools.pairwise(bounds)],
    )
    # LightGBM does write infinite thresholds: everything goes left.
    if np.isnan(tree.thresholds).any() or not np.isfinite(tree.leaf_values).all():
        raise Unrepresentable(UNREADABLE, "a threshold is not a number or a leaf is not finite")
    if ((tree.decisions >> MISSING_SHIFT) > MISSING_NAN).any():
        raise Unrepresentable(UNREADABLE, "a split has a missing type that is not known")
    return tree


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.split("\n") if "=" in line)


def _integers(fields: dict[str, str], name: str, count: int | None = None) -> NDArray[np.int64]:
    values: NDArray[np.int64] = np.array(fields[name].split() if count != 0 else (), dtype=np.int64)
    if count is not None and len(values) != count:
        raise Unrepresentable(UNREADABLE, f"{name} has {len(values)} values instead of {count}")
    return values


def _numbers(fields: dict[str, str], name: str, count: int) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.array(fields[name].split() if count else (), dtype=np.float64)
    if len(values) != count:
        raise Unrepresentable(UNREADABLE, f"{name} has {len(values)} values instead of {count}")
    return values
