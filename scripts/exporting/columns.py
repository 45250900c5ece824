"""A record as a row: a column per field of its message, in the order of the contract. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

ColumnType = Literal["text", "double", "integer", "boolean", "time", "json"]
Value = str | float | int | bool | None

_LINE_ENDS: Final = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What JSON lets stand in a string and many readers take for the end of a line."""
_TIMESTAMP: Final = "google.protobuf.Timestamp"
_DOUBLES: Final = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a message as a column."""

    name: str
    type: ColumnType
    """`time` is RFC 3339 in UTC; `json` is what has no column type: lists, maps, messages."""


def columns_of(kind: Descriptor) -> tuple[Column, ...]:
    """The columns of a kind of record."""
    return tuple(Column(field.name, _type_of(field)) for field in kind.fields)


def row_of(message: Message) -> list[Value]:
    """The values of a record, parallel to `columns_of`; None: absent."""
    descriptor: Descriptor = message.DESCRIPTOR  # type: ignore[assignment]  # the C implementation has a class of its own
    return [_value_of(message, field, _type_of(field)) for field in descriptor.fields]


def json_line(message: Message) -> str:
    """A message in its JSON form on one line, names in order: the same message gives the same line."""
    return json_format.MessageToJson(message, indent=None, sort_keys=True, ensure_ascii=False).translate(_LINE_ENDS)


def _type_of(field: FieldDescriptor) -> ColumnType:
    if field.is_repeated:
        return "json"
    if field.message_type is not None:
        return "time" if field.message_type.full_name == _TIMESTAMP else "json"
    if field.cpp_type in (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_ENUM):
        return "text"
    if field.cpp_type in _DOUBLES:
        return "double"
    return "boolean" if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else "integer"


def _value_of(message: Message, field: FieldDescriptor, kind: ColumnType) -> Value:
    if field.has_presence and not message.HasField(field.name):
        return None
    value: Any = getattr(message, field.name)
    if kind == "time":
        return str(value.ToJsonString())
    if kind == "json":
        return _json_of(value, field) if value else None
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    plain: Value = value
    return plain


def _json_of(value: Any, field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _dumped({str(key): value[key] for key in value})
    items: Sequence[Any] = value if field.is_repeated else [value]
    plain = [json_format.MessageToDict(item, preserving_proto_field_name=True) if isinstance(item, Message) else item for item in items]
    return _dumped(plain if field.is_repeated else plain[0])


def _dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
