"""Random ledgers, and what must come of them, counted in plain Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from collector.labels import DEFAULT_RULES, label_of

Entry = dict[str, Any]

MIDNIGHT = datetime(2026, 2, 28, tzinfo=UTC)
TYPES = ["view", "click", "save", "rate", "implement", "complete", "abandon", "dismiss", "favorite"]


@st.composite
def ledgers(draw: st.DrawFn) -> list[tuple[str, Entry]]:
    """(kind, entry) of slates, interactions and outcomes around midnights; some interactions know no slate, some no item of theirs.

    A slate without items is nothing that is taken in any more. One that is there all the same stops nothing.
    """
    entries: list[tuple[str, Entry]] = []
    minutes = st.integers(-90, 90).map(lambda m: MIDNIGHT + timedelta(minutes=m))
    for number in range(draw(st.integers(0, 4))):
        items = draw(st.lists(st.sampled_from("abcd"), min_size=0, max_size=4, unique=True))
        slate = {
            "_id": f"r{number}",
            "user_id": "u",
            "algorithm": draw(st.sampled_from(["hybrid", "popular"])),
            "model_version": draw(st.sampled_from(["", "m1"])),
            "surface": "home",
            "show_time": draw(minutes),
            "items": [
                {"item_id": item, "item_type": item.upper(), "position": place, "tier": draw(st.sampled_from(["", "gold"]))}
                for place, item in enumerate(items, start=1)
            ],
        }
        entries.append(("slates", slate))
    for number in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(TYPES))
        value = draw(st.sampled_from([1.0, 2.5, 5.0])) if kind == "rate" else None
        interaction = {
            "_id": f"e{number}",
            "user_id": "u",
            "item_id": draw(st.sampled_from("abcde")),
            "type": kind,
            "label": label_of(DEFAULT_RULES[kind], value),
            "acts": DEFAULT_RULES[kind].acts,
            "occur_time": draw(minutes),
        }
        if value is not None:
            interaction["value"] = value
        if kind == "abandon":
            interaction["dropoff_point"] = draw(st.sampled_from(["start", "middle"]))
        if draw(st.booleans()):
            interaction["ranking_id"] = draw(st.sampled_from(["r0", "r1", "r2", "r9"]))
        if draw(st.booleans()):
            interaction["item_type"] = interaction["item_id"].upper()
        entries.append(("interactions", interaction))
    for number in range(draw(st.integers(0, 3))):
        outcome = {"_id": f"o{number}", "user_id": "u", "type": "revenue", "occur_time": draw(minutes)}
        outcome |= {"value": draw(st.sampled_from([0.1, -2.75, 1e6])), "ranking_id": draw(st.sampled_from(["r0", "r1", "r9"]))}
        if draw(st.booleans()):
            outcome["item_id"] = draw(st.sampled_from("abz"))
        entries.append(("outcomes", outcome))
    return draw(st.permutations(entries))


def of_kind(entries: Iterable[tuple[str, Entry]], kind: str) -> list[Entry]:
    return [entry for found, entry in entries if found == kind]


def recount(entries: Sequence[tuple[str, Entry]], *dimensions: str) -> dict[tuple[str, ...], Counter[str]]:
    """Performance by dimensions, from the raw entries: one impression at a time."""
    rows: dict[tuple[str, ...], Counter[str]] = {}
    interactions, outcomes = of_kind(entries, "interactions"), of_kind(entries, "outcomes")
    for slate in of_kind(entries, "slates"):
        groups = set()
        for item in slate["items"]:
            group = tuple(str(slate[name] if name in slate else item[name]) for name in dimensions)
            groups.add(group)
            row = rows.setdefault(group, Counter())
            own = [one for one in interactions if (one.get("ranking_id"), one["item_id"]) == (slate["_id"], item["item_id"])]
            types = {one["type"] for one in own}
            row["impressions"] += 1
            row["clicked"] += "click" in types
            row["implements"] += "implement" in types
            row["acted"] += any(one["acts"] for one in own)
            row["ignored"] += bool(own) and not any(one["acts"] for one in own)
            row["untouched"] += not own
            row["label_nanos"] += round(1e9 * max((one["label"] for one in own), default=0.0))
            if any(one["acts"] for one in own):
                waited = min(one["occur_time"] for one in own if one["acts"]) - slate["show_time"]
                row["action_milliseconds"] += max(0, waited // timedelta(milliseconds=1))
            row["outcomes"] += sum((one["ranking_id"], one.get("item_id")) == (slate["_id"], item["item_id"]) for one in outcomes)
        for group in groups:
            rows[group]["slates"] += 1
    return rows
