"""What is exported and not imported, as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankloop.v1.record_pb2 import Attribution, ExperimentChangeRecord, HourTally, Record, Tally
from runtime.mongo import Document
from runtime.timestamps import to_datetime, to_timestamp
from server.experiments.store import changes_in
from server.statistics.period import Period


def attribution_message(document: Mapping[str, Any]) -> Attribution:
    """What became of an impression."""
    entry = Attribution(
        ranking_id=document["ranking_id"], item_id=document["_id"]["item_id"], label=document["label"], counts=document["counts"]
    )
    for name in ("first_view_time", "first_click_time", "first_act_time", "first_complete_time"):
        if name in document:
            getattr(entry, name).CopyFrom(to_timestamp(document[name]))
    if "last_rating" in document:
        entry.rating = document["last_rating"][2]
    if "last_abandon" in document:
        entry.dropoff_point = document["last_abandon"][2]
    return entry


def tally_message(document: Mapping[str, Any]) -> Tally:
    """The counters of a key and day."""
    identity = document["_id"]
    return Tally(
        scope=identity["scope"],
        key=[identity["key"]] if isinstance(identity["key"], str) else identity["key"],
        start_time=to_timestamp(identity["start"]),
        day=_counters(document.get("day", {})),
        hours=[
            HourTally(hour=int(hour), counters=_counters(counters))
            for hour, counters in sorted(document.get("hours", {}).items(), key=lambda one: int(one[0]))
        ],
    )


def changed_within(document: Document, period: Period) -> list[Record]:
    """The changes of an experiment in the period, as they were made."""
    return [
        Record(
            experiment_change=ExperimentChangeRecord(
                experiment_id=document["_id"],
                change_time=one.change_time,
                action=one.action,
                description=one.description,
                etag=one.etag,
            )
        )
        for one in changes_in(document)
        if period.start <= to_datetime(one.change_time) < period.end
    ]


def _counters(stored: Mapping[str, Any], prefix: str = "") -> dict[str, int]:
    """Counters by name; those of a name with dots are documents in documents."""
    found: dict[str, int] = {}
    for name, value in stored.items():
        if isinstance(value, Mapping):
            found |= _counters(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = int(value)
    return found
