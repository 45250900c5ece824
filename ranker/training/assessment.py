"""A model and what it stands beside, measured on slates it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.features.columns import Candidates
from ranker.models.bundle import Bundle
from ranker.models.passport import Metric
from ranker.state.follower import CATALOGUE_FIELDS
from ranker.state.items import ItemState
from ranker.training import lambdarank
from ranker.training.after_mmr import BALANCES, candidates_of, diversified
from ranker.training.baselines import PRIOR_SCORE, SlateFigures, as_shown, at_random, figures, popularity, prior_score
from ranker.training.data import TrainingData
from ranker.training.evaluation import NDCG_AT_10, user_means
from ranker.training.measurement import measure, sampled
from ranker.training.split import Split
from runtime.mongo import Mongo

CHAMPION = "champion"
PLAIN = "plain"
"""The model without a correction for positions, where one with it was trained."""
AFTER_MMR = "model_after_mmr"
"""The model's order after MMR, as it serves."""

MMR_SLATES = 2_000
"""Test slates, evenly spread over their time, on which the order after MMR is measured at most."""

TRADE_OFF_SLATES = 500
"""The same, for each λ of the trade-off."""

LOOKUP_ITEMS = 5_000

CALIBRATION_BINS = 20


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shown:
    """A sample of the test slates, as MMR needs it."""

    slates: NDArray[np.int64]
    """Places among the test slates, (n,) int64."""
    data: TrainingData
    """Those slates."""
    candidates: list[Candidates] = field(repr=False)
    """Their items, one entry per slate."""


async def shown_slates(mongo: Mongo, test: TrainingData) -> Shown:
    """A sample of the test slates with types, tags and embeddings of their items, as recorded and as the catalogue has them today."""
    slates = sampled(test, MMR_SLATES)
    data = test.chosen(slates)
    recorded: dict[str, Any] = {}
    fields = {"user_id": 1, "show_time": 1, "items.item_id": 1, "items.item_type": 1, "items.tags": 1, "items.tier": 1}
    ranking_ids = list(data.ranking_ids)
    for begin in range(0, len(ranking_ids), 500):
        query = {"_id": {"$in": ranking_ids[begin : begin + 500]}}
        recorded |= {slate["_id"]: slate for slate in await mongo.collection("slates").find(query, fields, limit=500)}
    items = ItemState((), today=0)
    item_ids = sorted({data.codebook.items[code] for code in np.unique(data.items)})
    for begin in range(0, len(item_ids), LOOKUP_ITEMS):
        asked = item_ids[begin : begin + LOOKUP_ITEMS]
        items.catalogue.replace(await mongo.collection("items").find({"_id": {"$in": asked}}, CATALOGUE_FIELDS, limit=LOOKUP_ITEMS))
    return Shown(slates=slates, data=data, candidates=candidates_of(data, recorded, items))


@dataclass(slots=True, eq=False)
class Assessment:
    """What stands beside a model on the test slates, and how the model does."""

    parts: Split
    samples: int
    seed: int
    num_threads: int
    rankers: dict[str, SlateFigures] = field(default_factory=dict)
    """Figures on the test slates, by ranker."""
    after_mmr: tuple[Metric, ...] = ()
    _scores: NDArray[np.float64] | None = None

    @property
    def test(self) -> TrainingData:
        """The slates that are reported on."""
        return self.parts.test

    def baselines(self, champion: Bundle | None) -> None:
        """Measures everything that is no new model."""
        test = self.test
        self.rankers["as_shown"] = as_shown(test)
        self.rankers["random"] = at_random(test, seed=self.seed)
        self.rankers["popularity"] = popularity(test, before=(self.parts.train, self.parts.validation))
        if (prior := prior_score(test)) is not None:
            self.rankers[PRIOR_SCORE] = prior
        if champion is not None:
            self.rankers[CHAMPION] = figures(test, self.scores_of(champion, test))

    def scores_of(self, bundle: Bundle, data: TrainingData) -> NDArray[np.float64]:
        """What a model says of every row, (rows,) float64."""
        return lambdarank.scores(bundle.forest, data, bundle.passport.feature_names, num_threads=self.num_threads)

    def plain(self, forest: bytes) -> None:
        """Measures the forest that was trained without a correction for positions."""
        test = self.test
        self.rankers[PLAIN] = figures(test, lambdarank.scores(forest, test, test.feature_names, num_threads=self.num_threads))

    def learned(self, part: str, data: TrainingData, bundle: Bundle) -> tuple[Metric, ...]:
        """The model's figures on slates it knows."""
        model = {"model": figures(data, self.scores_of(bundle, data))}
        return measure(part, data.users, model, samples=self.samples, seed=self.seed)

    def model(self, bundle: Bundle, shown: Shown, *, balance: float) -> None:
        """Measures the model on the test slates, as it is and after MMR with λ `balance`."""
        self._scores = self.scores_of(bundle, self.test)
        self.rankers = {"model": figures(self.test, self._scores), **self.rankers}
        after = diversified(shown.data, self._of(shown, shown.slates), shown.candidates, balance=balance)
        beside = {AFTER_MMR: figures(shown.data, after.scores), "model": _chosen(self.rankers["model"], shown.slates)}
        measured = measure("test", shown.data.users, beside, differences=[(AFTER_MMR, "model")], samples=self.samples, seed=self.seed)
        # The model itself stands there already, measured on all test slates.
        self.after_mmr = tuple(one for one in measured if not one.name.startswith("test.model."))

    def metrics(self) -> tuple[Metric, ...]:
        """Every figure of every ranker on the test slates, with the differences that the gate looks at."""
        against = [("model", other) for other in (CHAMPION, PRIOR_SCORE, PLAIN) if {"model", other} <= set(self.rankers)]
        measured = measure("test", self.test.users, self.rankers, differences=against, samples=self.samples, seed=self.seed)
        return measured + self.after_mmr

    def calibration(self) -> list[dict[str, float]]:
        """Mean label of the test impressions by what the model says of them, in bins of equal size; rising scores."""
        if self._scores is None or not self._scores.size:
            return []
        labels, order = self.test.labels, np.argsort(self._scores, kind="stable")
        bins = [part for part in np.array_split(order, CALIBRATION_BINS) if part.size]
        return [
            {
                "score": float(self._scores[part].mean()),
                "label": float(labels[part].mean()),
                "label_standard_error": float(labels[part].std() / np.sqrt(part.size)),
                "impressions": part.size,
            }
            for part in bins
        ]

    def trade_off(self, shown: Shown) -> list[dict[str, float]]:
        """NDCG@10 and diversity of the first ten, by the λ of MMR; means over users."""
        if self._scores is None:
            return []
        kept = sampled(shown.data, TRADE_OFF_SLATES)
        data, candidates = shown.data.chosen(kept), [shown.candidates[place] for place in kept]
        scores = self._of(shown, shown.slates[kept])
        found: list[dict[str, float]] = []
        for balance in BALANCES:
            after = diversified(data, scores, candidates, balance=balance)
            ndcg = user_means(figures(data, after.scores)[NDCG_AT_10], data.users)
            varied = ~np.isnan(after.diversity)
            diversity = user_means(after.diversity[varied], data.users[varied]) if varied.any() else np.array([np.nan])
            found.append({"mmr_lambda": balance, NDCG_AT_10: float(ndcg.mean()), "diversity": float(diversity.mean())})
        return found

    def _of(self, shown: Shown, slates: NDArray[np.int64]) -> NDArray[np.float64]:
        """The model's scores of the rows of some test slates."""
        assert self._scores is not None
        offsets = self.test.offsets
        return np.concatenate([self._scores[offsets[slate] : offsets[slate + 1]] for slate in slates])


def _chosen(found: Mapping[str, NDArray[np.float64]], slates: NDArray[np.int64]) -> SlateFigures:
    return {name: values[slates] for name, values in found.items()}
