"""Which implementation walks a forest's trees: the compiled one where it can, else LightGBM's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

import lightgbm
import numpy as np

from ranker.compiled import NoCompiler
from ranker.features.columns import Floats
from ranker.scoring.layout import Layout, lay_out
from ranker.scoring.probes import probes
from ranker.scoring.quickscorer import QuickScorer
from ranker.scoring.trees import REASONS, UNREADABLE, Unrepresentable, read_trees

EngineName = Literal["forest", "lightgbm"]
EngineChoice = Literal["auto", "forest", "lightgbm"]

FOREST: Final = "forest"
LIGHTGBM: Final = "lightgbm"

NO_COMPILER: Final = "no_compiler"
NOT_EQUAL: Final = "not_equal"
FALLBACKS: Final = (*REASONS, NO_COMPILER, NOT_EQUAL)
"""Why LightGBM scores although the compiled scorer was wanted."""


class Engine(Protocol):
    """What walks the trees."""

    def score(self, matrix: Floats) -> Floats:
        """(n,) float64, the raw scores of (n, the forest's features) float64."""


class LightGbmEngine:
    """LightGBM itself, on one thread."""

    def __init__(self, booster: lightgbm.Booster) -> None:
        self._booster = booster

    def score(self, matrix: Floats) -> Floats:
        """(n,) float64, the raw scores of (n, the forest's features) float64."""
        scores: Floats = np.asarray(self._booster.predict(matrix, raw_score=True, num_threads=1), dtype=np.float64)
        return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenEngine:
    """An engine, and how it was chosen."""

    engine: Engine
    name: EngineName
    fallback: str = ""
    """One of FALLBACKS; empty: this is the one that was wanted."""
    explanation: str = ""
    """The fallback in words."""


def choose_engine(booster: lightgbm.Booster, *, wanted: EngineChoice = "auto", known: Floats | None = None) -> ChosenEngine:
    """The compiled scorer if it is wanted, there, able to represent the forest, and equal to LightGBM on probing rows; else LightGBM.

    Probed are `known`, (n, the forest's features) float64, and rows made up: on the forest's own thresholds and next to them, with what is
    missing, zero, tiny and infinite.
    """
    plain = LightGbmEngine(booster)
    if wanted == LIGHTGBM:
        return ChosenEngine(engine=plain, name=LIGHTGBM)
    try:
        layout = layout_of(booster)
        quick = QuickScorer(layout, booster.num_feature())
    except Unrepresentable as error:
        return ChosenEngine(engine=plain, name=LIGHTGBM, fallback=error.reason, explanation=str(error))
    except NoCompiler as error:
        return ChosenEngine(engine=plain, name=LIGHTGBM, fallback=NO_COMPILER, explanation=str(error))
    rows = probes(layout, booster.num_feature())
    if known is not None:
        rows = np.concatenate((rows, known))
    differing = int((quick.score(rows).view(np.int64) != plain.score(rows).view(np.int64)).sum())
    if differing:
        explanation = f"{differing} of {len(rows)} probing rows have other scores than LightGBM gives them"
        return ChosenEngine(engine=plain, name=LIGHTGBM, fallback=NOT_EQUAL, explanation=explanation)
    return ChosenEngine(engine=quick, name=FOREST)


def layout_of(booster: lightgbm.Booster) -> Layout:
    """The layout of a booster's forest. Raises Unrepresentable."""
    trees = read_trees(booster.model_to_string())
    if not trees:
        raise Unrepresentable(UNREADABLE, "it has no trees")
    return lay_out(trees)
