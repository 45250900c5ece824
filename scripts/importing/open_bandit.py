"""Logs of the Open Bandit Dataset (Saito et al. 2020, arXiv 2008.07146): a row is one impression of a randomised policy.

A row becomes a slate of one item at the row's position, with its propensity and the policy as `algorithm`; a clicked row also becomes
an interaction. The user is whoever has the row's hashed features: the data know no other identity.

As an arm of an experiment the unit is another one. The policy was drawn for each arrival, not for each person, and the same features came
under both; so the user is the arrival: the features at that very moment, which the rows of one page share.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from rankloop.v1.catalog_pb2 import Item, User
from rankloop.v1.record_pb2 import Record
from rankloop.v1.tracking_pb2 import Interaction, Slate, SlateItem
from runtime.errors import InvalidInput
from scripts.importing.arm import Arm
from scripts.importing.lines import Line, decoded

LOG_COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")
USER_PREFIX = "user_feature_"
ITEM_PREFIX = "item_feature_"
REMEMBERED_USERS = 100_000


def read(lines: Iterable[tuple[int, bytes]], *, policy: str, arm: Arm | None = None, after: int = 0) -> Iterator[Line]:
    """What the rows of a policy's log say, those after line `after`; with `arm` as that arm's, its users arrivals.

    Raises:
        InvalidInput: a column is missing.
    """
    known: set[str] = set()
    for number, text, row, fault in _rows(lines, LOG_COLUMNS, after):
        try:
            if fault:
                raise ValueError(fault)
            user, records = _impression(policy, arm, number, text, row)
        except ValueError as error:
            yield Line(number, text, fault=str(error))
            continue
        if arm is None and user.user_id not in known:
            if len(known) == REMEMBERED_USERS:
                known.clear()  # it only saves saying again who they are
            known.add(user.user_id)
            records = (Record(user=user), *records)
        yield Line(number, text, records)


def read_items(lines: Iterable[tuple[int, bytes]], *, after: int = 0) -> Iterator[Line]:
    """What the rows of an item table say: hashed features are attributes, the others numbers.

    Raises:
        InvalidInput: a column is missing.
    """
    for number, text, row, fault in _rows(lines, ("item_id",), after):
        if fault:
            yield Line(number, text, fault=fault)
            continue
        item = Item(item_id=row["item_id"])
        for name, value in row.items():
            if name.startswith(ITEM_PREFIX):
                try:
                    item.numbers[name] = float(value)
                except ValueError:
                    item.attributes[name] = value
        yield Line(number, text, (Record(item=item),))


def _impression(policy: str, arm: Arm | None, number: int, text: str, row: Mapping[str, str]) -> tuple[User, tuple[Record, ...]]:
    """The user and the records of a row. Raises ValueError with the reason."""
    features = {name: value for name, value in row.items() if name.startswith(USER_PREFIX)}
    # Of an arm: an arrival, which is nobody in any other arm or import, and its slate none of theirs.
    own = () if arm is None else (arm.experiment_id, arm.variant_id)
    moment = () if arm is None else (row["timestamp"],)
    user_id = _digest(*(features[name] for name in sorted(features)), *own, *moment)[:24]
    shown = Timestamp()
    shown.FromDatetime(_time(row["timestamp"]))
    # The row's own content is part of its id: another log under the same policy's name is another log.
    ranking_id = f"{policy}:{number}:{_digest(text, *own)[:12]}"
    item = SlateItem(
        item_id=row["item_id"],
        position=_integer(row, "position", 1, 1000),
        propensity=_propensity(row["propensity_score"]),
    )
    slate = Slate(ranking_id=ranking_id, user_id=user_id, algorithm=policy, show_time=shown, items=[item])
    if arm is not None:
        slate.experiment_id, slate.variant_id = arm.experiment_id, arm.variant_id
        slate.context.update(features)
    records = [Record(slate=slate)]
    if _integer(row, "click", 0, 1):
        click = Interaction(
            event_id=f"{ranking_id}:click", user_id=user_id, item_id=item.item_id, type="click", occur_time=shown, ranking_id=ranking_id
        )
        records.append(Record(interaction=click))
    return User(user_id=user_id, attributes=features), tuple(records)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _rows(lines: Iterable[tuple[int, bytes]], columns: Iterable[str], after: int) -> Iterator[tuple[int, str, dict[str, str], str]]:
    """Number, text, values by column and fault of every row after line `after`. A row of these tables is one line."""
    header: list[str] = []
    for number, line in lines:
        if (header and number <= after) or not line.strip():
            continue
        text, fault = decoded(number, line)
        try:
            values = next(csv.reader([text], strict=True))
        except csv.Error as error:
            values, fault = [], f"not CSV: {error}"
        if not header:
            header = values
            for column in columns:
                if column not in header:
                    raise InvalidInput.of("header", "MISSING", f"an Open Bandit file has a column {column}, and this one has not")
            continue
        if not fault and len(values) != len(header):
            fault = f"the row has {len(values)} values, the header {len(header)}"
        yield number, text, dict(zip(header, values, strict=False)), fault


def _time(text: str) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"timestamp: {text!r} is not a time like 2019-11-24 00:01:03+00:00") from None
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def _integer(row: Mapping[str, str], column: str, low: int, high: int) -> int:
    try:
        value = int(row[column])
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ValueError(f"{column}: {row[column]!r} is not a whole number from {low} to {high}")
    return value


def _propensity(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise ValueError(f"propensity_score: {text!r} is not a probability above 0 and at most 1")
    return value
