"""The forms of an exported file: JSON Lines, CSV, SQL, and the rows that Parquet is made of.

All are text that is appended to, so that an export that broke off can go on.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

from google.protobuf.descriptor import Descriptor

from rankloop.v1.record_pb2 import Record
from scripts.exporting.columns import ColumnType, Value, columns_of, json_line, row_of

Format = Literal["jsonl", "csv", "parquet", "sql"]

SQL_TYPES: Mapping[ColumnType, str] = {
    "text": "text",
    "double": "double precision",
    "integer": "bigint",
    "boolean": "boolean",
    "time": "timestamp with time zone",
    "json": "text",
}


class Text(Protocol):
    """A form that is text."""

    def head(self) -> str:
        """What the file begins with."""

    def lines(self, records: Iterable[Record]) -> str:
        """The records, each on lines of its own."""


class JsonLines:
    """A Record in its JSON form per line, as `rankloop import` takes it."""

    def head(self) -> str:
        """Nothing."""
        return ""

    def lines(self, records: Iterable[Record]) -> str:
        """See Text."""
        return "".join(f"{json_line(record)}\n" for record in records)


class Csv:
    """A header and a row per record (RFC 4180, with \\n); what is absent is empty."""

    def __init__(self, kind: Descriptor) -> None:
        self._columns = columns_of(kind)

    def head(self) -> str:
        """See Text."""
        return self._written([[column.name for column in self._columns]])

    def lines(self, records: Iterable[Record]) -> str:
        """See Text."""
        return self._written(_rows(records))

    @staticmethod
    def _written(rows: Iterable[list[str] | list[Value]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [("true" if value else "false") if isinstance(value, bool) else value for value in row] for row in rows
        )
        return text.getvalue()


class Sql:
    """A table and an INSERT per record, in standard SQL; what is absent is NULL."""

    def __init__(self, table: str, kind: Descriptor) -> None:
        self._columns = columns_of(kind)
        self._table = quoted_name(table)
        self._names = ", ".join(quoted_name(column.name) for column in self._columns)

    def head(self) -> str:
        """See Text."""
        columns = ",\n".join(f"  {quoted_name(column.name)} {SQL_TYPES[column.type]}" for column in self._columns)
        return f"CREATE TABLE IF NOT EXISTS {self._table} (\n{columns}\n);\n"

    def lines(self, records: Iterable[Record]) -> str:
        """See Text."""
        return "".join(f"INSERT INTO {self._table} ({self._names}) VALUES ({', '.join(map(literal, row))});\n" for row in _rows(records))


class Rows:
    """A JSON list per record: what Parquet is made of when all are there."""

    def head(self) -> str:
        """Nothing."""
        return ""

    def lines(self, records: Iterable[Record]) -> str:
        """See Text."""
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in _rows(records))


def form_of(name: Format, table: str, kind: Descriptor) -> Text:
    """The form of that name."""
    forms: Mapping[Format, Text] = {"jsonl": JsonLines(), "csv": Csv(kind), "sql": Sql(table, kind), "parquet": Rows()}
    return forms[name]


def literal(value: Value) -> str:
    """A value in SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''").replace("\0", "") + "'"
    return repr(value) if math.isfinite(value) else "NULL"


def quoted_name(name: str) -> str:
    """A name in SQL, even where it is a word of the language."""
    return '"' + name.replace('"', '""') + '"'


def kind_descriptor(name: str) -> Descriptor:
    """The message of a kind of record."""
    kind = Record.DESCRIPTOR.fields_by_name[name].message_type
    assert kind is not None, "every kind of record is a message"
    return kind


def _rows(records: Iterable[Record]) -> Iterable[list[Value]]:
    for record in records:
        kind = record.WhichOneof("kind")
        assert kind is not None, "the server sends no empty record"
        yield row_of(getattr(record, kind))
