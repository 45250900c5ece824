"""Forests that no training would make, written in LightGBM's text format, and the values that tell scorers apart."""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TINY = float(np.float32(1e-35))
"""What LightGBM takes for zero at most."""

THRESHOLDS = (
    0.0,
    -0.0,
    TINY,
    -TINY,
    1e-35,
    5e-324,
    -5e-324,
    2.2e-308,
    1.0,
    -1.0,
    0.1,
    3.0,
    1e300,
    -1e300,
    np.inf,
    -np.inf,
    1.7976931348623157e308,
)
ODD_VALUES = (np.nan, *THRESHOLDS, 2.0, 31.0, 32.0, 63.5, 64.0, -0.5, 2.0**31 - 1, 2.0**31, -(2.0**31), 2.0**63, 1e-34)
LEAVES = (0.0, -0.0, 5e-324, 1e-300, 1e300, -1e300, 1.0, 1 / 3)

CATEGORICAL, DEFAULT_LEFT = 1, 2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a made-up forest is like."""

    seed: int
    trees: int
    max_leaves: int
    features: int
    categorical: bool
    missing_types: tuple[int, ...]
    """Of 0 (none), 1 (zero) and 2 (NaN)."""


def make(plan: Plan) -> lightgbm.Booster:
    """The booster of a made-up forest; two calls with one plan make the same."""
    rng = np.random.default_rng(plan.seed)
    trees = [f"Tree={index}\n{_tree(rng, plan)}\n\n\n" for index in range(plan.trees)]
    header = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={plan.features - 1}",
        "feature_names=" + " ".join(f"c{column}" for column in range(plan.features)),
        "feature_infos=" + " ".join(["none"] * plan.features),
        "tree_sizes=" + " ".join(str(len(tree)) for tree in trees),
    ]
    return lightgbm.Booster(model_str="\n".join(header) + "\n\n" + "".join(trees) + "end of trees\n")


def rows(plan: Plan, count: int, booster: lightgbm.Booster) -> Floats:
    """(count, features) float64: odd values, the forest's thresholds, their neighbours, and plain numbers."""
    rng = np.random.default_rng(plan.seed + 1)
    pool = np.concatenate((ODD_VALUES, *around(thresholds_of(booster))))
    matrix = rng.choice(pool, (count, plan.features))
    plain = rng.random(matrix.shape) < 0.3
    matrix[plain] = rng.normal(scale=3.0, size=int(plain.sum()))
    # Also columns where nothing is missing, and rows that are missing throughout.
    whole = rng.random(plan.features) < 0.3
    matrix[:, whole] = np.nan_to_num(matrix[:, whole])
    matrix[rng.random(count) < 0.05] = np.nan
    return matrix


def thresholds_of(booster: lightgbm.Booster) -> Floats:
    """All thresholds of a forest, each once."""
    lines = [line.split("=")[1].split() for line in booster.model_to_string().split("\n") if line.startswith("threshold=")]
    return np.unique(np.array([float(word) for words in lines for word in words]))


def around(thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """Thresholds, and the numbers next to them on either side."""
    with np.errstate(over="ignore"):  # next to the largest number is infinity
        return thresholds, np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf)


def _tree(rng: np.random.Generator, plan: Plan) -> str:
    leaves = int(rng.integers(1, plan.max_leaves + 1))
    splits = leaves - 1
    left, right = _shape(rng, leaves)
    lists: list[list[int]] = []
    features, thresholds, decisions = [], [], []
    for _ in range(splits):
        features.append(int(rng.integers(plan.features)))
        if plan.categorical and rng.random() < 0.4:
            lists.append(rng.integers(0, 2**32, int(rng.integers(1, 4))).tolist())
            thresholds.append(float(len(lists) - 1))
            decisions.append(CATEGORICAL + 4 * int(rng.choice(plan.missing_types)))
            continue
        thresholds.append(float(rng.choice(THRESHOLDS) if rng.random() < 0.5 else rng.normal(scale=3.0)))
        decisions.append(DEFAULT_LEFT * int(rng.integers(2)) + 4 * int(rng.choice(plan.missing_types)))
    values = rng.choice(LEAVES, leaves) if rng.random() < 0.1 else rng.normal(scale=10.0 ** rng.integers(-3, 3), size=leaves)
    lines = {
        "num_leaves": [leaves],
        "num_cat": [len(lists)],
        "split_feature": features,
        "split_gain": [0] * splits,
        "threshold": [f"{value:.17g}" for value in thresholds],
        "decision_type": decisions,
        "left_child": left,
        "right_child": right,
        "leaf_value": [f"{value:.17g}" for value in values.tolist()],
    }
    if lists:
        lines["cat_boundaries"] = np.cumsum([0, *map(len, lists)]).tolist()
        lines["cat_threshold"] = [word for words in lists for word in words]
    lines |= {"is_linear": [0], "shrinkage": [1]}
    return "\n".join(f"{name}={' '.join(map(str, values))}" for name, values in lines.items())


def _shape(rng: np.random.Generator, leaves: int) -> tuple[list[int], list[int]]:
    """Children of each split: a leaf drawn at random is split until there are enough. Chains and bushes both come."""
    left, right = [0] * (leaves - 1), [0] * (leaves - 1)
    places: list[tuple[list[int], int]] = []  # where each leaf hangs
    chain = rng.random() < 0.3
    for split in range(leaves - 1):
        if places:
            children, parent = places.pop(-1 if chain else int(rng.integers(len(places))))
            children[parent] = split
        places += [(left, split), (right, split)]
    for leaf, place in enumerate(rng.permutation(len(places)).tolist()):
        children, parent = places[place]
        children[parent] = ~leaf
    return left, right
