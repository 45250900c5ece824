"""What may enter the ledger: every field checked, every fault named by its path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from collector.labels import MAX_STARS, LabelPolicy, ValueKind
from rankloop.v1.tracking_pb2 import Interaction, Outcome, Session, Slate
from runtime.errors import InvalidInput, Violation
from runtime.timestamps import is_valid, to_datetime

MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 1024
MAX_MAP_ENTRIES = 64
MAX_TAGS = 64
MAX_FEATURES = 256
MAX_SLATE_BYTES = 4 * 2**20
"""Of a slate as it was sent: whatever it is made of, MongoDB's form of it then stays below the 16 MiB that a document may have."""
MAX_ENTRIES = 1000
MAX_POSITION = 1_000_000
MAX_OUTCOME = 1e12
MAX_AHEAD = timedelta(days=1)


class Faults:
    """The faults found in one entry, by path."""

    __slots__ = ("_path", "found")

    def __init__(self, path: str) -> None:
        self._path = path
        self.found: list[Violation] = []

    def add(self, field: str, reason: str, description: str) -> None:
        """One more."""
        self.found.append(Violation(field=f"{self._path}{field}", reason=reason, description=description))

    def id(self, field: str, value: str, *, required: bool) -> None:
        """An id or a name: 1 to 256 bytes."""
        if not value:
            if required:
                self.add(field, "MISSING", "is required")
        elif len(value) > MAX_ID_BYTES // 4 and len(value.encode()) > MAX_ID_BYTES:
            self.add(field, "TOO_LONG", f"has {len(value.encode())} bytes; at most {MAX_ID_BYTES}")

    def time(self, field: str, stamp: Timestamp, now: datetime) -> None:
        """A moment: valid, at most a day ahead."""
        if not is_valid(stamp):
            self.add(field, "OUT_OF_RANGE", "is not a time between the years 1 and 9999")
        elif to_datetime(stamp) > now + MAX_AHEAD:
            self.add(field, "IN_THE_FUTURE", "is more than a day ahead of the server's clock; check the sender's clock and unit (seconds)")

    def texts(self, field: str, entries: Mapping[str, str]) -> None:
        """A map of strings."""
        if len(entries) > MAX_MAP_ENTRIES:
            self.add(field, "TOO_MANY", f"has {len(entries)} entries; at most {MAX_MAP_ENTRIES}")
            return
        for key, value in entries.items():
            if not key or len(key.encode()) > MAX_ID_BYTES:
                self.add(f'{field}["{key[:32]}"]', "TOO_LONG" if key else "MISSING", f"a key has 1 to {MAX_ID_BYTES} bytes")
            if len(value.encode()) > MAX_TEXT_BYTES:
                self.add(f'{field}["{key[:32]}"]', "TOO_LONG", f"a value has at most {MAX_TEXT_BYTES} bytes")

    def tags(self, field: str, tags: Iterable[str]) -> None:
        """A list of tags."""
        listed = list(tags)
        if len(listed) > MAX_TAGS:
            self.add(field, "TOO_MANY", f"has {len(listed)} entries; at most {MAX_TAGS}")
            return
        for index, tag in enumerate(listed):
            self.id(f"{field}[{index}]", tag, required=True)

    def number(self, field: str, value: float, *, low: float = -math.inf, high: float = math.inf) -> None:
        """A finite number within bounds."""
        if not math.isfinite(value):
            self.add(field, "NOT_FINITE", f"is {value}; expected a finite number")
        elif not low <= value <= high:
            self.add(field, "OUT_OF_RANGE", f"is {value:g}; expected {low:g} to {high:g}")

    def numbers(self, field: str, entries: Mapping[str, float], *, most: int) -> None:
        """A map of finite numbers."""
        if len(entries) > most:
            self.add(field, "TOO_MANY", f"has {len(entries)} entries; at most {most}")
            return
        for key, value in entries.items():
            if not key or len(key.encode()) > MAX_ID_BYTES:
                self.add(f'{field}["{key[:32]}"]', "TOO_LONG" if key else "MISSING", f"a key has 1 to {MAX_ID_BYTES} bytes")
            self.number(f'{field}["{key[:32]}"]', value)


def check_count(field: str, count: int) -> None:
    """A call's list: 1 to 1,000 entries.

    Raises:
        InvalidInput: there are none, or more.
    """
    if not 1 <= count <= MAX_ENTRIES:
        reason = "TOO_MANY" if count else "MISSING"
        raise InvalidInput.of(field, reason, f"has {count} entries; expected 1 to {MAX_ENTRIES}: split what is more into several calls")


def interaction_faults(entry: Interaction, path: str, policy: LabelPolicy, now: datetime) -> list[Violation]:
    """Everything wrong with an interaction; empty: nothing."""
    faults = Faults(path)
    faults.id("event_id", entry.event_id, required=True)
    faults.id("user_id", entry.user_id, required=True)
    faults.id("item_id", entry.item_id, required=True)
    for field in ("ranking_id", "session_id", "item_type", "surface", "dropoff_point"):
        faults.id(field, getattr(entry, field), required=False)
    rule = policy.rules.get(entry.type)
    if not entry.type:
        faults.add("type", "MISSING", f"is required; known types: {policy.known_types}")
    elif rule is None:
        faults.add(
            "type",
            "UNKNOWN_TYPE",
            f"{entry.type[:64]!r} is not in the label policy; known types: {policy.known_types}; add it under [labels.types]",
        )
    elif entry.HasField("value"):
        faults.number("value", entry.value, low=0.0, high=MAX_STARS if rule.value is ValueKind.STARS else math.inf)
    elif rule.value is ValueKind.STARS:
        faults.add("value", "MISSING", f"a rating brings its stars, 0 to {MAX_STARS:g}")
    if entry.HasField("occur_time"):
        faults.time("occur_time", entry.occur_time, now)
    if entry.HasField("position") and not 1 <= entry.position <= MAX_POSITION:
        faults.add("position", "OUT_OF_RANGE", f"is {entry.position}; 1 is the top")
    if entry.context:
        faults.texts("context", entry.context)
    return faults.found


def slate_faults(entry: Slate, path: str, now: datetime) -> list[Violation]:
    """Everything wrong with a slate; empty: nothing."""
    faults = Faults(path)
    faults.id("ranking_id", entry.ranking_id, required=True)
    faults.id("user_id", entry.user_id, required=True)
    for field in ("session_id", "surface", "algorithm", "model_version", "experiment_id", "variant_id"):
        faults.id(field, getattr(entry, field), required=False)
    if entry.HasField("show_time"):
        faults.time("show_time", entry.show_time, now)
    if entry.HasField("variant_propensity"):
        faults.number("variant_propensity", entry.variant_propensity, low=0.0, high=1.0)
        if entry.variant_propensity == 0.0:
            faults.add("variant_propensity", "OUT_OF_RANGE", "is 0; whoever was given the variant had a chance above 0")
        elif not entry.variant_id:
            faults.add("variant_propensity", "OUT_OF_RANGE", "is that of `variant_id`, which is empty")
    if entry.context:
        faults.texts("context", entry.context)
    if not 1 <= len(entry.items) <= MAX_ENTRIES:
        faults.add("items", "TOO_MANY" if entry.items else "MISSING", f"has {len(entry.items)} entries; expected 1 to {MAX_ENTRIES}")
        return faults.found
    if (size := entry.ByteSize()) > MAX_SLATE_BYTES:
        faults.add("items", "TOO_LONG", f"make a slate of {size} bytes; at most {MAX_SLATE_BYTES}")
        return faults.found
    seen: set[str] = set()
    names: set[str] = set()
    for index, item in enumerate(entry.items):
        place = f"items[{index}]"
        faults.id(f"{place}.item_id", item.item_id, required=True)
        if item.item_id in seen:
            faults.add(f"{place}.item_id", "DUPLICATE", "stands in the slate twice")
        seen.add(item.item_id)
        faults.id(f"{place}.item_type", item.item_type, required=False)
        if not 0 <= item.position <= MAX_POSITION:
            faults.add(f"{place}.position", "OUT_OF_RANGE", f"is {item.position}; 1 is the top, 0 takes the place in the list")
        if item.HasField("score"):
            faults.number(f"{place}.score", item.score)
        if item.HasField("propensity"):
            faults.number(f"{place}.propensity", item.propensity, low=0.0, high=1.0)
            if item.propensity == 0.0:
                faults.add(f"{place}.propensity", "OUT_OF_RANGE", "is 0; what was shown had a chance above 0")
        faults.id(f"{place}.variant_id", item.variant_id, required=False)
        if item.variant_id and not entry.experiment_id:
            faults.add(f"{place}.variant_id", "INVALID", "is a variant of no experiment: the slate names none in `experiment_id`")
        if item.tags:
            faults.tags(f"{place}.tags", item.tags)
        if item.attributes:
            faults.texts(f"{place}.attributes", item.attributes)
        if item.features:
            faults.numbers(f"{place}.features", item.features, most=MAX_FEATURES)
            names.update(item.features)
    if len(names) > MAX_FEATURES:  # each is a column, with a value for every item
        faults.add("items", "TOO_MANY", f"have {len(names)} different features together; at most {MAX_FEATURES}")
    return faults.found


def outcome_faults(entry: Outcome, path: str, now: datetime) -> list[Violation]:
    """Everything wrong with an outcome; empty: nothing."""
    faults = Faults(path)
    faults.id("event_id", entry.event_id, required=True)
    faults.id("user_id", entry.user_id, required=True)
    faults.id("type", entry.type, required=True)
    faults.id("item_id", entry.item_id, required=False)
    faults.id("ranking_id", entry.ranking_id, required=False)
    if entry.HasField("before_value"):
        faults.number("before_value", entry.before_value, low=-MAX_OUTCOME, high=MAX_OUTCOME)
    if entry.HasField("value"):
        faults.number("value", entry.value, low=-MAX_OUTCOME, high=MAX_OUTCOME)
    if entry.HasField("occur_time"):
        faults.time("occur_time", entry.occur_time, now)
    if entry.attributes:
        faults.texts("attributes", entry.attributes)
    return faults.found


def session_faults(entry: Session, path: str, now: datetime) -> list[Violation]:
    """Everything wrong with a session that starts; empty: nothing."""
    faults = Faults(path)
    faults.id("session_id", entry.session_id, required=True)
    faults.id("user_id", entry.user_id, required=True)
    faults.id("device", entry.device, required=False)
    faults.id("browser", entry.browser, required=False)
    if entry.HasField("start_time"):
        faults.time("start_time", entry.start_time, now)
    if entry.HasField("end_time"):
        faults.add("end_time", "INVALID", "is set by EndSession")
    page_faults(faults, entry.pages)
    if entry.context:
        faults.texts("context", entry.context)
    return faults.found


def page_faults(faults: Faults, pages: Iterable[str]) -> None:
    """Pages of a session: at most 1,000, each 1 to 1,024 bytes."""
    listed = list(pages)
    if len(listed) > MAX_ENTRIES:
        faults.add("pages", "TOO_MANY", f"has {len(listed)} entries; at most {MAX_ENTRIES}")
        return
    for index, page in enumerate(listed):
        if not 1 <= len(page.encode()) <= MAX_TEXT_BYTES:
            faults.add(f"pages[{index}]", "TOO_LONG" if page else "MISSING", f"a page has 1 to {MAX_TEXT_BYTES} bytes")
