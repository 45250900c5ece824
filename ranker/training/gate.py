"""Whether a new model may serve.

Its figures are NDCG@10 on the test slates, which neither the training nor its early stopping has seen:

1. better than chance, by the point estimate;
2. against the champion: not worse, that is, the 95 % interval of the paired difference does not lie wholly below 0;
3. against `prior_score`, which serves where no model does: better by the point estimate. Before there is a champion, not worse within
   the interval of the paired difference: the first model comes from few data, and one that keeps up with the callers' scores may
   serve, since it is what the next one learns to beat.

4. better than popularity, by the point estimate.

Besides, whatever the figures: it scores its canned slate as recorded, within the limits of time and size, and no feature has stopped
varying that the champion has seen vary (`fitness`).

The order as shown is reported and does not decide: people look at the top first, so labels favour whatever was shown there, and a
gate on it would keep every champion for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ranker.models.passport import Metric
from ranker.training.evaluation import NDCG_AT_10
from ranker.training.measurement import difference, metric_name

CUTOFF = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate decided."""

    passed: bool
    """Whether the model may serve."""

    reason: str
    """Why, in words."""


def judge(metrics: Iterable[Metric], unfit: Sequence[str] = ()) -> Verdict:
    """The verdict on `model`, from its metrics on the `test` slice beside `random`, `popularity`, `prior_score` and `champion` where there
    are any. `unfit` is what keeps it from serving whatever the figures."""
    by_name = {metric.name: metric for metric in metrics}

    def of(ranker: str) -> Metric | None:
        return by_name.get(metric_name("test", ranker, NDCG_AT_10))

    model = of("model")
    if model is None:
        raise ValueError("the model was not measured on the test slice")
    faults, merits = list[str](), list[str]()
    champion, prior = of("champion"), of("prior_score")
    for name, told in (("random", "chance"), ("popularity", "popularity")):
        if (trivial := of(name)) is not None:
            _judge_value(model, trivial, told, faults, merits)
    if champion is not None:
        gap = of(difference("model", "champion"))
        _judge_gap(gap, model, champion, "the champion", faults, merits)
    if prior is not None:
        if champion is None:
            _judge_gap(of(difference("model", "prior_score")), model, prior, "prior_score", faults, merits)
        else:
            _judge_value(model, prior, "prior_score", faults, merits)
    if faults or unfit:
        by_figures = f"by NDCG@{CUTOFF} on the test slates: " if faults else ""
        return Verdict(passed=False, reason=f"refused, {by_figures}" + "; ".join((*faults, *unfit)))
    beside = "; ".join(merits) or "there is nothing to compare it with"
    return Verdict(passed=True, reason=f"passed, by NDCG@{CUTOFF} on the test slates: {beside}")


def _judge_value(model: Metric, other: Metric, name: str, faults: list[str], merits: list[str]) -> None:
    """Better, by the point estimate."""
    told = f"{name} ({model.value:.4f} beside {other.value:.4f})"
    if model.value > other.value:
        merits.append(f"better than {told}")
    else:
        faults.append(f"it is not better than {told}")


def _judge_gap(gap: Metric | None, model: Metric, other: Metric, name: str, faults: list[str], merits: list[str]) -> None:
    """Not worse: the interval of the difference reaches 0; without an interval, the difference itself does."""
    value = model.value - other.value if gap is None else gap.value
    upper = value if gap is None or gap.high is None else gap.high
    lower = value if gap is None or gap.low is None else gap.low
    told = f"{model.value:.4f} beside {other.value:.4f}, difference {value:+.4f} in [{lower:+.4f}, {upper:+.4f}]"
    if upper < 0:
        faults.append(f"it is worse than {name} ({told})")
    else:
        merits.append(f"not worse than {name} ({told})")
