"""One step of the fold, without I/O: ledger entries and what is known in, changed attributions and tallies out.

Counted is what became of the impressions of slates that were folded. An interaction that comes before its slate changes the impression's
attribution and nothing else; the slate, when it comes, counts its impressions as they are by then. So every order of arrival gives the
same tallies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from collector.attribution import Attribution, Shown, Touch
from collector.diversity import slate_diversity
from collector.labels import Combination
from collector.tally import (
    Cell,
    TallyDeltas,
    TallyId,
    difference,
    dropoff_of,
    impression_counters,
    interaction_counters,
    item_share,
    outcome_counters,
    slate_counters,
    type_share,
)

Document = Mapping[str, Any]
ImpressionId = tuple[str, str]
"""(ranking_id, item_id)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Entries to fold, and what the database knows of what they touch."""

    interactions: Sequence[Document]
    slates: Sequence[Document]
    outcomes: Sequence[Document]
    folded_slates: Mapping[str, Document]
    """Slates folded before that the entries name, by ranking_id."""
    folded_outcomes: Sequence[Document]
    """Outcomes folded before that name a slate of this batch."""
    attributions: Mapping[ImpressionId, Attribution]
    """As they are before, of every impression that the entries touch and that had an interaction."""


@dataclass(slots=True)
class Folded:
    """What a batch changes."""

    attributions: dict[ImpressionId, Attribution] = field(default_factory=dict)
    """As they are after; only those that changed."""
    known: Collection[ImpressionId] = ()
    """Impressions whose attribution was there before."""
    tallies: dict[TallyId, dict[tuple[int, str], int]] = field(default_factory=dict)
    """What to add, by (hour, counter)."""


class _Impression(NamedTuple):
    """Where an impression counts."""

    cell: Cell
    item_id: str
    item_type: str
    position: int
    show_time: datetime


def fold(batch: Batch, rule: Combination) -> Folded:
    """Takes the entries in. Pure, and the same for any order of entries and any division into batches."""
    deltas = TallyDeltas()
    after: dict[ImpressionId, Attribution] = {}
    for interaction in batch.interactions:
        _count_interaction(deltas, interaction)
        if ranking_id := interaction.get("ranking_id"):
            impression_id = (ranking_id, interaction["item_id"])
            if impression_id not in after:
                before = batch.attributions.get(impression_id)
                after[impression_id] = before.copy() if before else Attribution()
            after[impression_id].add(touch_of(interaction))

    cells: dict[tuple[object, ...], Cell] = {}
    known = {ranking_id: _impressions(slate, cells) for ranking_id, slate in batch.folded_slates.items()}
    for (ranking_id, item_id), attribution in after.items():
        impression = known.get(ranking_id, {}).get(item_id)
        if impression is not None:
            before = batch.attributions.get((ranking_id, item_id))
            _count_dropoff(deltas, impression, dropoff_of(attribution), dropoff_of(before))
            if attribution.timed:
                attribution.shown = Shown(impression.show_time, impression.item_type)
            _count_impression(
                deltas,
                impression,
                difference(
                    impression_counters(attribution, impression.show_time, rule), impression_counters(before, impression.show_time, rule)
                ),
            )

    arrived = {slate["_id"]: _impressions(slate, cells) for slate in batch.slates}
    for slate in batch.slates:
        ranking_id = slate["_id"]
        impressions = arrived[ranking_id]
        for item_id, impression in impressions.items():
            now = after.get((ranking_id, item_id)) or batch.attributions.get((ranking_id, item_id))
            _count_impression(deltas, impression, impression_counters(now, impression.show_time, rule))
            if now is not None:
                _count_dropoff(deltas, impression, dropoff_of(now), "")
                if now.timed:
                    known_now = after.setdefault((ranking_id, item_id), now.copy())
                    known_now.shown = Shown(impression.show_time, impression.item_type)
        if impressions:
            cells_shown = [impression.cell for impression in impressions.values()]
            deltas.add_slate(cells_shown, slate["show_time"], slate_counters(slate_diversity(slate)))

    for outcome in batch.outcomes:
        _count_outcome(deltas, outcome)
        ranking_id = outcome.get("ranking_id", "")
        _attribute_outcome(deltas, outcome, arrived.get(ranking_id) or known.get(ranking_id))
    for outcome in batch.folded_outcomes:
        _attribute_outcome(deltas, outcome, arrived.get(outcome["ranking_id"]))
    return Folded(after, batch.attributions.keys(), deltas.settle())


def touch_of(interaction: Document) -> Touch:
    """An interaction as its impression sees it."""
    return Touch(
        interaction["occur_time"],
        interaction["_id"],
        interaction["type"],
        interaction["label"],
        interaction["acts"],
        interaction.get("value"),
        interaction.get("dropoff_point", ""),
    )


def slate_cell(slate: Document) -> tuple[str, str, str, str]:
    """Where a slate stands among the dimensions of performance: algorithm, model version, variant, surface."""
    experiment = slate.get("experiment_id", "")
    variant = f"{experiment}/{slate.get('variant_id', '')}" if experiment else ""
    return slate.get("algorithm", ""), slate.get("model_version", ""), variant, slate.get("surface", "")


def _impressions(slate: Document, cells: dict[tuple[object, ...], Cell]) -> dict[str, _Impression]:
    """By item. `cells` are those met so far: impressions stand in few."""
    within, show_time = slate_cell(slate), slate["show_time"]
    impressions: dict[str, _Impression] = {}
    for item in slate["items"]:
        place = (*within, item["position"], item.get("tier", ""))
        cell = cells.get(place)
        if cell is None:
            cell = cells[place] = Cell(*within, str(item["position"]), item.get("tier", ""))
        impressions[item["item_id"]] = _Impression(cell, item["item_id"], item.get("item_type", ""), item["position"], show_time)
    return impressions


def _count_interaction(deltas: TallyDeltas, interaction: Document) -> None:
    counters = interaction_counters(interaction["type"], interaction["label"])
    moment = interaction["occur_time"]
    deltas.add("item", interaction["item_id"], moment, counters)
    deltas.add_to_whole(interaction.get("item_type", ""), moment, counters)


def _count_impression(deltas: TallyDeltas, impression: _Impression, counters: Mapping[str, int]) -> None:
    if not counters:
        return
    deltas.add_impression(impression.cell, impression.show_time, counters)
    share = item_share(counters, impression.position)
    if share:
        deltas.add("item", impression.item_id, impression.show_time, share)
        # Of the whole, too: what rankers draw the rates of new types towards.
        deltas.add_to_whole("", impression.show_time, share)
    if impression.item_type and (lifecycle := type_share(counters, impression.position)):
        deltas.add("type", impression.item_type, impression.show_time, lifecycle)


def _count_dropoff(deltas: TallyDeltas, impression: _Impression, now: str, before: str) -> None:
    """Where it was given up. Points are keys, not counters: callers name them as they like, and a tally must not grow with that."""
    if now == before or not impression.item_type:
        return
    for point, change in ((now, 1), (before, -1)):
        if point:
            deltas.add("dropoff", (impression.item_type, point), impression.show_time, {"impressions": change})


def _count_outcome(deltas: TallyDeltas, outcome: Document) -> None:
    counters = outcome_counters(outcome.get("value"))
    deltas.add("all", "", outcome["occur_time"], counters)
    if item_id := outcome.get("item_id"):
        deltas.add("item", item_id, outcome["occur_time"], counters)


def _attribute_outcome(deltas: TallyDeltas, outcome: Document, slate: Mapping[str, _Impression] | None) -> None:
    """The slate's groups earn the outcome; those that look inside it, only where it names an item of the slate. None: not known yet."""
    if not slate:  # or without an item
        return
    counters = outcome_counters(outcome.get("value"))
    impression = slate.get(outcome.get("item_id", ""))
    if impression is not None:
        deltas.add_impression(impression.cell, impression.show_time, counters)
    else:
        any_of_them = next(iter(slate.values()))
        deltas.add_slate_value(any_of_them.cell[:4], any_of_them.show_time, counters)


def touched(interactions: Iterable[Document]) -> list[ImpressionId]:
    """The impressions that interactions name, each once."""
    return list({(entry["ranking_id"], entry["item_id"]): None for entry in interactions if entry.get("ranking_id")})
