"""Between messages and the documents of the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from google.protobuf.message import Message

from collector.labels import LabelRule, label_of
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Session, Slate
from runtime.mongo import Document
from runtime.timestamps import to_datetime, to_timestamp

DIGEST_BYTES = 12


def digest_of(entry: Message) -> bytes:
    """A fingerprint of an entry as it was sent: the same id with another one is a caller's mistake."""
    return hashlib.blake2b(entry.SerializeToString(deterministic=True), digest_size=DIGEST_BYTES).digest()


def interaction_document(entry: Interaction, rule: LabelRule, now: datetime) -> Document:
    """The ledger's form of a checked interaction. `now` is at full milliseconds."""
    value = entry.value if entry.HasField("value") else None
    document: Document = {
        "_id": entry.event_id,
        "user_id": entry.user_id,
        "item_id": entry.item_id,
        "type": entry.type,
        "label": label_of(rule, value),
        "acts": rule.acts,
        "occur_time": to_datetime(entry.occur_time) if entry.HasField("occur_time") else now,
        "receive_time": now,
        "digest": digest_of(entry),
        "pending": now,
    }
    if value is not None:
        document["value"] = value
    if entry.HasField("position"):
        document["position"] = entry.position
    if entry.ranking_id:
        document["ranking_id"] = entry.ranking_id
    if entry.session_id:
        document["session_id"] = entry.session_id
    if entry.item_type:
        document["item_type"] = entry.item_type
    if entry.surface:
        document["surface"] = entry.surface
    if entry.dropoff_point:
        document["dropoff_point"] = entry.dropoff_point
    if entry.context:
        document["context"] = pairs(entry.context)
    return document


def interaction_message(document: Mapping[str, Any]) -> Interaction:
    """The reverse of `interaction_document`."""
    entry = Interaction(
        event_id=document["_id"],
        user_id=document["user_id"],
        item_id=document["item_id"],
        type=document["type"],
        occur_time=to_timestamp(document["occur_time"]),
        ranking_id=document.get("ranking_id", ""),
        session_id=document.get("session_id", ""),
        item_type=document.get("item_type", ""),
        surface=document.get("surface", ""),
        dropoff_point=document.get("dropoff_point", ""),
        context=mapping(document.get("context", [])),
    )
    if "value" in document:
        entry.value = document["value"]
    if "position" in document:
        entry.position = document["position"]
    return entry


def slate_document(entry: Slate, item_types: Mapping[str, str], now: datetime) -> tuple[Document, tuple[str, ...]]:
    """The ledger's form of a checked slate, and the names of its feature columns (none: no features).

    `item_types` is what the catalogue says of items whose type the caller left out.
    """
    items: list[Document] = []
    for place, item in enumerate(entry.items, start=1):
        kept: Document = {
            "item_id": item.item_id,
            "item_type": item.item_type or item_types.get(item.item_id, ""),
            "position": item.position or place,
        }
        if item.HasField("score"):
            kept["score"] = item.score
        if item.HasField("propensity"):
            kept["propensity"] = item.propensity
        if item.variant_id:
            kept["variant_id"] = item.variant_id
        if item.tags:
            kept["tags"] = list(item.tags)
        if item.attributes:
            kept["attributes"] = pairs(item.attributes)
            if tier := item.attributes.get("tier"):
                kept["tier"] = tier
        items.append(kept)
    document: Document = {
        "_id": entry.ranking_id,
        "user_id": entry.user_id,
        "surface": entry.surface,
        "algorithm": entry.algorithm,
        "model_version": entry.model_version,
        "show_time": to_datetime(entry.show_time) if entry.HasField("show_time") else now,
        "receive_time": now,
        "items": items,
        "digest": digest_of(entry),
        "pending": now,
    }
    if entry.session_id:
        document["session_id"] = entry.session_id
    if entry.experiment_id:
        document["experiment_id"] = entry.experiment_id
        document["variant_id"] = entry.variant_id
        propensity = entry.variant_propensity if entry.HasField("variant_propensity") else None
        if propensity is not None:
            document["variant_propensity"] = propensity
        document["experiments"] = [experiment_note(entry.experiment_id, entry.variant_id, propensity)]
    if entry.context:
        document["context"] = pairs(entry.context)
    names, values = feature_block([item.features for item in entry.items])
    if names:
        document["features"] = values
    return document, names


def experiment_note(experiment_id: str, variant_id: str, propensity: float | None) -> Document:
    """A slate's experiment, as the ledger lists it. `propensity` is that of the variant; None: unknown, or a tester's."""
    note: Document = {"id": experiment_id, "variant": variant_id}
    return note if propensity is None else note | {"propensity": propensity}


def feature_block(rows: Sequence[Mapping[str, float]]) -> tuple[tuple[str, ...], bytes]:
    """Features of several items as columns: the names, sorted, and little-endian float64 values, (n_items, n_names), missing is NaN."""
    names = tuple(sorted({name for row in rows for name in row}))
    if not names:
        return (), b""
    column = {name: index for index, name in enumerate(names)}
    block = np.full((len(rows), len(names)), np.nan, dtype="<f8")
    for index, row in enumerate(rows):
        for name, value in row.items():
            block[index, column[name]] = value
    return names, block.tobytes()


def names_hash(names: Sequence[str]) -> str:
    """The id of a list of caller-named feature columns."""
    # As JSON, since callers' names may hold whatever might separate them.
    return "columns-" + hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:32]


def outcome_document(entry: Outcome, now: datetime) -> Document:
    """The ledger's form of a checked outcome."""
    document: Document = {
        "_id": entry.event_id,
        "user_id": entry.user_id,
        "type": entry.type,
        "occur_time": to_datetime(entry.occur_time) if entry.HasField("occur_time") else now,
        "receive_time": now,
        "digest": digest_of(entry),
        "pending": now,
    }
    if entry.HasField("before_value"):
        document["before_value"] = entry.before_value
    if entry.HasField("value"):
        document["value"] = entry.value
    if entry.item_id:
        document["item_id"] = entry.item_id
    if entry.ranking_id:
        document["ranking_id"] = entry.ranking_id
    if entry.attributes:
        document["attributes"] = pairs(entry.attributes)
    return document


def outcome_message(document: Mapping[str, Any]) -> Outcome:
    """The reverse of `outcome_document`."""
    entry = Outcome(
        event_id=document["_id"],
        user_id=document["user_id"],
        type=document["type"],
        occur_time=to_timestamp(document["occur_time"]),
        item_id=document.get("item_id", ""),
        ranking_id=document.get("ranking_id", ""),
        attributes=mapping(document.get("attributes", [])),
    )
    if "before_value" in document:
        entry.before_value = document["before_value"]
    if "value" in document:
        entry.value = document["value"]
    return entry


def slate_message(document: Mapping[str, Any], columns: Sequence[str]) -> Slate:
    """The reverse of `slate_document`, of slates ranked here as well. `columns` are the names of its features, if it has any."""
    entry = Slate(
        ranking_id=document["_id"],
        user_id=document["user_id"],
        session_id=document.get("session_id", ""),
        surface=document.get("surface", ""),
        algorithm=document.get("algorithm", ""),
        model_version=document.get("model_version", ""),
        show_time=to_timestamp(document["show_time"]),
        context=mapping(document.get("context", [])),
        experiment_id=document.get("experiment_id", ""),
        variant_id=document.get("variant_id", ""),
    )
    if "variant_propensity" in document:
        entry.variant_propensity = document["variant_propensity"]
    rows = feature_rows(document.get("features", b""), columns, len(document["items"]))
    for stored, features in zip(document["items"], rows, strict=True):
        attributes = mapping(stored.get("attributes", []))
        if tier := stored.get("tier"):
            attributes["tier"] = tier  # of a slate ranked here it may be the catalogue's
        item = entry.items.add(
            item_id=stored["item_id"],
            item_type=stored["item_type"],
            position=stored["position"],
            tags=stored.get("tags", []),
            attributes=attributes,
            features=features,
            variant_id=stored.get("variant_id", ""),
        )
        if "score" in stored:
            item.score = stored["score"]
        if "propensity" in stored:
            item.propensity = stored["propensity"]
    return entry


def feature_rows(block: bytes, columns: Sequence[str], count: int) -> list[dict[str, float]]:
    """The reverse of `feature_block`: the features of each of `count` items, without those that are missing."""
    if not block or not columns:
        return [{} for _ in range(count)]
    values = np.frombuffer(block, dtype="<f8").reshape(count, len(columns))
    known = ~np.isnan(values)
    return [
        {columns[column]: float(row[column]) for column in np.flatnonzero(present).tolist()}
        for row, present in zip(values, known, strict=True)
    ]


def session_document(entry: Session, now: datetime) -> Document:
    """The ledger's form of a checked session that starts."""
    return {
        "_id": entry.session_id,
        "user_id": entry.user_id,
        "start_time": to_datetime(entry.start_time) if entry.HasField("start_time") else now,
        "receive_time": now,
        "device": entry.device,
        "browser": entry.browser,
        "pages": list(entry.pages),
        "context": pairs(entry.context),
        "digest": digest_of(entry),
    }


def session_message(document: Mapping[str, Any]) -> Session:
    """A session as stored."""
    entry = Session(
        session_id=document["_id"],
        user_id=document["user_id"],
        start_time=to_timestamp(document["start_time"]),
        device=document["device"],
        browser=document["browser"],
        pages=document["pages"],
        context=mapping(document["context"]),
    )
    if "end_time" in document:
        entry.end_time.CopyFrom(to_timestamp(document["end_time"]))
    return entry


def pairs(entries: Mapping[str, str]) -> list[list[str]]:
    """A map as a list of pairs, sorted: keys of callers may hold dots and dollars, which field names may not."""
    return [[key, value] for key, value in sorted(entries.items())]


def mapping(stored: Sequence[Sequence[str]]) -> dict[str, str]:
    """The reverse of `pairs`."""
    return {key: value for key, value in stored}  # noqa: C416 - a pair is a list here
