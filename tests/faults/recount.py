"""Attributions and tallies once more, from the raw documents of the ledger, in plain Python and without the product's own code."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import combinations
from typing import Any

Document = Mapping[str, Any]
TallyKey = tuple[str, datetime, Any]
"""Scope, the day's first moment, and the key: a string, or a tuple of dimensions."""

GROUPINGS = ((), ("algorithm",), ("position",), ("surface",), ("tier",), ("variant",), ("algorithm", "position"))
"""Groupings of performance that are recounted: the whole, five dimensions and a pair."""
SCOPES = ("item", "type", "dropoff", "all", *("performance:" + "+".join(grouping) for grouping in GROUPINGS))

FLAGS = {
    "clicked": "click",
    "viewed": "view",
    "rated": "rate",
    "favorites": "favorite",
    "watchlists": "watchlist",
    "saves": "save",
    "implements": "implement",
    "dismissals": "dismiss",
    "completed": "complete",
    "purchases": "purchase",
    "applications": "apply",
}
"""Counters of impressions that had at least one interaction of a type."""
SHARED = ("impressions", "clicked", "acted", "dismissals", "implements")
"""Counters of impressions that items and types keep too."""
LIFECYCLE = ("viewed", "ignored", "untouched", "completed", "finished", "action_milliseconds", "completion_milliseconds")
"""Those that types keep besides."""


class Recount:
    """What must have been derived from a ledger whose every entry was folded. Labels combine by `max`."""

    def __init__(self, interactions: Iterable[Document], slates: Iterable[Document], outcomes: Iterable[Document]) -> None:
        self.attributions: dict[tuple[str, str], dict[str, Any]] = {}
        """By (ranking_id, item_id)."""
        self.tallies: dict[TallyKey, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        """By hour ("0" to "23") and for the "day", the counters that are not 0."""
        touches: dict[tuple[str, str], list[Document]] = defaultdict(list)
        for entry in interactions:
            counters = {"interactions": 1, f"type_{entry['type']}": 1, "label_nanos": round(entry["label"] * 1e9)}
            self._add_interaction(entry, counters)
            if "ranking_id" in entry:
                touches[entry["ranking_id"], entry["item_id"]].append(entry)
        for impression, entries in touches.items():
            self.attributions[impression] = attribution(entries)
        known = {}
        for slate in slates:
            known[slate["_id"]] = slate
            self._add_slate(slate, touches)
        for outcome in outcomes:
            self._add_outcome(outcome, known.get(outcome.get("ranking_id", "")))

    def _add(self, scope: str, key: Any, moment: datetime, counters: Mapping[str, int]) -> None:
        tally = self.tallies[scope, moment.replace(hour=0, minute=0, second=0, microsecond=0), key]
        for part in (str(moment.hour), "day"):
            for name, count in counters.items():
                tally[part][name] += count

    def _add_interaction(self, entry: Document, counters: Mapping[str, int]) -> None:
        self._add("all", "", entry["occur_time"], counters)
        self._add("item", entry["item_id"], entry["occur_time"], counters)
        if entry.get("item_type"):
            self._add("type", entry["item_type"], entry["occur_time"], counters)

    def _add_slate(self, slate: Document, touches: Mapping[tuple[str, str], list[Document]]) -> None:
        moment = slate["show_time"]
        groups: set[tuple[str, tuple[str, ...]]] = set()
        for item in slate["items"]:
            counters = impression(touches.get((slate["_id"], item["item_id"]), []), moment)
            for scope, key in _groups(slate, item):
                groups.add((scope, key))
                self._add(scope, key, moment, counters)
            share = {name: counters[name] for name in SHARED if name in counters} | {"positions": item["position"]}
            self._add("item", item["item_id"], moment, share)
            self._add("all", "", moment, share)
            if item.get("item_type"):
                self._add("type", item["item_type"], moment, share | {name: counters[name] for name in LIFECYCLE if name in counters})
            self._add_end(slate, item)
        for scope, key in groups:
            self._add(scope, key, moment, {"slates": 1} | varied(slate))

    def _add_end(self, slate: Document, item: Document) -> None:
        """How long it took, and where it was given up."""
        found = self.attributions.get((slate["_id"], item["item_id"]), {})
        ends = {"action": found.get("first_act_time"), "completion": found.get("first_complete_time")}
        times = {name: _milliseconds(slate["show_time"], end) for name, end in ends.items() if end is not None}
        if times:
            found["timed"] = {"shown": slate["show_time"], "type": item.get("item_type", ""), **times}
        point = found["last_abandon"][2] if "last_abandon" in found else ""
        if point and item.get("item_type"):
            self._add("dropoff", (item["item_type"], point), slate["show_time"], {"impressions": 1})

    def _add_outcome(self, outcome: Document, slate: Document | None) -> None:
        counters = {"outcomes": 1}
        if "value" in outcome:
            units = int(outcome["value"] // 1)
            counters |= {"outcome_units": units, "outcome_nanos": round((outcome["value"] - units) * 1e9)}
        self._add("all", "", outcome["occur_time"], counters)
        if outcome.get("item_id"):
            self._add("item", outcome["item_id"], outcome["occur_time"], counters)
        if slate is None:
            return
        named = [item for item in slate["items"] if item["item_id"] == outcome.get("item_id")]
        inside = {"position", "tier"}
        for scope, key in _groups(slate, named[0] if named else slate["items"][0]):
            if named or not inside & set(scope.removeprefix("performance:").split("+")):
                self._add(scope, key, slate["show_time"], counters)


def attribution(entries: list[Document]) -> dict[str, Any]:
    """What became of one impression, given its interactions."""
    entries = sorted(entries, key=lambda one: (one["occur_time"], one["_id"]))
    nanos = [round(one["label"] * 1e9) for one in entries]
    found: dict[str, Any] = {
        "label": max(nanos) / 1e9,
        "counts": dict(Counter(one["type"] for one in entries)),
        "label_max_nanos": max(nanos),
        "label_sum_nanos": sum(nanos),
        "recent": [[one["occur_time"], one["_id"], label] for one, label in zip(entries, nanos, strict=True)][-16:],
    }
    for name, chosen in (
        ("first_view_time", [one for one in entries if one["type"] == "view"]),
        ("first_click_time", [one for one in entries if one["type"] == "click"]),
        ("first_complete_time", [one for one in entries if one["type"] == "complete"]),
        ("first_act_time", [one for one in entries if one["acts"]]),
    ):
        if chosen:
            found[name] = chosen[0]["occur_time"]
    if ratings := [one for one in entries if one["type"] == "rate"]:
        found["last_rating"] = [ratings[-1]["occur_time"], ratings[-1]["_id"], ratings[-1]["value"]]
    if abandons := [one for one in entries if one["type"] == "abandon"]:
        found["last_abandon"] = [abandons[-1]["occur_time"], abandons[-1]["_id"], abandons[-1].get("dropoff_point", "")]
    return found


def impression(entries: list[Document], show_time: datetime) -> dict[str, int]:
    """What one impression counts in performance, given its interactions."""
    if not entries:
        return {"impressions": 1, "untouched": 1}
    found = attribution(entries)
    counters = {"impressions": 1, "touched": 1, "label_nanos": found["label_max_nanos"]}
    counters |= {counter: 1 for counter, kind in FLAGS.items() if kind in found["counts"]}
    if "last_rating" in found:
        counters["stars_nanos"] = round(found["last_rating"][2] * 1e9)
    if "first_act_time" in found:
        counters |= {"acted": 1, "action_milliseconds": _milliseconds(show_time, found["first_act_time"])}
    else:
        counters["ignored"] = 1
    if "first_complete_time" in found or "last_abandon" in found:
        counters["finished"] = 1
    if "first_complete_time" in found:
        counters["completion_milliseconds"] = _milliseconds(show_time, found["first_complete_time"])
    return counters


def varied(slate: Document) -> dict[str, int]:
    """What a slate of several items counts besides: as the ranker said, else 1 − mean similarity of its pairs by tags and types."""

    def similarity(one: Document, other: Document) -> float:
        tags, others = set(one.get("tags", ())), set(other.get("tags", ()))
        equal = bool(one.get("item_type")) and one.get("item_type") == other.get("item_type")
        return (len(tags & others) + equal) / max(1, len(tags | others) + equal)

    diversity = slate.get("diversity_score")
    pairs = list(combinations(slate["items"], 2))
    if diversity is None and pairs:
        diversity = 1 - sum(similarity(*pair) for pair in pairs) / len(pairs)
    return {} if diversity is None else {"varied": 1, "diversity_nanos": round(diversity * 1e9)}


def _groups(slate: Document, item: Document) -> list[tuple[str, tuple[str, ...]]]:
    experiment = slate.get("experiment_id", "")
    values = {
        "algorithm": slate.get("algorithm", ""),
        "surface": slate.get("surface", ""),
        "variant": f"{experiment}/{slate.get('variant_id', '')}" if experiment else "",
        "position": str(item["position"]),
        "tier": item.get("tier", ""),
    }
    return [("performance:" + "+".join(grouping), tuple(values[name] for name in grouping)) for grouping in GROUPINGS]


def _milliseconds(begin: datetime, end: datetime) -> int:
    return max(0, round((end - begin).total_seconds() * 1000))
