"""A training as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ranker.models.passport import Metric
from ranker.training.evaluation import FIGURES
from ranker.training.measurement import metric_name
from ranker.training.report import TrainingReport
from scripts.off_policy_table import off_policy_refusals, off_policy_table

RANKERS = {
    "model": "this model",
    "model_after_mmr": "this model, after MMR",
    "plain": "without position_bias",
    "champion": "champion",
    "as_shown": "as shown",
    "prior_score": "prior_score",
    "popularity": "popularity",
    "random": "random (20 orders)",
}

TITLES = {"ndcg_at_5": "NDCG@5", "ndcg_at_10": "NDCG@10", "map": "MAP", "mrr": "MRR"}

COUNTS = {
    "interactions": "interactions in the window",
    "unmatched_interactions": "  of no slate of the window",
    "slates": "slates shown in the window",
    "slates_without_features": "  left out: without logged features",
    "slates_over_cap": "  left out: their user has too many",
    "slates_with_bad_features": "  left out: with features that do not fit",
    "slates_of_one_item": "  left out: fewer than two impressions to compare",
    "slates_without_label": "  left out: without any label",
    "slates_in_gap": "  left out: shown just before the next slice",
    "used_slates": "slates used",
    "slates_replayed": "  without features of their own, replayed",
    "slates_of_other_schemas": "  of another feature schema, mapped by name",
    "sampled_out_rows": "impressions left out by sampling",
    "unseen_rows": "impressions left out: nobody was seen to look at them",
    "used_rows": "impressions used",
    "labelled_rows": "  with a label",
    "used_users": "users",
}


def shown(metric: Metric | None, *, interval: bool = True) -> str:
    """As in `0.6210 (0.6120 to 0.6300)`."""
    if metric is None:
        return "–"
    if metric.low is None or metric.high is None or not interval:
        return f"{metric.value:.4f}"
    return f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f})"


def print_report(console: Console, report: TrainingReport) -> None:
    """The whole report, for people."""
    for table in (quality_table(report), off_policy_table(report.off_policy), features_table(report), counts_table(report)):
        if table.row_count:
            console.print(table)
    if (tuned := report.tuned) is not None:
        values = ", ".join(f"{name} = {value:.4g}" for name, value in tuned.chosen.items())
        console.print(
            f"tuned: {tuned.trial_count} trials in {tuned.seconds:.0f} s within the train slice, NDCG@10 there {tuned.score_before:.4f} as "
            f"set, {tuned.score:.4f} with {values}; to keep these, put them into [trainer]",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    for told in off_policy_refusals(report.off_policy, asked=report.mode == "evaluate-only"):
        console.print(f"note: {told}", highlight=False, markup=False)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    if report.mode == "evaluate-only":
        what = f"measured {report.model_version}" if report.model_version else "measured the baselines"
    else:
        serves = "serves now" if report.promoted else "does not serve"
        what = f"{report.model_version} ({report.tree_count} trees) {serves}"
    console.print(f"{what}, after {report.seconds:.1f} s", highlight=False, markup=False)
    console.print(report.decision, highlight=False, markup=False)


def quality_table(report: TrainingReport) -> Table:
    """Figures of the rankers on the test slates, and of the model on the slates it knows."""
    table = Table(title="Quality on the latest slates", title_justify="left", caption_justify="left")
    table.caption = "means over users with 95 % bootstrap intervals; gain 2^(4·label) − 1; MAP and MRR: a click's label or more"
    table.add_column("ranker")
    for title in TITLES.values():
        table.add_column(title, justify="right")
    for part in ("test", "validation", "train"):
        for ranker, name in RANKERS.items():
            metrics = [report.metric(metric_name(part, ranker, figure)) for figure in FIGURES]
            if any(metrics):
                # Four intervals beside each other are wider than a terminal; the report's JSON has them all.
                told = [
                    shown(metric, interval=figure in ("ndcg_at_5", "ndcg_at_10")) for figure, metric in zip(FIGURES, metrics, strict=True)
                ]
                table.add_row(name if part == "test" else f"{name}, {part} slates", *told)
    return table


def features_table(report: TrainingReport) -> Table:
    """The most important features."""
    table = Table(title="Most important features", title_justify="left")
    table.add_column("feature")
    table.add_column("share of gain", justify="right")
    for one in report.top_features:
        table.add_row(one.feature, f"{one.gain_share:.1%}")
    return table


def counts_table(report: TrainingReport) -> Table:
    """What was found, and what was left out."""
    table = Table(title="Data", title_justify="left")
    table.add_column("")
    table.add_column("count", justify="right")
    for name, told in COUNTS.items():
        table.add_row(told, f"{getattr(report.counts, name):,}")
    for one in report.slices:
        table.add_row(f"{one.name}: {one.start_time:%Y-%m-%d %H:%M} to {one.end_time:%Y-%m-%d %H:%M}", f"{one.slate_count:,} slates")
    return table
