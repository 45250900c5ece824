"""Whether a text is a forest that can be walked.

LightGBM trusts the text it is given: a child that points back at its parent hangs it, and a list that is too short makes it read
beyond. So a stranger's forest is checked here first, number by number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ranker.models.bundle import BadBundle

MAX_FOREST_BYTES = 64 * 2**20
MAX_TREES = 20_000
MAX_LEAVES = 65_536

CATEGORICAL = 1
"""The bit of `decision_type` that marks a split by categories."""

HEADER, TRAILER = "tree\n", "\nend of trees"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestSummary:
    """What a forest is, by its own text."""

    feature_count: int
    tree_count: int
    max_leaf_count: int
    """Leaves of its largest tree."""


def check_forest(forest: bytes) -> ForestSummary:
    """Checks that every tree of the text is a tree, its numbers are finite and its features exist.

    Raises:
        BadBundle: it is not; the sentence says where.
    """
    if len(forest) > MAX_FOREST_BYTES:
        raise BadBundle(f"the forest has {len(forest)} bytes; at most {MAX_FOREST_BYTES} are taken")
    try:
        text = forest.decode("ascii")
    except UnicodeDecodeError as error:
        raise BadBundle(f"the forest is not LightGBM's text format: byte {error.start} is not ASCII") from error
    if not text.startswith(HEADER):
        raise BadBundle("the forest is not LightGBM's text format: it does not begin with a line `tree`")
    body, found, _ = text.partition(TRAILER)
    if not found:
        raise BadBundle("the forest is cut short: the line `end of trees` is not there")
    head, *trees = body.split("\nTree=")
    header = _fields(head)
    feature_count = _whole(header, "max_feature_idx", "the header") + 1
    if not 1 <= feature_count <= 100_000:
        raise BadBundle(f"the forest has {feature_count} features")
    for name in ("num_class", "num_tree_per_iteration"):
        if _whole(header, name, "the header") != 1:
            raise BadBundle(f"the forest has {name}={header[name]}: a ranker gives one value per row")
    if len(trees) > MAX_TREES:
        raise BadBundle(f"the forest has {len(trees)} trees; at most {MAX_TREES} are taken")
    if not trees:
        raise BadBundle("the forest has no trees")
    if "tree_sizes" in header:
        # LightGBM jumps by these sizes without looking where it lands.
        sizes = list(_integers(header, "tree_sizes", len(trees), "the header"))
        lengths = [len(f"Tree={tree}\n") for tree in trees]
        if sizes != lengths:
            raise BadBundle("tree_sizes in the header are not the lengths of the trees: the text was changed after LightGBM wrote it")
    leaves = max(_check_tree(_fields(tree), f"tree {index}", feature_count) for index, tree in enumerate(trees))
    return ForestSummary(feature_count=feature_count, tree_count=len(trees), max_leaf_count=leaves)


def _check_tree(tree: Mapping[str, str], where: str, feature_count: int) -> int:
    """Returns the number of leaves."""
    leaves = _whole(tree, "num_leaves", where)
    if not 1 <= leaves <= MAX_LEAVES:
        raise BadBundle(f"{where}: num_leaves={leaves}")
    if _whole(tree, "is_linear", where, default=0):
        raise BadBundle(f"{where}: linear leaves are not served")
    _finite(tree, "leaf_value", leaves, where)
    splits = leaves - 1
    if not splits:
        return leaves
    features = list(_integers(tree, "split_feature", splits, where))
    if not all(0 <= feature < feature_count for feature in features):
        raise BadBundle(f"{where}: split_feature names a feature beyond the {feature_count} there are")
    decisions = list(_integers(tree, "decision_type", splits, where))
    if not all(0 <= decision < 16 for decision in decisions):
        raise BadBundle(f"{where}: decision_type out of range")
    thresholds = _finite(tree, "threshold", splits, where, infinite=True)
    _check_shape(list(_integers(tree, "left_child", splits, where)), list(_integers(tree, "right_child", splits, where)), leaves, where)
    if any(decision & CATEGORICAL for decision in decisions):
        _check_categories(tree, [value for value, decision in zip(thresholds, decisions, strict=True) if decision & CATEGORICAL], where)
    return leaves


def _check_shape(left: Sequence[int], right: Sequence[int], leaves: int, where: str) -> None:
    """Every split and every leaf is reached from the root, once. A leaf i is written as −(i + 1)."""
    seen_splits, seen_leaves, waiting = {0}, set[int](), [0]
    while waiting:
        split = waiting.pop()
        for child in (left[split], right[split]):
            if child < 0:
                if -child > leaves or ~child in seen_leaves:
                    raise BadBundle(f"{where}: split {split} leads to leaf {~child}, which is not there or has two parents")
                seen_leaves.add(~child)
            else:
                if child >= len(left) or child in seen_splits:
                    raise BadBundle(f"{where}: split {split} leads to split {child}, which is not there or has two parents")
                seen_splits.add(child)
                waiting.append(child)
    if len(seen_leaves) != leaves:
        raise BadBundle(f"{where}: {leaves - len(seen_leaves)} leaves cannot be reached")


def _check_categories(tree: Mapping[str, str], thresholds: Sequence[float], where: str) -> None:
    """A split by categories has the number of its list instead of a threshold."""
    count = _whole(tree, "num_cat", where)
    if not 1 <= count <= MAX_LEAVES:
        raise BadBundle(f"{where}: num_cat={count}")
    boundaries = list(_integers(tree, "cat_boundaries", count + 1, where))
    if boundaries[0] != 0 or any(later < earlier for earlier, later in itertools.pairwise(boundaries)):
        raise BadBundle(f"{where}: cat_boundaries do not rise from 0")
    for _ in _integers(tree, "cat_threshold", boundaries[-1], where):
        pass
    if not all(0 <= value < count and value == int(value) for value in thresholds):
        raise BadBundle(f"{where}: a split names a list of categories that is not there")


def _fields(text: str) -> dict[str, str]:
    """The `name=value` lines."""
    return dict(line.split("=", 1) for line in text.split("\n") if "=" in line)


def _whole(fields: Mapping[str, str], name: str, where: str, default: int | None = None) -> int:
    try:
        return int(fields[name]) if default is None or name in fields else default
    except (KeyError, ValueError) as error:
        raise BadBundle(f"{where}: {name} is missing or no whole number") from error


def _integers(fields: Mapping[str, str], name: str, count: int, where: str) -> Iterator[int]:
    words = fields.get(name, "").split()
    if len(words) != count:
        raise BadBundle(f"{where}: {name} has {len(words)} values; expected {count}")
    try:
        yield from map(int, words)
    except ValueError as error:
        raise BadBundle(f"{where}: {name} has a value that is no whole number") from error


def _finite(fields: Mapping[str, str], name: str, count: int, where: str, *, infinite: bool = False) -> list[float]:
    words = fields.get(name, "").split()
    if len(words) != count:
        raise BadBundle(f"{where}: {name} has {len(words)} values; expected {count}")
    try:
        values = list(map(float, words))
    except ValueError as error:
        raise BadBundle(f"{where}: {name} has a value that is no number") from error
    if any(math.isnan(value) or (math.isinf(value) and not infinite) for value in values):
        raise BadBundle(f"{where}: {name} has a value that is not finite")
    return values
