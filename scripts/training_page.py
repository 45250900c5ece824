"""The report of a training as one HTML page that needs nothing beside it, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from ranker.models.passport import Metric
from ranker.training.evaluation import FIGURES
from ranker.training.measurement import metric_name
from ranker.training.report import TrainingReport
from runtime.errors import Misconfigured
from scripts.training_plots import plots, require_matplotlib
from scripts.training_tables import COUNTS, RANKERS, TITLES, shown

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1e293b; background: #f8fafc; margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .3rem solid #b45309; background: #fff; padding: .6rem 1rem; }
.verdict.promoted { border-color: #0f766e; }
table { border-collapse: collapse; background: #fff; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #e2e8f0; }
td + td, th + th { text-align: right; white-space: nowrap; }
figure { margin: 0 0 1rem; background: #fff; padding: .8rem; } figcaption { font-weight: 600; margin-bottom: .4rem; }
figure svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; } .small { color: #475569; font-size: .88rem; }
"""


def require_drawing(path: Path) -> None:
    """Raises Misconfigured, before a training begins, where its page could not be made or written."""
    require_matplotlib()
    if not path.parent.is_dir():
        raise Misconfigured(f"--report {path}: there is no folder {path.parent}; make it, or name another file")
    if path.suffix == ".json":
        raise Misconfigured(f"--report {path} is the page; its JSON goes beside it, so name it .html, or ask for --json {path}")


def write_page(path: Path, report: TrainingReport) -> None:
    """Writes the page, and the JSON behind it beside it. Raises Misconfigured where that cannot be."""
    content = json.dumps(report.to_json(), indent=2) + "\n"
    try:
        path.write_text(page(report, content))
        path.with_suffix(".json").write_text(content)
    except OSError as error:
        raise Misconfigured(f"the report {path} cannot be written ({error.strerror}); name another file with --report") from error


def page(report: TrainingReport, content: str) -> str:
    """The page; `content` is the report as JSON, and is part of it."""
    title = f"Training {report.run_id}"
    figures = "".join(f"<figure><figcaption>{escape(told)}</figcaption>{svg}</figure>" for told, svg in plots(report).values())
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="small">{_facts(report)}</p>',
        f'<p class="verdict{" promoted" if report.promoted else ""}">{escape(report.decision)}</p>',
        "<h2>Quality</h2>",
        '<p class="small">Means over users with 95 % bootstrap intervals, on the latest slates, which neither training nor early stopping '
        "has seen. Gain 2<sup>4·label</sup> − 1; MAP and MRR take a click's label or more as relevant.</p>",
        _quality(report),
        figures,
        _segments(report),
        "<h2>Data</h2>",
        _table(("", "count"), ((told.strip(), f"{getattr(report.counts, name):,}") for name, told in COUNTS.items())),
        _table(
            ("slice", "from", "to", "slates", "impressions", "users"),
            (
                (
                    one.name,
                    f"{one.start_time:%Y-%m-%d %H:%M}",
                    f"{one.end_time:%Y-%m-%d %H:%M}",
                    f"{one.slate_count:,}",
                    f"{one.row_count:,}",
                    f"{one.user_count:,}",
                )
                for one in report.slices
            ),
        ),
        "<h2>Notes</h2>" + "".join(f"<p>{escape(note)}</p>" for note in report.notes) if report.notes else "",
        "<h2>Parameters</h2>" + _table(("parameter", "value"), ((name, str(value)) for name, value in report.parameters))
        if report.parameters
        else "",
    ]
    data = content.replace("</", "<\\/")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>{''.join(parts)}</main>"
        f'<script type="application/json" id="report">{data}</script></body></html>\n'
    )


def _facts(report: TrainingReport) -> str:
    what = f"{report.model_version} ({report.tree_count} trees)" if report.model_version else "no model"
    beside = f", beside the champion {report.champion_version}" if report.champion_version else ""
    return escape(f"{report.mode}, set off by {report.trigger}: {what}{beside}; {report.seconds:.1f} s")


def _quality(report: TrainingReport) -> str:
    def row(name: str, part: str, ranker: str) -> list[str]:
        return [name, *(shown(report.metric(metric_name(part, ranker, figure))) for figure in FIGURES)]

    differences = {
        "model_minus_champion": "this model − champion",
        "model_minus_prior_score": "this model − prior_score",
        "model_after_mmr_minus_model": "after MMR − this model",
    }
    known = {metric.name.rpartition(".")[0] for metric in report.metrics}
    rows = [row(name, "test", ranker) for ranker, name in {**RANKERS, **differences}.items() if f"test.{ranker}" in known]
    rows += [row(f"this model, {part} slates", part, "model") for part in ("validation", "train") if f"{part}.model" in known]
    return _table(("ranker", *TITLES.values()), rows)


def _segments(report: TrainingReport) -> str:
    if not report.segments:
        return ""
    rankers = [ranker for ranker in ("model", "champion", "prior_score", "as_shown", "popularity") if _has(report, ranker)]

    def told(metrics: Sequence[Metric], ranker: str) -> str:
        return shown(next((one for one in metrics if one.name == metric_name("test", ranker, "ndcg_at_10")), None))

    rows = (
        (
            f"{one.dimension.replace('_', ' ')}: {one.value or 'not said'}",
            f"{one.slate_count:,}",
            f"{one.user_count:,}",
            *(told(one.metrics, ranker) for ranker in rankers),
        )
        for one in report.segments
    )
    return "<h2>Parts of the test slates: NDCG@10</h2>" + _table(("part", "slates", "users", *(RANKERS[one] for one in rankers)), rows)


def _has(report: TrainingReport, ranker: str) -> bool:
    return report.metric(metric_name("test", ranker, "ndcg_at_10")) is not None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
