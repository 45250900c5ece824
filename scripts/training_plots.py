"""The plots of a training's report, as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ranker.training.evaluation import NDCG_AT_10
from ranker.training.measurement import metric_name
from ranker.training.report import TrainingReport
from runtime.errors import Misconfigured
from scripts.training_tables import RANKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, ACCENT, SECOND = "#334155", "#0f766e", "#b45309"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#94a3b8",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "rankloop",
}
"""Text stays text; the same figures give the same bytes."""

MOST_FEATURES = 20


def require_matplotlib() -> None:
    """Raises Misconfigured where there is nothing to draw with."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Misconfigured("--report draws with matplotlib: pip install 'rankloop-server[report]'; --json needs nothing more") from None


def plots(report: TrainingReport) -> dict[str, tuple[str, str]]:
    """Title and SVG of each plot that the report has figures for, by name."""
    drawn = {"ndcg": ("NDCG@10 on the test slates, with 95 % intervals", _svg(lambda axes: _ndcg(axes, report), height=3.2))}
    curves = report.curves
    if learning := curves.get("learning", {}).get("validation_ndcg_at_10"):
        kept = curves["learning"]["rounds_kept"]
        drawn["learning"] = ("Learning: NDCG@10 on the validation slates by round", _svg(lambda axes: _learning(axes, learning, kept)))
    if importance := curves.get("importance"):
        shown = importance[:MOST_FEATURES]
        height = 0.8 + 0.24 * len(shown)
        drawn["importance"] = ("Importance: share of the gain of all splits", _svg(lambda axes: _importance(axes, shown), height=height))
    if calibration := curves.get("calibration"):
        drawn["calibration"] = (
            "Calibration: mean label of the test impressions by score",
            _svg(lambda axes: _calibration(axes, calibration)),
        )
    if trade_off := curves.get("trade_off"):
        drawn["trade_off"] = (
            "What diversity costs: NDCG@10 and diversity of the first ten by λ of MMR",
            _svg(lambda axes: _trade_off(axes, trade_off)),
        )
    return drawn


def _svg(draw: Callable[[Axes], None], *, height: float = 3.4) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, height), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _ndcg(axes: Axes, report: TrainingReport) -> None:
    found = [(name, metric) for ranker, name in RANKERS.items() if (metric := report.metric(metric_name("test", ranker, NDCG_AT_10)))]
    found.reverse()
    for place, (_, metric) in enumerate(found):
        color = ACCENT if place >= len(found) - 1 and report.metric(metric_name("test", "model", NDCG_AT_10)) else INK
        if metric.low is not None and metric.high is not None:
            axes.plot([metric.low, metric.high], [place, place], color=color, linewidth=2.5, solid_capstyle="round", alpha=0.45)
        axes.plot([metric.value], [place], "o", color=color, markersize=6)
        axes.annotate(f"{metric.value:.3f}", (metric.value, place), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
    axes.set_yticks(range(len(found)), [name for name, _ in found])
    axes.set_ylim(-0.6, len(found) - 0.3)
    axes.set_xlabel("NDCG@10")


def _learning(axes: Axes, values: Sequence[float], kept: int) -> None:
    rounds = range(1, len(values) + 1)
    axes.plot(rounds, values, color=ACCENT, linewidth=1.6)
    if 1 <= kept <= len(values):
        axes.axvline(kept, color=SECOND, linewidth=1, linestyle="--")
        axes.annotate(f"kept: {kept}", (kept, min(values)), textcoords="offset points", xytext=(4, 2), color=SECOND, fontsize=9)
    axes.set_xlabel("round")
    axes.set_ylabel("NDCG@10, validation")


def _importance(axes: Axes, features: Sequence[Mapping[str, Any]]) -> None:
    names, shares = [one["feature"] for one in reversed(features)], [one["gain_share"] for one in reversed(features)]
    axes.barh(names, shares, color=ACCENT, height=0.65)
    axes.set_xlabel("share of gain")


def _calibration(axes: Axes, bins: Sequence[Mapping[str, float]]) -> None:
    scores, labels = [one["score"] for one in bins], [one["label"] for one in bins]
    axes.errorbar(
        scores, labels, yerr=[1.96 * one["label_standard_error"] for one in bins], color=ACCENT, marker="o", markersize=4, capsize=2
    )
    axes.set_xlabel("score, mean of a twentieth of the impressions")
    axes.set_ylabel("mean label")


def _trade_off(axes: Axes, points: Sequence[Mapping[str, float]]) -> None:
    balances = [one["mmr_lambda"] for one in points]
    axes.plot(balances, [one[NDCG_AT_10] for one in points], color=ACCENT, marker="o", markersize=4, label="NDCG@10 (left)")
    axes.set_xlabel("λ: 1 is relevance alone")
    axes.set_ylabel("NDCG@10", color=ACCENT)
    other = axes.twinx()
    other.plot(balances, [one["diversity"] for one in points], color=SECOND, marker="s", markersize=4, label="diversity (right)")
    other.set_ylabel("diversity", color=SECOND)
    other.spines["right"].set_visible(True)
