"""Lines of `rankloop.v1.Record` in its JSON form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf import json_format

from rankloop.v1.record_pb2 import Record
from scripts.importing.lines import Line, decoded

DERIVED = {
    "attribution": "it is derived from slates and interactions; import those",
    "tally": "it is derived from the ledger; import slates, interactions and outcomes",
    "experiment": "an experiment is made anew: CreateExperiment",
    "experiment_change": "an experiment made anew has a history of its own",
    "model": "a model comes with its files: `rankloop models import`",
}
"""What is exported and not imported, and what to do instead."""

KINDS = tuple(field.name for field in Record.DESCRIPTOR.oneofs_by_name["kind"].fields if field.name not in DERIVED)


def read(lines: Iterable[tuple[int, bytes]], *, after: int = 0) -> Iterator[Line]:
    """What the lines say, those after number `after`; blank ones are passed over."""
    for number, line in lines:
        if number <= after or not line.strip():
            continue
        text, fault = decoded(number, line)
        yield Line(number, text, fault=fault) if fault else parse(number, text)


def parse(number: int, text: str) -> Line:
    """What one line says."""
    record = Record()
    try:
        json_format.Parse(text, record, max_recursion_depth=20)
    except json_format.ParseError as error:
        return Line(number, text, fault=f"not the JSON form of a Record: {error}"[:500])
    except RecursionError:
        return Line(number, text, fault="not the JSON form of a Record: nested too deeply")
    if (kind := record.WhichOneof("kind")) in DERIVED:
        return Line(number, text, fault=f"{kind} is not imported: {DERIVED[kind]}")
    if kind is None:
        return Line(number, text, fault=f"a Record holds one of {', '.join(KINDS)}; this one holds none")
    return Line(number, text, (record,))
