"""Laws of the fold: any order, any division into batches, and the same as a recount."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from collector.attribution import Attribution
from collector.batch import Batch, fold, touched
from collector.labels import Combination
from collector.tally import TallyId, scope_of
from tests.unit.collector.ledgers import MIDNIGHT, Entry, ledgers, of_kind, recount

Tallies = dict[TallyId, Counter[tuple[int, str]]]
Attributions = dict[tuple[str, str], Attribution]


def folded(batches: Sequence[Sequence[tuple[str, Entry]]], rule: Combination = Combination.MAX) -> tuple[Tallies, Attributions]:
    """What a worker would have in its database after these batches."""
    tallies: Tallies = {}
    attributions: Attributions = {}
    slates: dict[str, Entry] = {}
    outcomes: list[Entry] = []
    for batch in batches:
        arrived = {slate["_id"]: slate for slate in of_kind(batch, "slates")}
        interactions = of_kind(batch, "interactions")
        known = {*touched(interactions), *((slate["_id"], item["item_id"]) for slate in arrived.values() for item in slate["items"])}
        result = fold(
            Batch(
                interactions=interactions,
                slates=list(arrived.values()),
                outcomes=of_kind(batch, "outcomes"),
                folded_slates=slates,
                folded_outcomes=[one for one in outcomes if one["ranking_id"] in arrived],
                attributions={key: one for key, one in attributions.items() if key in known},
            ),
            rule,
        )
        attributions |= result.attributions
        slates |= arrived
        outcomes += of_kind(batch, "outcomes")
        for tally, counters in result.tallies.items():
            tallies.setdefault(tally, Counter()).update(counters)
    settled = {tally: Counter({at: n for at, n in counters.items() if n}) for tally, counters in tallies.items()}
    return {tally: counters for tally, counters in settled.items() if counters}, attributions


@given(ledgers(), st.randoms(use_true_random=False), st.integers(1, 5), st.sampled_from(list(Combination)))
def test_order_and_division_change_nothing(entries: list[tuple[str, Entry]], random: object, size: int, rule: Combination) -> None:
    at_once = folded([entries], rule)
    shuffled = list(entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert folded([shuffled[start : start + size] for start in range(0, len(shuffled), size)], rule) == at_once


@given(ledgers())
def test_performance_equals_a_recount(entries: list[tuple[str, Entry]]) -> None:
    tallies, _ = folded([[entry] for entry in entries])
    for grouping in [(), ("algorithm",), ("position",), ("algorithm", "tier"), ("surface", "position"), ("position", "tier")]:
        counted: dict[tuple[str, ...], Counter[str]] = {}
        for tally, counters in tallies.items():
            if tally.scope == scope_of(grouping):
                assert isinstance(tally.key, tuple)
                row = counted.setdefault(tally.key, Counter())
                for (_, name), count in counters.items():
                    row[name] += count
        expected = recount(entries, *grouping)
        assert counted.keys() == expected.keys()
        for group, row in expected.items():
            names = set(row) - ({"outcomes"} if "position" not in grouping and "tier" not in grouping else set())
            assert {name: counted[group][name] for name in names} == {name: row[name] for name in names}


@given(ledgers())
def test_items_count_by_when_it_occurred(entries: list[tuple[str, Entry]]) -> None:
    tallies, _ = folded([entries])
    expected: Counter[tuple[str, int, int, str]] = Counter()
    for one in of_kind(entries, "interactions"):
        moment = one["occur_time"]
        expected[one["item_id"], moment.day, moment.hour, f"type_{one['type']}"] += 1
    found = Counter(
        {
            (str(tally.key), tally.day.day, hour, name): count
            for tally, counters in tallies.items()
            if tally.scope == "item"
            for (hour, name), count in counters.items()
            if name.startswith("type_")
        }
    )
    assert found == expected


@given(ledgers())
def test_lifecycles_of_types_equal_a_recount(entries: list[tuple[str, Entry]]) -> None:
    tallies, attributions = folded([[entry] for entry in entries])
    expected: dict[object, Counter[str]] = {}
    times: dict[tuple[str, str], tuple[int | None, int | None]] = {}
    for slate in of_kind(entries, "slates"):
        for item in slate["items"]:
            own = [one for one in of_kind(entries, "interactions") if one["item_id"] == item["item_id"]]
            own = [one for one in own if one.get("ranking_id") == slate["_id"]]
            acts, completions = [one for one in own if one["acts"]], [one for one in own if one["type"] == "complete"]
            abandons = sorted((one for one in own if one["type"] == "abandon"), key=lambda one: (one["occur_time"], one["_id"]))
            row = expected.setdefault(item["item_type"], Counter())
            waits = [
                max(0, (min(one["occur_time"] for one in some) - slate["show_time"]) // timedelta(milliseconds=1)) if some else None
                for some in (acts, completions)
            ]
            row += Counter(impressions=1, acted=bool(acts), ignored=bool(own) and not acts, untouched=not own)
            row += Counter(completed=bool(completions), finished=bool(completions or abandons))
            row += Counter(action_milliseconds=waits[0] or 0, completion_milliseconds=waits[1] or 0)
            if abandons:
                expected.setdefault((item["item_type"], abandons[-1]["dropoff_point"]), Counter())["impressions"] += 1
            if own and any(wait is not None for wait in waits):
                times[slate["_id"], item["item_id"]] = (waits[0], waits[1])
            expected[item["item_type"]] = row
    found: dict[object, Counter[str]] = {}
    for tally, counters in tallies.items():
        if tally.scope in ("type", "dropoff"):
            for (_, name), count in counters.items():
                found.setdefault(tally.key, Counter())[name] += count
    for key, row in expected.items():
        assert {name: found.get(key, Counter())[name] for name in row} == dict(row), key
    kept = {key: one.to_document(Combination.MAX).get("timed") for key, one in attributions.items()}
    assert {key: (timed.get("action"), timed.get("completion")) for key, timed in kept.items() if timed} == times


@given(ledgers())
def test_attributions_survive_the_database(entries: list[tuple[str, Entry]]) -> None:
    _, attributions = folded([entries])
    for attribution in attributions.values():
        assert Attribution.from_document(attribution.to_document(Combination.MAX)) == attribution


def test_a_click_after_a_purchase_leaves_it_a_purchase() -> None:
    slate = {"_id": "r", "user_id": "u", "show_time": MIDNIGHT, "items": [{"item_id": "a", "item_type": "x", "position": 1}]}
    purchase = {"_id": "1", "item_id": "a", "ranking_id": "r", "type": "purchase", "label": 1.0, "acts": True, "occur_time": MIDNIGHT}
    click = purchase | {"_id": "2", "type": "click", "label": 0.4}
    _, attributions = folded([[("slates", slate)], [("interactions", purchase)], [("interactions", click)]])
    assert attributions["r", "a"].label(Combination.MAX) == 1.0
    assert attributions["r", "a"].label(Combination.LAST) == 0.4
