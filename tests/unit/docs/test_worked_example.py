"""The worked example of docs/reference/metrics.md: the figures on the page are those that the code computes."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from collector.batch import Batch, Folded, fold
from collector.labels import DEFAULT_RULES, Combination, label_of
from collector.tally import Key, scope_of
from server.statistics.day_columns import DayColumns
from server.statistics.items import item_stats
from server.statistics.outcomes import Result, Telling
from server.statistics.outcomes import type_row as type_row_of_outcomes
from server.statistics.performance import performance_row
from server.statistics.period import Period
from server.statistics.population import population_of, values_of
from server.statistics.quality import Exposure, quality_row
from server.statistics.sessions import Sessions
from server.statistics.times import quantiles
from server.statistics.types import SHARES, type_row
from server.statistics.user_totals import Names
from server.statistics.users import UserHistory, user_stats
from tests.unit.docs.documents import ROOT

DAY = datetime(2025, 12, 1, tzinfo=UTC)
TYPES = {"kettle": "kitchen", "toaster": "kitchen", "rake": "garden"}
ROW = re.compile(r"^\| `([\w.]+)` \| .* \| ([\d.]+) \|$", re.MULTILINE)


def at(clock: str) -> datetime:
    hours, minutes, seconds = map(int, clock.split(":"))
    return DAY + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def slate(ranking_id: str, user_id: str, clock: str, item_ids: list[str]) -> dict[str, Any]:
    items = [{"item_id": one, "item_type": TYPES[one], "position": place} for place, one in enumerate(item_ids, start=1)]
    return {"_id": ranking_id, "user_id": user_id, "show_time": at(clock), "algorithm": "editorial", "surface": "home", "items": items}


def event(clock: str, user_id: str, kind: str, item_id: str, ranking_id: str, value: float | None = None) -> dict[str, Any]:
    rule = DEFAULT_RULES[kind]
    said: dict[str, Any] = {"value": value} if value is not None else {}
    if user_id == "ann":
        said["session_id"] = "s1"
    return {
        "_id": f"{clock} {kind}",
        "user_id": user_id,
        "item_id": item_id,
        "type": kind,
        "label": label_of(rule, value),
        "acts": rule.acts,
        "occur_time": at(clock),
        "ranking_id": ranking_id,
        **said,
    }


SLATES = [slate("r1", "ann", "09:00:00", ["kettle", "rake", "toaster"]), slate("r2", "ben", "10:00:00", ["rake", "kettle"])]
EVENTS = [
    event("09:00:05", "ann", "view", "kettle", "r1", 30.0),
    event("09:00:10", "ann", "click", "kettle", "r1"),
    event("09:00:40", "ann", "view", "rake", "r1"),
    event("09:00:45", "ann", "dismiss", "rake", "r1"),
    event("09:41:00", "ann", "implement", "kettle", "r1"),
    event("10:00:02", "ben", "view", "kettle", "r2"),
    event("10:00:50", "ben", "rate", "kettle", "r2", 4.0),
]
OUTCOMES = [
    {"_id": "o1", "user_id": "ann", "type": "revenue", "value": 39.9, "item_id": "kettle", "ranking_id": "r1", "occur_time": at("09:45:00")}
]


@pytest.fixture(scope="module")
def folded() -> Folded:
    batch = Batch(interactions=EVENTS, slates=SLATES, outcomes=OUTCOMES, folded_slates={}, folded_outcomes=[], attributions={})
    return fold(batch, Combination.MAX)


def counters(folded: Folded, scope: str, key: Key) -> dict[str, int]:
    """Of one key, over the day."""
    total: dict[str, int] = defaultdict(int)
    for tally, counts in folded.tallies.items():
        if tally.scope == scope and tally.key == key:
            for (_, counter), count in counts.items():
                total[counter] += count
    return total


def check(title: str, message: Any, **further: float) -> None:
    """Every figure of the table below `title` is what the message says, to the digits that the page shows."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text().partition("## A worked example")[2]
    rows = ROW.findall(page.partition(f"\n{title}")[2].partition(":\n\n")[2].partition("\n\n")[0])
    assert rows, title
    for name, shown in rows:
        value = further[name] if name in further else figure(message, name)
        digits = len(shown.partition(".")[2])
        assert f"{value:.{digits}f}" == shown, name


def figure(message: Any, name: str) -> float:
    outer, _, inner = name.partition(".")
    value = getattr(message, outer)
    if inner:
        value = value[inner] if outer == "type_preferences" else getattr(value, inner)
    elif "_time_to_" in outer or outer.endswith("_length"):
        value = value.ToTimedelta().total_seconds()
    return float(value)


def test_everything_together(folded: Folded) -> None:
    check("Everything together", performance_row({}, counters(folded, scope_of(()), ())))


def test_one_position(folded: Folded) -> None:
    check("Position 1", performance_row({}, counters(folded, scope_of(("position",)), ("1",))))


def test_one_item(folded: Folded) -> None:
    check("kettle (", item_stats("kettle", counters(folded, "item", "kettle")))


def test_one_type(folded: Folded) -> None:
    timed = [one.to_document(Combination.MAX).get("timed", {}) for one in folded.attributions.values()]
    waits = np.array([one["action"] for one in timed if one.get("type") == "kitchen"])
    measured = {"action": quantiles(waits, SHARES)}
    check("kitchen (", type_row("kitchen", counters(folded, "type", "kitchen"), {}, measured))


def test_one_user(folded: Folded) -> None:
    history = UserHistory(
        interactions=[one for one in EVENTS if one["user_id"] == "ann"],
        impressions={("r1", item["item_id"]): item["item_type"] for item in SLATES[0]["items"]},
        touched={key: attribution.counts for key, attribution in folded.attributions.items() if key[0] == "r1"},
        slate_count=1,
    )
    check("ann (", user_stats("ann", history, Period(DAY, DAY + timedelta(days=1))))


def test_sessions() -> None:
    sessions = Sessions(Period(DAY, DAY + timedelta(days=1)), Names(), {})
    columns = DayColumns.of(EVENTS)
    sessions.runs.feed(DAY, columns, [True] * len(columns.sessions))
    sessions.finish()
    check("Both (", sessions.metrics())


def test_one_score() -> None:
    values = {}
    for user_id in ("ann", "ben"):
        own = [one for one in EVENTS if one["user_id"] == user_id]
        found = values_of([one["occur_time"] for one in own], [one["type"] for one in own])
        assert found is not None
        values[user_id] = found
    check("ann's score", population_of(list(values.values()), DAY).score(values["ann"]))


def test_all_slates(folded: Folded) -> None:
    shown: dict[str, int] = defaultdict(int)
    for one in SLATES:
        for item in one["items"]:
            shown[item["item_id"]] += 1
    touched: dict[str, int] = defaultdict(int)
    for one in EVENTS:
        touched[one["item_id"]] += 1
    exposure = Exposure(frozenset({*TYPES, "lamp"}), {(None, None): shown}, {(None, None): counters(folded, scope_of(()), ())}, touched, {})
    check("All slates", quality_row(exposure, (None, None)))


def test_incomes() -> None:
    def income(user_id: str, before: float, value: float, **attributes: str) -> Result:
        return Result(
            event_id=f"{value}",
            user_id=user_id,
            type="income",
            before=before,
            value=value,
            item_id="",
            ranking_id="",
            occur_time=DAY,
            attributes=attributes,
        )

    incomes = [income("ann", 1000, 1200, cost="50"), income("ann", 1200, 1260), income("ben", 2000, 1900)]
    check("Incomes", type_row_of_outcomes("income", incomes, Telling(count=0, min_users=5, pseudonym=str)))
