"""Parquet, through pyarrow, which is an extra."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from runtime.errors import Misconfigured
from scripts.exporting.columns import Column

ROWS_AT_ONCE: Final = 10_000


def pyarrow_modules() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises Misconfigured where they are not installed."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise Misconfigured("--format parquet needs pyarrow: pip install 'rankloop-server[parquet]', or choose jsonl, csv or sql") from None


def write(rows: Path, target: Path, columns: Sequence[Column]) -> None:
    """Makes a Parquet file of a file with a JSON list per line, at the memory of ROWS_AT_ONCE rows."""
    arrow, parquet = pyarrow_modules()
    types = {
        "text": arrow.string(),
        "json": arrow.string(),
        "double": arrow.float64(),
        "integer": arrow.int64(),
        "boolean": arrow.bool_(),
        "time": arrow.timestamp("ms", tz="UTC"),
    }
    schema = arrow.schema([(column.name, types[column.type]) for column in columns])
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for chunk in _chunks(rows):
            arrays = [
                arrow.array([_moment(value) if column.type == "time" else value for value in values], type=types[column.type])
                for column, values in zip(columns, zip(*chunk, strict=True), strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _chunks(rows: Path) -> Iterator[list[list[Any]]]:
    with open(rows, encoding="utf-8") as lines:
        chunk: list[list[Any]] = []
        for line in lines:
            chunk.append(json.loads(line))
            if len(chunk) == ROWS_AT_ONCE:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
