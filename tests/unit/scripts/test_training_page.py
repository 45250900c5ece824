"""The page of a training: everything in one file, whatever the data are called."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

from ranker.models.passport import Metric, Slice
from ranker.training.data import DatasetCounts
from ranker.training.report import TrainingReport
from ranker.training.segments import Segment
from scripts.training_page import page

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPITEFUL = "</script><b>&amp;"


def ndcg(ranker: str, value: float) -> Metric:
    return Metric(name=f"test.{ranker}.ndcg_at_10", value=value, low=value - 0.01, high=value + 0.01)


REPORT = TrainingReport(
    run_id="run-1",
    mode="full",
    trigger="command",
    model_version="m1",
    promoted=True,
    decision=f"passed {SPITEFUL}",
    champion_version="m0",
    tree_count=3,
    counts=DatasetCounts(slates=5),
    slices=(Slice(name="test", start_time=NOW, end_time=NOW, slate_count=5, row_count=50, user_count=4),),
    metrics=(ndcg("model", 0.61), ndcg("champion", 0.6), ndcg("random", 0.4), ndcg("model_minus_champion", 0.01)),
    top_features=(),
    parameters=(("seed", 1),),
    notes=("rough",),
    rounds_added=3,
    rounds_removed=1,
    seconds=1.5,
    segments=(Segment(dimension="item_type", value=SPITEFUL, slate_count=2, user_count=2, metrics=(ndcg("model", 0.7),)),),
    curves={
        "learning": {"validation_ndcg_at_10": [0.5, 0.6, 0.55], "rounds_kept": 2},
        "importance": [{"feature": "a", "gain_share": 1.0}],
        "calibration": [{"score": 0.1, "label": 0.2, "label_standard_error": 0.01, "impressions": 9}],
        "trade_off": [{"mmr_lambda": 0.0, "ndcg_at_10": 0.5, "diversity": 0.9}, {"mmr_lambda": 1.0, "ndcg_at_10": 0.6, "diversity": 0.4}],
    },
)


class Reader(HTMLParser):
    """Texts, and what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href") and not (value or "").startswith("#")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def made(report: TrainingReport) -> tuple[str, Reader]:
    text = page(report, json.dumps(report.to_json()))
    return text, Reader(text)


def test_everything_is_in_it_and_nothing_is_loaded() -> None:
    _, read = made(REPORT)
    assert read.loaded == []
    assert read.tags.count("svg") == 5
    for expected in ("this model", "this model − champion", "0.6100 (0.6000 to 0.6200)", "rough", "seed", f"item type: {SPITEFUL}"):
        assert any(expected in one for one in read.texts), expected


def test_the_json_behind_it_is_read_back_whole() -> None:
    text, _ = made(REPORT)
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', text, re.S)
    assert found is not None
    assert json.loads(found[1]) == json.loads(json.dumps(REPORT.to_json()))


def test_words_are_words_and_no_markup() -> None:
    _, read = made(REPORT)
    assert "b" not in read.tags
    assert f"passed {SPITEFUL}" in read.texts


def test_the_same_report_is_the_same_page() -> None:
    assert made(REPORT)[0] == made(REPORT)[0]


def test_without_curves_there_is_the_one_plot_of_figures() -> None:
    _, read = made(replace(REPORT, curves={}, segments=(), model_version="", mode="evaluate-only"))
    assert read.tags.count("svg") == 1
