"""What a training came to, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ranker.models.passport import FeatureGain, Metric, Slice
from ranker.models.runs import Mode, Trigger
from ranker.training.data import DatasetCounts
from ranker.training.off_policy import PolicyValue
from ranker.training.segments import Segment
from ranker.training.tuning import Tuned


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What a training, or an evaluation, came to."""

    run_id: str
    """Its run in the history."""
    mode: Mode
    trigger: Trigger
    model_version: str
    """The model published; for an evaluation the champion; empty: none."""
    promoted: bool
    """Whether the model became champion."""
    decision: str
    """What the gate decided, in words."""
    champion_version: str
    """The champion it was compared with; empty: there was none."""
    tree_count: int
    """Trees of the model."""
    counts: DatasetCounts
    """What was found in the window, and what was left out."""
    slices: tuple[Slice, ...]
    metrics: tuple[Metric, ...]
    top_features: tuple[FeatureGain, ...]
    parameters: tuple[tuple[str, Any], ...]
    notes: tuple[str, ...]
    """What a reader should know beside it."""
    rounds_added: int | None
    """Trees added: to nothing, or in a warm start to the champion's; None: nothing was trained."""
    rounds_removed: int | None
    """Trees trained beyond those and dropped again, since they did not help the validation slice."""
    seconds: float
    """How long it took."""
    tuned: Tuned | None = None
    """What a search for better settings found; None: there was none."""
    off_policy: Mapping[str, PolicyValue] = field(default_factory=dict)
    """What the orders of `model` and `champion` would have earned, from what was explored within the test slice."""

    segments: tuple[Segment, ...] = ()
    """NDCG@10 on parts of the test slates; empty where no details were wanted."""
    curves: Mapping[str, Any] = field(default_factory=dict)
    """What the plots are made of, by plot: `learning`, `importance`, `calibration`, `trade_off`; empty where no details were wanted."""

    def metric(self, name: str) -> Metric | None:
        """The metric of that name, as in `test.model.ndcg_at_10`; None: it was not measured."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; metrics by name."""
        content = asdict(replace(self, segments=(), curves={}))
        content["segments"] = [segment.to_json() for segment in self.segments]
        content["curves"] = dict(self.curves)
        content["parameters"] = dict(self.parameters)
        content["metrics"] = {metric.name: {k: v for k, v in metric.to_document().items() if k != "name"} for metric in self.metrics}
        for one in content["slices"]:
            one["start_time"], one["end_time"] = one["start_time"].isoformat(), one["end_time"].isoformat()
        if self.tuned is not None:
            content["tuned"]["settings"] = self.tuned.settings.model_dump(mode="json")
        for name, value in self.off_policy.items():
            content["off_policy"][name]["estimates"] = {
                kind: {"value": one.value, "standard_error": one.standard_error, "low": one.low, "high": one.high}
                for kind, one in value.estimates.items()
            }
        return content
