"""A stranger's forest, written anew from what was checked.

LightGBM trusts the text it is given: a child that points back at its parent hangs it, a number that is none ends the whole process. So
a forest made elsewhere is read here first, number by number, and only what was checked is handed on, in LightGBM's own form. What does
not matter for scores (objective, parameters, names) is left out.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ranker.models.bundle import BadBundle

MAX_FOREST_BYTES = 64 * 2**20
MAX_FEATURES = 10_000
MAX_TREES = 20_000
MAX_LEAVES = 65_536
MAX_INTEGER = 2**31 - 1

CATEGORICAL = 1
"""The bit of `decision_type` that marks a split by categories."""

VERSIONS = ("v3", "v4")
"""Of the text format, whose trees mean the same; LightGBM 2.3 and later write them."""

TRAILER = "\nend of trees"

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_NOT_FINITE = {"nan", "inf", "infinity"}
_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{0,400})?([eE][-+]?[0-9]{1,3})?")
_THRESHOLD = re.compile(rf"({_NUMBER.pattern}|-?inf)")
"""Infinity is one: LightGBM tells what is missing from what is not by a split that every number passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanForest:
    """A forest that can be walked."""

    text: bytes
    """In LightGBM's text format, columns named by their number; its raw scores are those of the original, bit for bit."""
    feature_count: int
    tree_count: int
    max_leaf_count: int
    """Leaves of its largest tree."""
    largest_score: float
    """No score is farther from 0: the sum of each tree's largest leaf."""


def check_forest(forest: bytes) -> None:
    """Checks that LightGBM can be given a forest, and that its scores are finite whatever it is asked.

    Raises:
        BadBundle: it cannot be walked, or a score of it need not be finite; the sentence says where.
    """
    clean = clean_forest(forest)
    if not math.isfinite(clean.largest_score):
        raise BadBundle("the forest's leaves are so large that a score of it need not be finite", reason="NOT_FINITE")


def clean_forest(forest: bytes) -> CleanForest:
    """The forest in `forest`, written anew.

    Raises:
        BadBundle: it is not LightGBM's text format, or cannot be walked, or gives several values per row; the sentence says where.
    """
    if len(forest) > MAX_FOREST_BYTES:
        raise BadBundle(f"the forest has {len(forest)} bytes; at most {MAX_FOREST_BYTES} are taken")
    try:
        text = forest.decode("ascii").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadBundle(f"the forest is not LightGBM's text format: byte {error.start} is not ASCII") from error
    if not text.startswith("tree\n"):
        raise BadBundle("the forest is not LightGBM's text format: it does not begin with a line `tree`")
    body, found, _ = text.partition(TRAILER)
    if not found:
        raise BadBundle("the forest is cut short: the line `end of trees` is not there")
    head, *trees = body.split("\nTree=")
    header = _Fields(head, "the header")
    version = header.words.get("version", "")
    if version not in VERSIONS:
        raise BadBundle(f"the forest is of version {version[:20]!r} of LightGBM's text format; {', '.join(VERSIONS)} are taken")
    features = header.whole("max_feature_idx", 0, MAX_FEATURES - 1) + 1
    for name in ("num_class", "num_tree_per_iteration"):
        if header.whole(name, 0, MAX_INTEGER) != 1:
            raise BadBundle(f"the forest has {name} other than 1: a ranker gives one value per row")
    if not 1 <= len(trees) <= MAX_TREES:
        raise BadBundle(f"the forest has {len(trees)} trees; 1 to {MAX_TREES} are taken")
    stated = header.words.get("tree_sizes", "").split()
    if stated and len(stated) != len(trees):
        raise BadBundle(f"the header speaks of {len(stated)} trees and {len(trees)} are there: some were lost or added")
    written: list[str] = []
    largest, bound = 0, 0.0
    for index, tree in enumerate(trees):
        lines, leaves, largest_leaf = _tree(_Fields(tree, f"tree {index}"), features)
        written.append("\n".join((f"Tree={index}", *lines, "", "", "")))
        largest = max(largest, leaves)
        bound += largest_leaf
        # This runs on a thread beside one that answers calls, which gets its turn after every tree and not after a time slice.
        time.sleep(0)
    return CleanForest(
        text=_text(written, features, averaged="\naverage_output" in head).encode(),
        feature_count=features,
        tree_count=len(trees),
        max_leaf_count=largest,
        largest_score=bound,
    )


def _text(trees: Sequence[str], features: int, *, averaged: bool) -> str:
    header = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={features - 1}",
        *(["average_output"] if averaged else []),
        "feature_names=" + " ".join(f"Column_{column}" for column in range(features)),
        "feature_infos=" + " ".join(["none"] * features),
        "tree_sizes=" + " ".join(str(len(tree)) for tree in trees),
    ]
    return "\n".join((*header, "", "".join(trees) + TRAILER.lstrip(), ""))


def _tree(tree: _Fields, features: int) -> tuple[list[str], int, float]:
    """The lines of a tree, its number of leaves, and the value of the leaf farthest from 0."""
    leaves = tree.whole("num_leaves", 1, MAX_LEAVES)
    splits = leaves - 1
    if "is_linear" in tree.words and tree.whole("is_linear", 0, MAX_INTEGER):
        raise BadBundle(f"{tree.where}: linear leaves are not served")
    decisions = tree.integers("decision_type", splits, 0, 15) if splits else []
    categorical = any(decision & CATEGORICAL for decision in decisions)
    lists = tree.whole("num_cat", 1, MAX_LEAVES) if categorical else 0
    if splits:
        tree.integers("split_feature", splits, 0, features - 1)
        left, right = (tree.integers(name, splits, -leaves, splits - 1) for name in ("left_child", "right_child"))
        _check_shape(left, right, leaves, tree.where)
        thresholds = tree.thresholds(splits)
        if categorical:
            _check_categories(tree, [value for value, decision in zip(thresholds, decisions, strict=True) if decision & CATEGORICAL], lists)
    largest_leaf = max(map(abs, tree.numbers("leaf_value", leaves)))
    for name, count in (("split_gain", splits), ("internal_value", splits), ("internal_weight", splits), ("leaf_weight", leaves)):
        if count and name in tree.words:
            tree.numbers(name, count)
    for name, count in (("internal_count", splits), ("leaf_count", leaves)):
        if count and name in tree.words:
            tree.integers(name, count, 0, MAX_INTEGER)
    lines = [f"num_leaves={leaves}", f"num_cat={lists}", *(f"{name}={' '.join(words)}" for name, words in tree.taken.items())]
    return [*lines, "is_linear=0", "shrinkage=1"], leaves, largest_leaf


def _check_shape(left: Sequence[int], right: Sequence[int], leaves: int, where: str) -> None:
    """Every split and every leaf is reached from the root, once. A leaf i is written as −(i + 1)."""
    seen_splits, seen_leaves, waiting = {0}, set[int](), [0]
    while waiting:
        split = waiting.pop()
        for child in (left[split], right[split]):
            if child < 0:
                if ~child in seen_leaves:
                    raise BadBundle(f"{where}: leaf {~child} has two parents")
                seen_leaves.add(~child)
            else:
                if child in seen_splits:
                    raise BadBundle(f"{where}: split {child} has two parents")
                seen_splits.add(child)
                waiting.append(child)
    if len(seen_leaves) != leaves:
        raise BadBundle(f"{where}: {leaves - len(seen_leaves)} leaves cannot be reached")


def _check_categories(tree: _Fields, places: Sequence[float], lists: int) -> None:
    """A split by categories has the number of its list instead of a threshold."""
    boundaries = tree.integers("cat_boundaries", lists + 1, 0, MAX_INTEGER)
    if boundaries[0] != 0 or any(later <= earlier for earlier, later in itertools.pairwise(boundaries)):
        raise BadBundle(f"{tree.where}: cat_boundaries do not rise from 0")
    tree.integers("cat_threshold", boundaries[-1], 0, 2**32 - 1)
    if not all(0 <= place < lists and place == int(place) for place in places):
        raise BadBundle(f"{tree.where}: a split names a list of categories that is not there")


class _Fields:
    """The `name=value` lines of a block; what was read and checked is in `taken`."""

    def __init__(self, text: str, where: str) -> None:
        self.words: Mapping[str, str] = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
        self.where = where
        self.taken: dict[str, list[str]] = {}

    def whole(self, name: str, least: int, largest: int) -> int:
        """One whole number; not among `taken`."""
        value = self.integers(name, 1, least, largest)[0]
        del self.taken[name]
        return value

    def integers(self, name: str, count: int, least: int, largest: int) -> list[int]:
        """So many whole numbers from `least` to `largest`."""
        words = self._split(name, count, _INTEGER)
        values = [int(word) for word in words]
        for value in values:
            if not least <= value <= largest:
                raise BadBundle(f"{self.where}: {name} has {value}; {least} to {largest} can be")
        self.taken[name] = [str(value) for value in values]
        return values

    def numbers(self, name: str, count: int) -> list[float]:
        """So many finite numbers; they are written as they stood, digit by digit."""
        words = self._split(name, count, _NUMBER)
        values = [float(word) for word in words]
        if not all(map(math.isfinite, values)):
            raise BadBundle(f"{self.where}: {name} has a value that is not finite", reason="NOT_FINITE")
        self.taken[name] = words
        return values

    def thresholds(self, count: int) -> list[float]:
        """So many numbers, infinite ones among them; they are written as they stood, digit by digit."""
        words = self._split("threshold", count, _THRESHOLD)
        values = [float(word) for word in words]
        if any(math.isinf(value) and not word.endswith("inf") for word, value in zip(words, values, strict=True)):
            raise BadBundle(f"{self.where}: threshold has a value that is not finite", reason="NOT_FINITE")
        self.taken["threshold"] = words
        return values

    def _split(self, name: str, count: int, form: re.Pattern[str]) -> list[str]:
        if name not in self.words:
            raise BadBundle(f"{self.where}: {name} is missing")
        words = self.words[name].split()
        if len(words) != count:
            raise BadBundle(f"{self.where}: {name} has {len(words)} values; expected {count}")
        for word in words:
            if not form.fullmatch(word):
                kind = "whole" if form is _INTEGER else "finite"
                reason = "NOT_FINITE" if word.lstrip("+-").lower() in _NOT_FINITE else None
                raise BadBundle(f"{self.where}: {name} has {word[:40]!r}, which is no {kind} number", reason=reason)
        return words
